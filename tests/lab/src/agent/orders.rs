//! What the lab can ask of a pod's workload, and what it answers. Serialised as JSON lines.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// An order or an answer with the number that joins the two.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// The same in the order and its answer.
    pub number: u64,
    /// The order or answer itself.
    pub body: T,
}

/// What a workload can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Listen and answer; see [`super::serve`] for what a client can ask.
    Serve {
        /// Where; port 0 lets the kernel choose.
        at: SocketAddr,
        /// The name in its answers.
        name: String,
    },
    /// How the served connections with this tag ended, in order.
    Ended {
        /// The tag that their client sent.
        tag: String,
    },
    /// One request on a new connection.
    Get(Get),
    /// The same request on `count` connections that are all open at the same time.
    Many {
        /// The request.
        get: Get,
        /// How many connections.
        count: usize,
    },
    /// Bytes with a known pattern.
    Transfer(Transfer),
    /// Open a connection and keep it.
    Open {
        /// Where to.
        to: SocketAddr,
        /// The tag that the server records it by.
        tag: String,
    },
    /// Open a connection, ask for this many bytes, and read none of them.
    OpenWithoutReading {
        /// Where to.
        to: SocketAddr,
        /// How many bytes.
        bytes: u64,
    },
    /// Reset the connections with this tag that are served now.
    ResetServed {
        /// The tag that their client sent.
        tag: String,
    },
    /// Send a text on an open connection and read it back.
    Say {
        /// Which connection.
        connection: u64,
        /// The text.
        text: String,
    },
    /// Read an open connection until it ends.
    Watch {
        /// Which connection.
        connection: u64,
        /// The patience, in milliseconds.
        millis: u64,
    },
    /// Close an open connection, by FIN or by reset.
    Close {
        /// Which connection.
        connection: u64,
        /// By reset.
        reset: bool,
    },
    /// Repeat a request on new connections until told to stop.
    Load {
        /// The request.
        get: Get,
        /// How many at a time.
        workers: usize,
    },
    /// Stop a load and count.
    Unload {
        /// Which load.
        load: u64,
    },
    /// Keep-alive requests: latency and rate.
    Latency(Plan),
    /// A new connection for each request.
    Rate(Plan),
    /// Bulk bytes for a time.
    Stream(Plan),
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Where to.
    pub to: SocketAddr,
    /// The socket to use.
    pub socket: Socket,
    /// The address to bind first, such as one that is not the pod's own.
    pub from: Option<IpAddr>,
    /// The method: `GET`, or `POST` without a body.
    pub method: String,
    /// A text in a header of the request, to be looked for on the wire.
    pub marker: String,
    /// The patience for connect and for the answer, in milliseconds.
    pub millis: u64,
}

/// What kind of socket connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Socket {
    /// Of the destination's family.
    #[default]
    Plain,
    /// An IPv6 socket, with an IPv4 destination written as `::ffff:a.b.c.d`.
    Mapped,
}

/// Bytes to move.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Where to.
    pub to: SocketAddr,
    /// Which way.
    pub direction: Direction,
    /// How many bytes (each way).
    pub bytes: u64,
    /// The tag that the server records it by.
    pub tag: String,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To the server, which answers after the client's FIN what it got: half-close one way.
    Up,
    /// From the server.
    Down,
    /// To the server and back at the same time.
    Both,
    /// The server ends its direction first, then the client sends: half-close the other way.
    AfterServersEnd,
}

/// What to measure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where to.
    pub to: SocketAddr,
    /// How many connections at once.
    pub connections: usize,
    /// For how long, in milliseconds.
    pub millis: u64,
    /// The size of an answer in bytes (latency and rate).
    pub answer: usize,
}

/// How an attempt to talk ended, from the client's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The server's answer.
    Answered(String),
    /// `ECONNREFUSED`.
    Refused,
    /// `ECONNRESET` or `EPIPE`, before an answer.
    Reset,
    /// The connection ended without an answer.
    Closed,
    /// Nothing for as long as the caller wanted to wait.
    TimedOut,
    /// Anything else, such as no route.
    Failed(String),
}

impl Verdict {
    /// The answer, when there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        match self {
            Self::Answered(text) => Some(text),
            _ => None,
        }
    }

    /// Refused or reset: a clear no, at once.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused | Self::Reset)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(text) => write!(out, "answered {text:?}"),
            Self::Refused => out.write_str("refused"),
            Self::Reset => out.write_str("reset"),
            Self::Closed => out.write_str("closed without an answer"),
            Self::TimedOut => out.write_str("timed out"),
            Self::Failed(why) => write!(out, "failed: {why}"),
        }
    }
}

/// How many attempts ended in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Answered.
    pub answered: u64,
    /// Refused.
    pub refused: u64,
    /// Reset.
    pub reset: u64,
    /// Closed without an answer.
    pub closed: u64,
    /// Timed out.
    pub timed_out: u64,
    /// Anything else, with one example.
    pub failed: u64,
    /// The first other failure.
    pub example: Option<String>,
}

impl Tally {
    /// Counts one verdict.
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Answered(_) => self.answered += 1,
            Verdict::Refused => self.refused += 1,
            Verdict::Reset => self.reset += 1,
            Verdict::Closed => self.closed += 1,
            Verdict::TimedOut => self.timed_out += 1,
            Verdict::Failed(why) => {
                self.failed += 1;
                self.example.get_or_insert_with(|| why.clone());
            }
        }
    }
}

/// How a connection ended, from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// FIN.
    Finished,
    /// Reset.
    Reset,
    /// Not yet, after the patience given.
    Open,
}

/// What a server saw of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The client's address.
    pub peer: SocketAddr,
    /// How the client's direction ended.
    pub end: End,
    /// Bytes of the pattern that came.
    pub bytes: u64,
    /// Whether each of them was right.
    pub intact: bool,
}

/// A finished transfer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transferred {
    /// Bytes that arrived at the far end (of the way back with `Both`).
    pub bytes: u64,
    /// Whether each of them was right.
    pub intact: bool,
}

/// What latency and rate measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// The time it took, in seconds.
    pub seconds: f64,
    /// Median, in microseconds.
    pub p50: f64,
    /// 99th percentile, in microseconds.
    pub p99: f64,
}

/// What a bulk measurement moved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streamed {
    /// Bytes that the server confirmed.
    pub bytes: u64,
    /// The time from first byte to confirmation, in seconds.
    pub seconds: f64,
}

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// A server stands.
    Serving {
        /// Where.
        at: SocketAddr,
    },
    /// The verdict of one request.
    Verdict(Verdict),
    /// Of many.
    Tally(Tally),
    /// A finished transfer.
    Transferred(Transferred),
    /// What the server saw.
    Ended(Vec<Seen>),
    /// A connection or a load stands.
    Opened(u64),
    /// This many connections were reset.
    Resetting(usize),
    /// How a connection ended.
    Over(End),
    /// Measured latency.
    Latency(Latency),
    /// Measured throughput.
    Streamed(Streamed),
    /// The order could not be carried out.
    Failed(String),
}
