//! The encrypted bytes under HTTP/2. Remembers why TLS broke, because `h2` keeps only the text of
//! an error, and a server's refusal of our certificate first shows when we read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::cork::{Corked, Outlet, cork};
use crate::tls::{Ahead, TlsRefusal};

/// Why TLS broke, once it has.
pub(super) type Broken = Arc<OnceLock<TlsRefusal>>;

pub(super) struct Wire {
    tls: TlsStream<Ahead<TcpStream>>,
    broken: Broken,
}

impl Wire {
    /// The wire behind a cork, what lets its writes out, and why it broke.
    pub(super) fn corked(
        tls: impl Into<TlsStream<Ahead<TcpStream>>>,
    ) -> (Corked<Self>, Outlet<Self>, Broken) {
        let broken = Broken::default();
        let (wire, outlet) = cork(Self {
            tls: tls.into(),
            broken: broken.clone(),
        });
        (wire, outlet, broken)
    }

    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done {
            let _ = self.broken.set(TlsRefusal::of(error));
        }
        done
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tls).poll_read(cx, buffer);
        self.note(done)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tls).poll_write(cx, bytes);
        self.note(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tls).poll_write_vectored(cx, slices);
        self.note(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tls).poll_flush(cx);
        self.note(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
