//! One tunnelled connection: bytes both ways with flow control, half-close and reset.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::hops::Counted;
use super::members::Lease;

/// A CONNECT that was answered with 200. Dropping it before both sides have finished resets it.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// The place in its pooled connection, on the source's side.
    _lease: Option<Lease>,
    /// Its place in what its next hop carries, on the source's side.
    _counted: Option<Counted>,
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
            _lease: lease,
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
                Some(data) => return Poll::Ready(Some(data.map_err(StreamError::from))),
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
        self.send.send_data(bytes, false).map_err(StreamError::from)
    }

    /// Half-closes: nothing more will be sent.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send
            .send_data(Bytes::new(), true)
            .map_err(StreamError::from)
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
