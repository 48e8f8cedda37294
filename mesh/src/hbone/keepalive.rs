//! PING: finds out that a peer is gone although TCP has not noticed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::{PING_INTERVAL, PING_TIMEOUT};

/// Sends a PING every [`PING_INTERVAL`] on a connection that somebody else drives.
pub(super) struct Keepalive {
    ping: Option<PingPong>,
    /// The next PING, or the end of the wait for an answer.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Keepalive {
    pub(super) fn new(ping: Option<PingPong>) -> Self {
        Self {
            ping,
            timer: Box::pin(sleep(PING_INTERVAL)),
            waiting: false,
        }
    }

    /// Ready once the peer has not answered for [`PING_TIMEOUT`].
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else {
            return Poll::Pending;
        };
        loop {
            if self.waiting {
                match ping.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.waiting = false;
                        self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
                    }
                    // The connection itself reports why it broke.
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => return self.timer.as_mut().poll(cx),
                }
            } else {
                ready!(self.timer.as_mut().poll(cx));
                if ping.send_ping(Ping::opaque()).is_err() {
                    return Poll::Pending;
                }
                self.waiting = true;
                self.timer.as_mut().reset(Instant::now() + PING_TIMEOUT);
            }
        }
    }
}
