//! The bytes of an HTTP/1 connection while hyper has them. hyper drops them with its connection, but a
//! client whose head doesn't become whole is still to be answered: then they come back.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mesh::cork::Corked;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listen::io::Io;

/// Bytes that may come back.
#[derive(Debug)]
pub(super) struct Lent {
    /// Nothing only once they are gone.
    io: Option<Corked<Io>>,
    back: Arc<Back>,
}

/// Where they come back to.
#[derive(Debug, Default)]
pub(super) struct Back(Mutex<Slot>);

#[derive(Debug, Default)]
enum Slot {
    /// They end when they are dropped.
    #[default]
    Unwanted,
    Wanted,
    Here(Corked<Io>),
}

impl Back {
    /// They are wanted when they are dropped.
    pub(super) fn want(&self) {
        *self.0.lock() = Slot::Wanted;
    }

    /// What came back.
    pub(super) fn take(&self) -> Option<Corked<Io>> {
        match std::mem::take(&mut *self.0.lock()) {
            Slot::Here(io) => Some(io),
            Slot::Unwanted | Slot::Wanted => None,
        }
    }
}

impl Lent {
    pub(super) fn new(io: Corked<Io>, back: Arc<Back>) -> Self {
        let io = Some(io);
        Self { io, back }
    }

    fn with<R>(
        &mut self,
        poll: impl FnOnce(Pin<&mut Corked<Io>>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match &mut self.io {
            Some(io) => poll(Pin::new(io)),
            None => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut slot = self.back.0.lock();
        if matches!(*slot, Slot::Wanted)
            && let Some(io) = self.io.take()
        {
            *slot = Slot::Here(io);
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }
}
