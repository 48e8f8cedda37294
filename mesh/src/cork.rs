//! The small writes of one turn, written at once. `h2` writes and flushes every DATA frame of 256
//! bytes or more by itself, a system call (and within TLS a record) for each message of each stream.
//! Behind a cork they wait until whoever drives the connection has had its turn, or until all
//! connections of the thread have had theirs (`round`). What is large goes out at once, with what
//! waits in front of it. Knows nothing of HTTP.

mod round;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use round::{Left, in_rounds, rounds};

/// Most bytes that wait: a TLS record.
const MOST: usize = 16 << 10;
/// What is kept for the next turn of a connection whose bytes are all written.
const KEPT: usize = 4 << 10;
/// Slices that go out in one call, with what waits as the first.
const SLICES: usize = 8;

/// The bytes of a connection whose small writes wait. A flush is put off like the writes before it.
#[derive(Debug)]
pub struct Corked<T>(Arc<Mutex<State<T>>>);

/// Lets out what waits behind a cork.
#[derive(Debug)]
pub struct Outlet<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    io: T,
    waiting: BytesMut,
    /// Something was written that has not been flushed.
    unflushed: bool,
    /// Who drives the connection: to be woken when the bytes can go on.
    driver: Waker,
    /// The driver waits for that: it will be the one who goes on.
    blocked: bool,
    /// How letting out failed; told at the next write.
    broken: Option<io::Error>,
    lets_out: LetsOut,
}

/// Who lets out what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetsOut {
    /// An [`Outlet`].
    Outlet,
    /// The next round of the thread; `told` once it knows that something waits.
    Round { told: bool, left: Left },
    /// Nobody: nothing waits.
    Nobody,
}

/// Puts a cork on a connection. Whoever drives it calls [`Outlet::drive`] or [`Outlet::let_out`]; where
/// the thread has rounds, these let out what waits.
pub fn cork<T>(io: T) -> (Corked<T>, Outlet<T>) {
    let corked = Corked::new(io, round::next(Left::Sent).unwrap_or(LetsOut::Outlet));
    let outlet = Outlet(corked.0.clone());
    (corked, outlet)
}

impl<T> Corked<T> {
    fn new(io: T, lets_out: LetsOut) -> Self {
        Self(Arc::new(Mutex::new(State {
            io,
            waiting: BytesMut::new(),
            unflushed: false,
            driver: Waker::noop().clone(),
            blocked: false,
            broken: None,
            lets_out,
        })))
    }
}

impl<T: AsyncWrite + Unpin> Outlet<T> {
    /// The future, which drives the connection, with everything let out after each of its turns.
    pub async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            self.let_out();
            polled
        })
        .await
    }

    /// Lets out what waits, as far as it can go now. The driver is woken when the rest can.
    pub fn let_out(&self) {
        let state = &mut *self.0.lock();
        if state.lets_out != LetsOut::Outlet {
            return;
        }
        let driver = state.driver.clone();
        state.let_out(&mut Context::from_waker(&driver));
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    /// Lets out what can go now; `cx` is woken when the rest can.
    fn let_out(&mut self, cx: &mut Context<'_>) {
        if !self.unflushed {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_out(cx) {
            self.unflushed = false;
            self.waiting = BytesMut::new();
            self.broken = Some(error);
            self.driver.wake_by_ref();
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(written);
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(cx)?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        self.unflushed = true;
        loop {
            if self.waiting.len() + total <= MOST {
                for slice in slices {
                    self.waiting.extend_from_slice(slice);
                }
                return Poll::Ready(Ok(total));
            }
            let mut all = [IoSlice::new(&[]); SLICES];
            all[0] = IoSlice::new(&self.waiting);
            let count = slices.len().min(SLICES - 1);
            all[1..=count].copy_from_slice(&slices[..count]);
            let first = usize::from(self.waiting.is_empty());
            let all = &all[first..=count];
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let before = self.waiting.len().min(written);
            if written > before {
                self.consume(before);
                return Poll::Ready(Ok(written - before));
            }
            self.consume(written);
        }
    }

    /// So much of what waits has gone out.
    fn consume(&mut self, written: usize) {
        self.waiting.advance(written);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = BytesMut::new();
        }
    }

    /// Whoever calls drives the connection.
    fn note(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if !self.driver.will_wake(cx.waker()) {
            self.driver = cx.waker().clone();
        }
        self.broken.take().map_or(Ok(()), Err)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> Corked<T> {
    fn write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        match state.lets_out {
            LetsOut::Outlet | LetsOut::Round { told: true, .. } => {}
            LetsOut::Nobody => return Pin::new(&mut state.io).poll_write_vectored(cx, slices),
            LetsOut::Round { .. } if state.waiting.capacity() > 0 => {}
            LetsOut::Round { .. } => state.waiting = round::buffer(),
        }
        let done = state.poll_write(cx, slices);
        state.blocked = done.is_pending();
        if state.unflushed
            && let LetsOut::Round { told, .. } = &mut state.lets_out
            && !std::mem::replace(told, true)
        {
            drop(state);
            round::wait(self.0.clone());
        }
        done
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> AsyncWrite for Corked<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Put off until the driver's turn, or the thread's round, is over.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.note(cx)?;
        match state.lets_out {
            LetsOut::Nobody => Pin::new(&mut state.io).poll_flush(cx),
            LetsOut::Outlet | LetsOut::Round { .. } => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.lock();
        state.note(cx)?;
        let out = state.poll_out(cx);
        state.blocked = out.is_pending();
        ready!(out)?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

impl<T> Drop for Corked<T> {
    fn drop(&mut self) {
        let state = &mut *self.0.lock();
        if let LetsOut::Round { left, .. } = state.lets_out
            && left == Left::Forgotten
        {
            state.unflushed = false;
            state.waiting = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests;
