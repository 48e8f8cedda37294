//! Opening the way out: a stream in a tunnel to the next hop, or a plain connection, both from
//! inside the pod's network namespace. Says why it failed in words that name the likely cause.

use std::io;
use std::net::SocketAddr;

use mesh::address::ClientAddr;
use mesh::drain::Watch;
use mesh::hbone::{ConnectError, Stream, Target};
use mesh::policy::Permit;
use mesh::tls::TlsRefusal;
use mesh::workload::{Service, Workload};
use mesh::world::Route;
use tokio::net::TcpStream;

use super::Parts;
use crate::capture::From;
use crate::telemetry::connection::Outcome;
use crate::telemetry::labels::Flag;

/// An open way out.
pub(super) enum Upstream {
    /// A stream in a tunnel.
    Tunnel(Stream),
    /// A plain connection.
    Plain(TcpStream),
}

/// Why the other end does not take a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The tunnel, or the stream in it, did not come to be.
    #[error("{hint}{source}")]
    Tunnel {
        /// The likely cause where the error alone does not tell it.
        hint: &'static str,
        /// The reason, where TLS is to blame.
        refusal: Option<TlsRefusal>,
        /// What went wrong.
        source: ConnectError,
    },
    /// The destination does not take a plain connection.
    #[error("cannot connect to {to}: {source}")]
    Plain {
        /// Where it was to go.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}
