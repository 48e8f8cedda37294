//! The two kinds of connection, as a flow sees them: a socket or a tunnelled stream.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::buffer::ReadBuffer;
use super::queue::{Queue, SLICES};
use crate::hbone::{Stream, StreamError};

/// Bytes of a tunnel that are gathered for one write.
const GATHER: usize = 256 << 10;

/// A connection that can be copied to and from.
pub struct Duplex(Kind);

enum Kind {
    Tcp(Socket),
    Tunnel(Stream),
    /// Has been reset.
    Gone,
}

/// A TCP connection that ends with a reset unless it ended properly: a peer must never take half
/// of the bytes for all of them.
struct Socket {
    tcp: TcpStream,
    finished: bool,
}

/// How a side broke.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SideError {
    /// A socket.
    #[error("{0}")]
    Socket(Arc<io::Error>),
    /// A tunnelled stream.
    #[error(transparent)]
    Tunnel(#[from] StreamError),
}

impl SideError {
    /// Whether the peer has closed the connection for good, without an error: it takes no more.
    pub(super) fn is_close(&self) -> bool {
        matches!(self, Self::Tunnel(StreamError::Closed))
    }

    /// Whether the peer reset the connection, as against it having failed.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        match self {
            Self::Socket(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            Self::Tunnel(error) => {
                matches!(error, StreamError::Reset(_) | StreamError::Closed)
            }
        }
    }
}

impl From<io::Error> for SideError {
    fn from(error: io::Error) -> Self {
        Self::Socket(Arc::new(error))
    }
}

impl From<TcpStream> for Duplex {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Tcp(Socket {
            tcp,
            finished: false,
        }))
    }
}

impl From<Stream> for Duplex {
    fn from(stream: Stream) -> Self {
        Self(Kind::Tunnel(stream))
    }
}

impl Duplex {
    /// Reads something into the queue; `false` at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuffer,
        queue: &mut Queue,
    ) -> Poll<Result<bool, SideError>> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.poll_read(cx, buffer, queue).map_err(SideError::from),
            Kind::Tunnel(stream) => poll_gather(cx, stream, queue),
            Kind::Gone => Poll::Ready(Ok(false)),
        }
    }

    /// Like `poll_read`, but only where what is read has long left its sender.
    pub(super) fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut Queue,
    ) -> Poll<Result<bool, SideError>> {
        match &mut self.0 {
            Kind::Tunnel(stream) => poll_gather(cx, stream, queue),
            Kind::Tcp(_) | Kind::Gone => Poll::Pending,
        }
    }

    /// Writes something of the queue; how many bytes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut Queue,
    ) -> Poll<Result<usize, SideError>> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.poll_write(cx, queue).map_err(SideError::from),
            Kind::Tunnel(stream) => {
                let count = ready!(stream.poll_capacity(cx, queue.first_len()))?;
                let chunk = queue.take(count);
                let count = chunk.len();
                stream.send(chunk)?;
                Poll::Ready(Ok(count))
            }
            Kind::Gone => Poll::Ready(Ok(queue.len())),
        }
    }

    /// Lets the peer send as much again: `count` bytes of it have been passed on.
    pub(super) fn release(&mut self, count: usize) {
        if let Kind::Tunnel(stream) = &mut self.0 {
            stream.release(count);
        }
    }

    /// Half-closes.
    pub(super) fn finish(&mut self) -> Result<(), SideError> {
        match &mut self.0 {
            Kind::Tcp(socket) => {
                SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Write)?;
                Ok(())
            }
            Kind::Tunnel(stream) => Ok(stream.finish()?),
            Kind::Gone => Ok(()),
        }
    }

    /// Ready when the peer has reset a side that is not read any more.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<SideError> {
        match &mut self.0 {
            Kind::Tunnel(stream) => stream.poll_reset(cx).map(SideError::from),
            // A socket that was reset says so when it is written to.
            Kind::Tcp(_) | Kind::Gone => Poll::Pending,
        }
    }

    /// Ready when what was written is on its way: a reset would throw it away before. What a socket
    /// was given is the kernel's already.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Tunnel(stream) => stream.poll_left(cx),
            Kind::Tcp(_) | Kind::Gone => Poll::Ready(()),
        }
    }

    /// Both ways have ended: it may be closed without a reset.
    pub(super) fn finished(&mut self) {
        if let Kind::Tcp(socket) = &mut self.0 {
            socket.finished = true;
        }
    }

    /// Resets the connection.
    pub(super) fn abort(&mut self) {
        if let Kind::Tunnel(stream) = std::mem::replace(&mut self.0, Kind::Gone) {
            stream.reset();
        }
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(socket) => write!(f, "Tcp({:?})", socket.tcp.peer_addr().ok()),
            Kind::Tunnel(stream) => write!(f, "{stream:?}"),
            Kind::Gone => f.write_str("Gone"),
        }
    }
}

impl Socket {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuffer,
        queue: &mut Queue,
    ) -> Poll<io::Result<bool>> {
        // Memory is taken only when there is something to read. `poll_read` waits by itself where
        // that was wrong, so no wake-up is lost.
        ready!(self.tcp.poll_read_ready(cx))?;
        let limit = buffer.limit();
        let mut room = buffer.room().limit(limit);
        let count = ready!(poll_read_buf(Pin::new(&mut self.tcp), cx, &mut room))?;
        if count == 0 {
            return Poll::Ready(Ok(false));
        }
        queue.push(buffer.take());
        Poll::Ready(Ok(true))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, queue: &mut Queue) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = queue.slices(&mut slices);
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, &slices[..filled]))?;
        queue.advance(written);
        Poll::Ready(Ok(written))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.finished {
            // With nothing to linger for, closing sends RST. It fails only where there is no
            // connection any more.
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Takes what the stream has, up to [`GATHER`] bytes; `false` at its end.
fn poll_gather(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    queue: &mut Queue,
) -> Poll<Result<bool, SideError>> {
    let mut gathered = 0;
    while gathered < GATHER {
        match stream.poll_data(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                gathered += chunk.len();
                queue.push(chunk);
            }
            Poll::Ready(Some(Err(error))) if gathered == 0 => {
                return Poll::Ready(Err(error.into()));
            }
            // An error and the end are told again when they are asked for again.
            Poll::Ready(Some(Err(_))) => break,
            Poll::Ready(None) => return Poll::Ready(Ok(gathered > 0)),
            Poll::Pending if gathered == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(true))
}
