//! The bytes of a downstream connection, whatever carries them: a socket or a tunnel's stream, as it
//! is or with TLS on it, and always with the bytes first that were looked at before.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use mesh::hbone;
use mesh::tap::{Tap, Tapped};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes of a downstream connection.
#[derive(Debug)]
pub enum Io {
    /// As they come.
    Plain(Carrier),
    /// In TLS that ends here.
    Tls(Box<Replay<TlsStream<Carrier>>>),
}

/// What carries the bytes, and what was looked at of it.
pub type Carrier = Replay<Wire>;

/// Bytes of which the first have been looked at: they are read again.
#[derive(Debug)]
pub struct Replay<T> {
    pub(super) before: Bytes,
    pub(super) inner: T,
}

/// What carries the bytes.
#[derive(Debug)]
pub enum Wire {
    /// A socket.
    Socket(TcpStream),
    /// A stream of a tunnel.
    Tunnel(Box<hbone::Io>),
    /// One whose bytes are counted, for the tunnel's own log.
    Metered(Box<Metered>),
}

/// Bytes of a stream, counted as they pass.
pub type Metered = Tapped<hbone::Io, Arc<Meter>>;

/// How many bytes passed.
#[derive(Debug, Default)]
pub struct Meter {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl<T> Replay<T> {
    /// Bytes of which nobody has looked at any.
    pub fn new(inner: T) -> Self {
        Self {
            before: Bytes::new(),
            inner,
        }
    }

    /// What was looked at and not read since, and the rest.
    pub fn into_parts(self) -> (Bytes, T) {
        (self.before, self.inner)
    }

    /// What is under the bytes.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }
}

/// Calls the same method on whatever carries the bytes.
macro_rules! each {
    ($of:ident, $self:expr, $inner:ident => $call:expr; $($variant:ident),+) => {
        match $self.get_mut() {
            $($of::$variant($inner) => $call,)+
        }
    };
}

impl Tap for Meter {
    fn read(&self, bytes: &[u8]) {
        self.received.fetch_add(bytes.len() as u64, Relaxed);
    }

    fn wrote(&self, count: usize) {
        self.sent.fetch_add(count as u64, Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(Wire, self, wire => Pin::new(wire).poll_read(cx, buffer); Socket, Tunnel, Metered)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(Wire, self, wire => Pin::new(wire).poll_write(cx, bytes); Socket, Tunnel, Metered)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(Wire, self, wire => Pin::new(wire).poll_write_vectored(cx, slices); Socket, Tunnel, Metered)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Wire, self, wire => Pin::new(wire).poll_flush(cx); Socket, Tunnel, Metered)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Wire, self, wire => Pin::new(wire).poll_shutdown(cx); Socket, Tunnel, Metered)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Replay<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let count = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before[..count]);
        self.before.advance(count);
        if self.before.is_empty() {
            // The memory is not needed any more.
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

mesh::write_through!(Replay);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(carrier) => Pin::new(carrier).poll_read(cx, buffer),
            Self::Tls(tls) => match ready!(Pin::new(tls.as_mut()).poll_read(cx, buffer)) {
                // Many clients close without saying so in TLS; HTTP has its own framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(Io, self, io => Pin::new(io).poll_write(cx, bytes); Plain, Tls)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(Io, self, io => Pin::new(io).poll_write_vectored(cx, slices); Plain, Tls)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Io, self, io => Pin::new(io).poll_flush(cx); Plain, Tls)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Io, self, io => Pin::new(io).poll_shutdown(cx); Plain, Tls)
    }
}
