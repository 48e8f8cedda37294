//! HBONE: TCP connections as HTTP/2 `CONNECT` streams inside mutual TLS. [`accept`] is the
//! destination's side, [`Pool`] the source's. What speaks HTTP/2 is the `h2` crate, and nothing
//! outside this room knows it, so that a CONNECT-only path could take its place.
//!
//! The server answers 200 only when its caller accepts a request, 400 by itself to what is no
//! CONNECT to a `host:port`, and whatever its caller refuses with otherwise. What can't even be
//! parsed as a request is reset by `h2`.

mod authority;
mod client;
mod hops;
mod io;
mod keepalive;
mod limits;
mod members;
mod nested;
mod pool;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod test_rig;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

pub use authority::{AuthorityError, Destination};
pub use io::Io;
pub use limits::Limits;
pub use pool::{ConnectError, Pool, Target};
pub use server::{AcceptError, Connection, Request, accept, accept_within};
pub use stream::{Stream, StreamError};

/// Largest frame that we accept.
pub const MAX_FRAME: u32 = 1 << 20;
/// Largest list of headers that we accept, in bytes.
pub const MAX_HEADERS: u32 = 64 << 10;
/// What tiny DATA frames that nobody has taken yet may cost on one connection, counted as `h2`
/// does, 256 bytes less their payload each; beyond it the connection ends. One turn of its task can
/// bring 67,000 of them (128 reads of 16 KiB, 31 bytes each with their TLS record), and
/// [`copy`](crate::copy) takes them at its own next turn: this is four times as many. `h2`'s
/// default, 8 MiB, is less than one turn brings, so that a writer of single bytes could end the
/// streams of everybody else.
pub const TINY_FRAMES: usize = 64 << 20;
/// A connection without streams is kept for this long.
pub const IDLE: Duration = Duration::from_secs(300);
/// Longest TLS handshake, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the TCP connection to the next hop.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a CONNECT: the peer connects to its workload meanwhile.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A PING is sent this often.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that doesn't answer a PING within this time is gone.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
