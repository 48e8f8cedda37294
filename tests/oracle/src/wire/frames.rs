//! HTTP/2 frames by hand (RFC 9113 §4.1), for callers that break its rules on purpose.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Frame types.
pub const DATA: u8 = 0;
/// Opens a stream.
pub const HEADERS: u8 = 1;
/// Resets a stream.
pub const RST_STREAM: u8 = 3;
/// Connection settings.
pub const SETTINGS: u8 = 4;
/// To be answered.
pub const PING: u8 = 6;
/// The connection ends.
pub const GOAWAY: u8 = 7;
/// Goes on with a head.
pub const CONTINUATION: u8 = 9;

/// Flag: the stream's last frame of this side.
pub const END_STREAM: u8 = 1;
/// Flag: the head is complete.
pub const END_HEADERS: u8 = 4;

/// `GET / http` of authority `x`: indexed fields of the static table and one literal.
pub const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'x'];

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection whose frames are written by hand and whose answers are mostly not read.
#[derive(Debug)]
pub struct Frames {
    stream: TcpStream,
}

impl Frames {
    /// Connects, and sends the preface with empty settings.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(to: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(Self { stream })
    }

    /// Sends bytes; false when the other side takes no more, because it closed or stopped reading.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(Duration::from_secs(2), self.stream.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Reads until the other side closes; the code of its GOAWAY, if it sent one.
    ///
    /// # Errors
    /// When it hasn't closed within `patience`.
    pub async fn until_closed(&mut self, patience: Duration) -> Result<Option<u32>> {
        let mut read = Vec::new();
        // A reset closes too.
        let _ = timeout(patience, self.stream.read_to_end(&mut read)).await?;
        let mut rest = read.as_slice();
        let mut code = None;
        while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((payload, after)) = payload.split_at_checked(length) else {
                break;
            };
            if let (GOAWAY, [_, _, _, _, error @ ..]) = (*kind, payload) {
                code = error.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            }
            rest = after;
        }
        Ok(code)
    }
}
