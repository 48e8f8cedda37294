//! What carries a connection's requests: hyper, or nobody where none has come for a while. hyper has
//! 8 KiB for reading and as many for writing, and what stands between it and those who send takes 12
//! more; a connection that rests has none of them, and begins again with the next request.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use mesh::cork::Corked;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::heard::Heard;
use crate::upstream::pool::RequestBody;
use crate::upstream::pool::closing::Ending;
use crate::upstream::pool::wire;

/// Most bytes that are buffered for one connection, each way; a head must fit. hyper reads as much of
/// a large body at once.
const BUFFER: usize = 128 << 10;

/// A connection's bytes.
pub(super) type Wire = Heard<Corked<wire::Wire>>;

/// Who carries requests.
pub(super) enum Carrier {
    /// hyper.
    Plain(Box<dyn Plain>),
    /// hyper, and the connection may come to speak another protocol.
    Upgradeable(Ending),
    /// Nobody.
    Nobody(Wire),
}

/// hyper's side of a connection, whatever its requests' bodies are.
pub(super) trait Plain {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The connection without hyper, and whether anything came unasked.
    fn give_up(self: Box<Self>) -> (Wire, bool);
    fn with_upgrades(self: Box<Self>) -> Ending;
    fn finish(self: Box<Self>) -> Ending;
}

impl<B: RequestBody> Plain for Connection<TokioIo<Wire>, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(self).poll_unpin(cx).map(drop)
    }

    fn give_up(self: Box<Self>) -> (Wire, bool) {
        let parts = self.into_parts();
        (parts.io.into_inner(), !parts.read_buf.is_empty())
    }

    fn with_upgrades(self: Box<Self>) -> Ending {
        Box::pin((*self).with_upgrades().map(drop))
    }

    fn finish(self: Box<Self>) -> Ending {
        Box::pin(self.map(drop))
    }
}

/// Has hyper carry requests. There is nothing to wait for.
pub(super) async fn begin<B: RequestBody>(
    wire: Wire,
    keep_case: bool,
) -> hyper::Result<(SendRequest<B>, Carrier)> {
    let mut builder = Builder::new();
    builder.max_buf_size(BUFFER);
    builder.preserve_header_case(keep_case);
    let (sender, connection) = builder.handshake(TokioIo::new(wire)).await?;
    Ok((sender, Carrier::Plain(Box::new(connection))))
}

impl Carrier {
    /// Lets the connection go on; ready once it has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(connection) => connection.poll(cx),
            Self::Upgradeable(connection) => connection.as_mut().poll(cx),
            // What comes unasked is no answer to the next request.
            Self::Nobody(wire) => {
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                Pin::new(wire).poll_read(cx, &mut byte).map(drop)
            }
        }
    }

    /// The connection may come to speak another protocol.
    pub(super) fn with_upgrades(self) -> Self {
        match self {
            Self::Plain(connection) => Self::Upgradeable(connection.with_upgrades()),
            other => other,
        }
    }

    /// Nobody carries requests any more, where that can be. None where something came unasked.
    pub(super) fn rest(self) -> Option<Self> {
        match self {
            Self::Plain(connection) => {
                let (wire, unasked) = connection.give_up();
                (!unasked).then_some(Self::Nobody(wire))
            }
            other => Some(other),
        }
    }

    /// Goes on alone to the connection's end, which comes once nobody sends.
    pub(super) fn finish(self) -> Ending {
        match self {
            Self::Plain(connection) => connection.finish(),
            Self::Upgradeable(connection) => connection,
            Self::Nobody(mut wire) => Box::pin(async move { drop(wire.shutdown().await) }),
        }
    }
}
