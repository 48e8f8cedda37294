//! What is measured, and the orders that the load's process gets for it, as JSON on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Measure {
    /// HTTP/1.1 keep-alive, 16 connections, answers of 1 KiB, the filters that istiod sends.
    Keep16,
    /// The same with 64 connections.
    Keep64,
    /// The same with 1,000 requests a second on 16 connections.
    Paced,
    /// 16 connections, with no filter but the router.
    Bare16,
    /// 64 connections, with no filter but the router.
    Bare64,
    /// 16 connections, with the filters and an access log.
    Logged16,
    /// gRPC: a message of 128 bytes each way, 32 calls at a time on 4 connections.
    Unary,
    /// gRPC: messages of 1 KiB to and fro on 32 streams of 4 connections.
    Streaming,
    /// A body of 1 MiB each way on 4 connections.
    Bodies,
    /// As [`Self::Keep16`], through HBONE in and out: 16 tunnels in 4 connections.
    Tunnel16,
    /// A body of 1 MiB each way through HBONE, 4 tunnels.
    TunnelBodies,
}

/// What a listener is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Filters,
    Bare,
    Logged,
    Grpc,
    Tunnel,
}

impl Measure {
    /// In the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Keep16,
        Self::Keep64,
        Self::Paced,
        Self::Bare16,
        Self::Bare64,
        Self::Logged16,
        Self::Unary,
        Self::Streaming,
        Self::Bodies,
        Self::Tunnel16,
        Self::TunnelBodies,
    ];

    pub(crate) fn listener(self) -> Listener {
        match self {
            Self::Keep16 | Self::Keep64 | Self::Paced | Self::Bodies => Listener::Filters,
            Self::Bare16 | Self::Bare64 => Listener::Bare,
            Self::Logged16 => Listener::Logged,
            Self::Unary | Self::Streaming => Listener::Grpc,
            Self::Tunnel16 | Self::TunnelBodies => Listener::Tunnel,
        }
    }

    pub(crate) fn order(self, to: SocketAddr, tunnel: Tunnel, time: Duration) -> Order {
        let keep = |connections| What::Keep {
            connections,
            rate: None,
            body: 0,
            answer: 1024,
        };
        let what = match self {
            Self::Keep16 | Self::Bare16 | Self::Logged16 | Self::Tunnel16 => keep(16),
            Self::Keep64 | Self::Bare64 => keep(64),
            Self::Paced => What::Keep {
                connections: 16,
                rate: Some(1000),
                body: 0,
                answer: 1024,
            },
            Self::Bodies | Self::TunnelBodies => What::Keep {
                connections: 4,
                rate: None,
                body: 1 << 20,
                answer: 1 << 20,
            },
            Self::Unary => What::Grpc {
                connections: 4,
                streams: 8,
                message: 128,
                stays: false,
            },
            Self::Streaming => What::Grpc {
                connections: 4,
                streams: 8,
                message: 1024,
                stays: true,
            },
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let tunnel = (self.listener() == Listener::Tunnel).then_some(tunnel);
        Order {
            to,
            tunnel,
            millis,
            what,
        }
    }
}

/// What the load's process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The proxy, or the server itself.
    pub to: SocketAddr,
    /// Through a tunnel that ends there.
    pub tunnel: Option<Tunnel>,
    /// How long.
    pub millis: u64,
    /// What.
    pub what: What,
}

/// An HBONE tunnel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tunnel {
    /// The folder of the certificates.
    pub identities: PathBuf,
    /// Where the tunnel leads.
    pub authority: String,
}

/// A kind of load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// HTTP/1.1 requests on connections that stay open.
    Keep {
        /// How many connections.
        connections: usize,
        /// Requests a second of all together; as many as there can be if not given.
        rate: Option<u64>,
        /// Bytes of a request's body.
        body: usize,
        /// Bytes of an answer's body.
        answer: usize,
    },
    /// gRPC over HTTP/2.
    Grpc {
        /// How many connections.
        connections: usize,
        /// How many calls at a time on each.
        streams: usize,
        /// Bytes of a message.
        message: usize,
        /// Whether a call stays for many messages.
        stays: bool,
    },
}

/// What the load's process tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Result {
    /// Requests, or messages, that were answered.
    pub requests: u64,
    /// Those that were not.
    pub failures: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
}
