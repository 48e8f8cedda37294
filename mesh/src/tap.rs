//! A stream that somebody looks at while bytes pass: to count them, to keep some, or to remember why
//! it broke. What passes is not changed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who looks. Called between two steps of the connection, so it must be quick.
pub trait Tap {
    /// These bytes were read; none at the end.
    fn read(&self, _bytes: &[u8]) {}

    /// So many bytes were written.
    fn wrote(&self, _count: usize) {}

    /// Reading, writing or flushing failed.
    fn failed(&self, _error: &io::Error) {}
}

impl<L: Tap> Tap for Arc<L> {
    fn read(&self, bytes: &[u8]) {
        (**self).read(bytes);
    }

    fn wrote(&self, count: usize) {
        (**self).wrote(count);
    }

    fn failed(&self, error: &io::Error) {
        (**self).failed(error);
    }
}

/// A stream with a tap.
#[derive(Debug)]
pub struct Tapped<T, L> {
    inner: T,
    tap: L,
}

impl<T, L: Tap> Tapped<T, L> {
    /// Has `tap` look at what passes through `inner`.
    pub fn new(inner: T, tap: L) -> Self {
        Self { inner, tap }
    }

    fn wrote(&self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &done {
            Poll::Ready(Ok(count)) => self.tap.wrote(*count),
            Poll::Ready(Err(error)) => self.tap.failed(error),
            Poll::Pending => {}
        }
        done
    }
}

impl<T: AsyncRead + Unpin, L: Tap + Unpin> AsyncRead for Tapped<T, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buffer);
        match &done {
            Poll::Ready(Ok(())) => self.tap.read(&buffer.filled()[before..]),
            Poll::Ready(Err(error)) => self.tap.failed(error),
            Poll::Pending => {}
        }
        done
    }
}

impl<T: AsyncWrite + Unpin, L: Tap + Unpin> AsyncWrite for Tapped<T, L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        if let Poll::Ready(Err(error)) = &done {
            self.tap.failed(error);
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Tap for Heard {
        fn read(&self, bytes: &[u8]) {
            let text = String::from_utf8_lossy(bytes);
            self.0.lock().push(format!("read {text}"));
        }

        fn wrote(&self, count: usize) {
            self.0.lock().push(format!("wrote {count}"));
        }

        fn failed(&self, error: &io::Error) {
            self.0.lock().push(format!("failed: {error}"));
        }
    }

    #[tokio::test]
    async fn what_passes_is_told_and_not_changed() {
        let (stream, mut peer) = tokio::io::duplex(64);
        let heard = Arc::<Heard>::default();
        let mut tapped = Tapped::new(stream, heard.clone());
        peer.write_all(b"ask").await.unwrap();
        let mut bytes = [0; 8];
        assert_eq!(tapped.read(&mut bytes).await.unwrap(), 3);
        assert_eq!(&bytes[..3], b"ask");
        tapped.write_all(b"answer").await.unwrap();
        assert_eq!(peer.read(&mut bytes).await.unwrap(), 6);
        drop(peer);
        let gone = tapped.write_all(b"more").await.unwrap_err();
        let told = ["read ask", "wrote 6", &format!("failed: {gone}")];
        assert_eq!(*heard.0.lock(), told);
    }
}
