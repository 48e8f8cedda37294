//! A tunnelled stream as bytes to read and write, for what speaks a protocol over it: hyper in the
//! waypoint. What only forwards uses [`Stream`] itself, which hands bytes over without a copy.
//!
//! Reading copies out of the frame that came and gives the peer back the right to send as much;
//! writing copies into one frame, however many slices there are, and no more than the peer and the
//! send buffer have room for. Shutting down half-closes; dropping before both sides are done resets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Stream, StreamError};

/// Most bytes copied into one frame: several TLS records, so that framing costs little, and small
/// enough for the allocator to reuse.
const MOST_AT_ONCE: usize = 64 << 10;

/// A [`Stream`] that can be read and written.
pub struct Io {
    stream: Stream,
    /// Bytes that were looked at before, in no frame of the stream any more.
    replayed: Bytes,
    /// What has not been read of the frame that came last.
    frame: Bytes,
    ended: bool,
    finished: bool,
}

impl Io {
    /// The stream, read from its next byte on.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self::replaying(stream, Bytes::new())
    }

    /// The stream, of which `first` has been taken (and released) to find out what it carries: that
    /// is read again, first.
    #[must_use]
    pub fn replaying(stream: Stream, first: Bytes) -> Self {
        Self {
            stream,
            replayed: first,
            frame: Bytes::new(),
            ended: false,
            finished: false,
        }
    }

    /// The stream again, and what was received but not read. After an upgrade both go on as they
    /// are.
    #[must_use]
    pub fn into_parts(mut self) -> (Stream, Bytes) {
        self.stream.release(self.frame.len());
        let rest = match (self.replayed.is_empty(), self.frame.is_empty()) {
            (true, _) => self.frame,
            (false, true) => self.replayed,
            (false, false) => [self.replayed, self.frame].concat().into(),
        };
        (self.stream, rest)
    }

    /// Resets both ways at once.
    pub fn reset(self) {
        self.stream.reset();
    }

    /// Waits until there is something to read, or nothing ever will be.
    fn poll_available(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.replayed.is_empty() && self.frame.is_empty() && !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(bytes) => self.frame = bytes?,
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn available(&self) -> &[u8] {
        match self.replayed.is_empty() {
            true => &self.frame,
            false => &self.replayed,
        }
    }

    fn take(&mut self, count: usize) {
        if self.replayed.is_empty() {
            self.frame.advance(count);
            self.stream.release(count);
        } else {
            self.replayed.advance(count);
        }
    }

    /// How much of `wanted` may be written now.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = wanted.min(MOST_AT_ONCE);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.stream.poll_capacity(cx, wanted))?;
        Poll::Ready(Ok(room))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_available(cx))?;
        let count = self.available().len().min(buffer.remaining());
        buffer.put_slice(&self.available()[..count]);
        self.take(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Io {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_available(cx))?;
        Poll::Ready(Ok(this.available()))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.take(count);
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        self.stream.send(Bytes::copy_from_slice(&bytes[..room]))?;
        Poll::Ready(Ok(room))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let room = ready!(self.poll_room(cx, wanted))?;
        let mut frame = BytesMut::with_capacity(room);
        for slice in slices {
            let left = room - frame.len();
            frame.put_slice(&slice[..slice.len().min(left)]);
        }
        self.stream.send(frame.freeze())?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing waits here: the connection's own task writes what it was given.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.finished = true;
            self.stream.finish()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl From<Stream> for Io {
    fn from(stream: Stream) -> Self {
        Self::new(stream)
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::Closed => io::ErrorKind::ConnectionReset,
            StreamError::Broken(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Io({:?})", self.stream)
    }
}

#[cfg(test)]
mod tests;
