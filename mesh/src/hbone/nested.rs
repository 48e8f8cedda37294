//! A tunnel in a tunnel ("double HBONE"): the way to a destination in another network. The outer one
//! ends at that network's gateway, which sees who asks for which service and passes bytes on; the
//! inner one, with TLS of its own, ends at the destination or its waypoint.
//!
//! The outer connection is shared like any other. The inner one is not: the gateway chooses a
//! destination for each stream of the outer one, and a shared inner connection would stay with the
//! destination that was chosen first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy, sink};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{ConnectError, Io, Pool, Stream, Target};
use crate::policy::Permit;

/// How long the gateway may take to end its side of an outer stream once ours has ended.
const FAREWELL: Duration = Duration::from_secs(10);

impl Pool {
    /// Opens a stream to `inner` inside one to `outer`, a gateway, whose connection is shared; see
    /// [`Pool::connect`]. `inner.next_hop` is the gateway too: where it leads, only the gateway knows.
    ///
    /// # Errors
    /// As [`Pool::connect`] for the outer tunnel; [`ConnectError::Beyond`] for the inner one.
    pub async fn connect_beyond(
        &self,
        permit: Permit,
        outer: Target,
        inner: Target,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Stream, ConnectError> {
        let carrier = Carrier::new(self.connect(permit, outer, dial).await?);
        let opened = self.open_alone(&inner, carrier).await;
        opened.map_err(|cause| ConnectError::Beyond {
            gateway: inner.next_hop,
            authority: inner.authority,
            cause: Box::new(cause),
        })
    }
}

/// The outer stream under an inner connection. What was written to it arrives even if the connection
/// is dropped at once: a stream that is only half closed would be reset then, and a gateway that is
/// told of a reset may throw away what it has not passed on.
struct Carrier {
    io: Option<Io>,
    shut_down: bool,
}

impl Carrier {
    fn new(stream: Stream) -> Self {
        Self {
            io: Some(Io::new(stream)),
            shut_down: false,
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut Io>> {
        let gone = || io::ErrorKind::NotConnected.into();
        self.io.as_mut().map(Pin::new).ok_or_else(gone)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let (true, Some(mut io), Ok(runtime)) =
            (self.shut_down, self.io.take(), Handle::try_current())
        {
            runtime.spawn(async move {
                // However it ends, nobody is left to hear of it.
                let _ = timeout(FAREWELL, copy(&mut io, &mut sink())).await;
            });
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down = true;
        self.io()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
