//! A connection whose server takes no more is read to its end all the same. A server that answers "too
//! large" and closes has not read everything, so that the kernel resets the connection: who goes on
//! writing learns of that before having read the answer, and hyper gives up at the first failed write.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reset is told to its reader, after what came before it.
#[derive(Debug)]
pub(super) struct Heard<T> {
    inner: T,
    /// A write found it reset: what is written now goes nowhere.
    refused: bool,
}

impl<T> Heard<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            refused: false,
        }
    }

    /// `done`, or `instead` of a reset.
    fn heard<R>(&mut self, done: io::Result<R>, instead: R) -> io::Result<R> {
        match done {
            Err(error) if is_reset(&error) => {
                self.refused = true;
                Ok(instead)
            }
            done => done,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        // The kernel tells of a reset once, and the write had it: what looks like the end is none, and
        // a body that ends with its connection might lack a part.
        if self.refused && buffer.filled().len() == before && buffer.remaining() > 0 {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refused {
            return Poll::Ready(Ok(bytes.len()));
        }
        let done = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(self.heard(done, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || slices.iter().map(|slice| slice.len()).sum();
        if self.refused {
            return Poll::Ready(Ok(all()));
        }
        let done = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices));
        Poll::Ready(self.heard(done, all()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused {
            return Poll::Ready(Ok(()));
        }
        let done = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(self.heard(done, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
