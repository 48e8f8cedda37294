//! One tunnelled connection: bytes both ways with flow control, half-close and reset.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::sync::oneshot;

use super::hops::Counted;
use super::members::Lease;

/// A CONNECT that was answered with 200. Dropping it before both sides have finished resets it.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Comes when the last that was sent has been written to the connection, or never will be.
    left: Option<oneshot::Receiver<()>>,
    /// The place in its pooled connection, on the source's side.
    lease: Option<Lease>,
    /// Its place in what its next hop carries, on the source's side.
    _counted: Option<Counted>,
}

/// No bytes, whose end is heard of.
struct Mark(
    #[expect(dead_code, reason = "it is dropped, which is what the other end hears")]
    oneshot::Sender<()>,
);

impl AsRef<[u8]> for Mark {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

/// Why a stream ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream.
    #[error("the peer reset the stream ({0})")]
    Reset(String),
    /// The peer has reset the stream without an error (RFC 9113, section 8.1): it takes no more.
    #[error("the peer has closed the stream and takes no more")]
    Closed,
    /// The connection that carried the stream broke.
    #[error("the tunnel broke: {0}")]
    Broken(String),
}

impl Stream {
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream, lease: Option<Lease>) -> Self {
        Self {
            send,
            receive,
            left: None,
            lease,
            _counted: None,
        }
    }

    pub(super) fn counted(self, counted: Counted) -> Self {
        Self {
            _counted: Some(counted),
            ..self
        }
    }

    /// The next bytes, or `None` after the peer's half-close. The peer may send as much again only
    /// once they have been [released](Self::release).
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        loop {
            match ready!(self.receive.poll_data(cx)) {
                // A frame without data that ends nothing carries no news.
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Err(error)) => {
                    let error = StreamError::from(error);
                    // A server resets so only after all that it sent, its end too (RFC 9113, section
                    // 8.1), which `h2` does not tell any more.
                    let is_end = error == StreamError::Closed && self.lease.is_some();
                    return Poll::Ready((!is_end).then_some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Gives the peer back the right to send `count` bytes that have been passed on.
    pub fn release(&mut self, count: usize) {
        // It fails only for more than was received, or on a stream that is gone.
        let _ = self.receive.flow_control().release_capacity(count);
    }

    /// How many bytes may be sent now, at most `wanted`; ready once it is more than none.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, StreamError>> {
        self.send.reserve_capacity(wanted);
        let capacity = self.send.capacity();
        if capacity > 0 {
            return Poll::Ready(Ok(capacity.min(wanted)));
        }
        loop {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(capacity)) => return Poll::Ready(Ok(capacity.min(wanted))),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(self.closed(cx))),
            }
        }
    }

    /// Sends bytes for which there is capacity. Empty ones are not sent: peers limit frames
    /// without data.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = self.send.send_data(bytes, false);
        sent.map_err(|error| self.refusal(error))
    }

    /// Half-closes: nothing more will be sent.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.mark(true).map_err(|error| self.refusal(error))
    }

    /// Ready when all that was sent has been written to the connection, or never will be. `h2` throws
    /// away what a stream still has to send when it is reset. Nothing may be sent after this.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left.is_none() && self.mark(false).is_err() {
            return Poll::Ready(());
        }
        if let Some(left) = &mut self.left {
            // Its end is an error for who waits for a value.
            let _ = ready!(Pin::new(left).poll(cx));
            self.left = None;
        }
        Poll::Ready(())
    }

    /// Sends a frame without data that is missed once it has been written: frames keep their order.
    fn mark(&mut self, end: bool) -> Result<(), h2::Error> {
        let (mark, left) = oneshot::channel();
        self.send.send_data(Bytes::from_owner(Mark(mark)), end)?;
        self.left = Some(left);
        Ok(())
    }

    /// Ready once the peer has reset the stream, even while nothing is read from it.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match ready!(self.send.poll_reset(cx)) {
            Ok(Reason::NO_ERROR) => Poll::Ready(StreamError::Closed),
            Ok(reason) => Poll::Ready(StreamError::Reset(reason.description().to_owned())),
            Err(error) => Poll::Ready(error.into()),
        }
    }

    /// Ends both ways at once: the connection that this stream stands for was reset.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// The next bytes, released at once: for readers that hold nothing.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let data = std::future::poll_fn(|cx| self.poll_data(cx))
            .await
            .transpose()?;
        if let Some(bytes) = &data {
            self.release(bytes.len());
        }
        Ok(data)
    }

    /// Sends all of `bytes`, as fast as the peer allows.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let wanted = bytes.len();
            let count = std::future::poll_fn(|cx| self.poll_capacity(cx, wanted)).await?;
            self.send(bytes.split_to(count))?;
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>) -> StreamError {
        match self.poll_reset(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => StreamError::Broken("the stream is closed".to_owned()),
        }
    }

    /// Why something could not be sent: for `h2` a stream that the peer has reset is only inactive.
    fn refusal(&mut self, error: h2::Error) -> StreamError {
        match self.poll_reset(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reset) => reset,
            Poll::Pending => error.into(),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.send.stream_id())
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(Reason::NO_ERROR) if error.is_reset() => Self::Closed,
            Some(reason) if error.is_reset() => Self::Reset(reason.description().to_owned()),
            _ => Self::Broken(error.to_string()),
        }
    }
}
