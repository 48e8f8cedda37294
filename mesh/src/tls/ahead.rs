//! A socket that is read in large pieces while much comes. rustls asks for 4 KiB at a time, which
//! would be four system calls a record; here one brings several records, and what was not asked for
//! yet waits. A connection that has nothing to read holds no buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Most bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Bytes that are read ahead.
#[derive(Debug)]
pub struct Ahead<T> {
    inner: T,
    /// Read, and not asked for yet.
    waiting: BytesMut,
    /// The last read brought as much as was asked for: there may be more.
    busy: bool,
}

impl<T> Ahead<T> {
    /// Nothing has been read yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            waiting: BytesMut::new(),
            busy: false,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Ahead<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buffer.remaining();
        if this.waiting.is_empty() && (!this.busy || room >= PIECE) {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            // Small messages come whole, and need no buffer of ours.
            this.busy = room > 0 && buffer.filled().len() - before == room;
            return Poll::Ready(Ok(()));
        }
        if this.waiting.is_empty() {
            this.waiting.reserve(PIECE);
            let read = poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.waiting);
            if this.waiting.is_empty() {
                this.waiting = BytesMut::new();
                this.busy = false;
            }
            ready!(read)?;
        }
        let count = this.waiting.len().min(room);
        buffer.put_slice(&this.waiting[..count]);
        this.waiting.advance(count);
        Poll::Ready(Ok(()))
    }
}

crate::write_through!(Ahead);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts reads.
    struct Counted<T>(T, usize);

    impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = Pin::new(&mut self.0).poll_read(cx, buffer);
            self.1 += usize::from(read.is_ready());
            read
        }
    }

    #[tokio::test]
    async fn much_comes_in_few_reads_and_in_order_and_leaves_no_buffer() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        far.write_all(&sent).await.unwrap();
        let mut ahead = Ahead::new(Counted(near, 0));
        let mut got = vec![0; sent.len()];
        for piece in got.chunks_mut(4096) {
            ahead.read_exact(piece).await.unwrap();
        }
        assert_eq!(got, sent);
        assert!(ahead.inner.1 <= 7, "{} reads", ahead.inner.1);
        let mut more = [0; 4096];
        let none = futures_util::poll!(std::pin::pin!(ahead.read(&mut more)));
        assert!(none.is_pending());
        assert_eq!(ahead.waiting.capacity(), 0);
        far.write_all(b"last").await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        ahead.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
    }
}
