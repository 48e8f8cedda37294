//! Opening the way out: a stream in a tunnel to the next hop (inside which another tunnel leads into
//! another network), or a plain connection, all from inside the pod's network namespace. Says why it failed in words that name the likely cause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh::address::ClientAddr;
use mesh::hbone::{ConnectError, Stream, Target};
use mesh::policy::Permit;
use mesh::tls::TlsRefusal;
use mesh::workload::{Service, Workload};
use mesh::world::Route;
use tokio::net::TcpStream;

use super::Parts;
use crate::capture::From as SeenFrom;
use crate::telemetry::labels::Flag;

/// The header that tells the far end of a tunnel within a tunnel which network the call comes from.
const NETWORK: &str = "x-forwarded-network";

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
    #[error("{0}{hint}", hint = hint(.0))]
    Tunnel(ConnectError),
    /// The destination does not take a plain connection.
    #[error("cannot connect to {to}: {source}")]
    Plain {
        /// Where it was to go.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The next hop has not answered, and somebody else may.
    pub(super) fn slow(next_hop: SocketAddr) -> Self {
        let what = "answer";
        Self::Tunnel(ConnectError::TimedOut { next_hop, what })
    }

    /// Whether the next hop has only taken too long.
    pub(super) fn is_slowness(&self) -> bool {
        matches!(self, Self::Tunnel(error) if matches!(innermost(error), ConnectError::TimedOut { .. }))
    }

    /// Whether it is the next hop's own trouble, and another pod of the same waypoint may do better:
    /// not what the destination's policy decided, and nothing of our own.
    pub(super) fn is_of_the_hop(&self) -> bool {
        match self {
            Self::Plain { .. } => false,
            Self::Tunnel(error) => match innermost(error) {
                ConnectError::Dial { .. }
                | ConnectError::Tls { .. }
                | ConnectError::Broken { .. }
                | ConnectError::TimedOut { .. } => true,
                ConnectError::Refused(status) => *status == StatusCode::SERVICE_UNAVAILABLE,
                ConnectError::Certificate(_)
                | ConnectError::Target { .. }
                | ConnectError::Beyond { .. } => false,
            },
        }
    }

    /// The failure in Istio's words.
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Plain { .. } => Flag::Connect,
            Self::Tunnel(error) => match innermost(error) {
                ConnectError::Certificate(_) => Flag::Identity,
                ConnectError::Dial { cause, .. } if !refused(cause) => Flag::NetworkPolicy,
                ConnectError::Dial { .. } => Flag::Connect,
                ConnectError::Tls { .. } => Flag::Tls,
                ConnectError::Refused(StatusCode::UNAUTHORIZED) => Flag::Denied,
                ConnectError::Refused(_) => Flag::Connect,
                ConnectError::Broken { .. }
                | ConnectError::TimedOut { .. }
                | ConnectError::Target { .. }
                | ConnectError::Beyond { .. } => Flag::Handshake,
            },
        }
    }
}

/// The trouble itself, wherever it was met: here or beyond a gateway.
fn innermost(error: &ConnectError) -> &ConnectError {
    match error {
        ConnectError::Beyond { cause, .. } => innermost(cause),
        error => error,
    }
}

fn refused(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::ConnectionRefused
}

/// The likely cause, where the error alone does not tell it.
fn hint(error: &ConnectError) -> &'static str {
    match innermost(error) {
        ConnectError::Tls {
            reason: TlsRefusal::IdentityMismatch,
            ..
        } if matches!(error, ConnectError::Beyond { .. }) => {
            " (do the service's subject_alt_names hold the identities of its endpoints, and of its waypoint, in the other network?)"
        }
        ConnectError::Dial { cause, .. } if refused(cause) => {
            " (does the destination's ztunnel run?)"
        }
        ConnectError::Dial { .. } => {
            " (does a NetworkPolicy block port 15008, which carries the mesh's traffic, or is the pod gone?)"
        }
        ConnectError::Refused(StatusCode::UNAUTHORIZED) => {
            " (a policy of the destination denies it: see the log of its ztunnel)"
        }
        ConnectError::Refused(StatusCode::SERVICE_UNAVAILABLE) => {
            " (the destination's application does not answer)"
        }
        ConnectError::Refused(StatusCode::BAD_REQUEST) => {
            " (the destination has another address by now)"
        }
        _ => "",
    }
}

/// Opens the way that was decided on.
pub(super) async fn dial(
    out: &Parts,
    own: &Workload,
    client: ClientAddr,
    permit: Permit,
    route: Route,
) -> Result<Upstream, Error> {
    match route {
        Route::Plain { to, .. } => {
            let stream = out.netns.connect(to, SeenFrom::Pod).await;
            stream
                .map(Upstream::Plain)
                .map_err(|source| Error::Plain { to, source })
        }
        Route::Hbone {
            next_hop,
            authority,
            expect,
            service,
            beyond,
            ..
        } => {
            let target = Target {
                source: own.identity.clone(),
                pod: Arc::clone(&out.uid),
                expect: expect.into_iter().map(Into::into).collect(),
                next_hop,
                authority,
                baggage: Some(baggage(own)),
                forwarded: Some(forwarded(client, service.as_deref())),
                traceparent: Some(traceparent(rand::random(), rand::random())),
                further: Vec::new(),
            };
            let (netns, pool) = (out.netns.clone(), &out.shared.pool);
            let connect = async move || netns.connect(next_hop, SeenFrom::Pod).await;
            let stream = match beyond {
                None => pool.connect(permit, target, connect).await,
                Some(beyond) => {
                    let inner = Target {
                        expect: beyond.expect.into_iter().map(Into::into).collect(),
                        further: vec![(NETWORK, own.network.as_str().to_owned())],
                        ..target.clone()
                    };
                    pool.connect_beyond(permit, target, inner, connect).await
                }
            };
            stream.map(Upstream::Tunnel).map_err(Error::Tunnel)
        }
    }
}

/// Who calls, for the telemetry of the other end (W3C baggage with OpenTelemetry's names).
fn baggage(own: &Workload) -> String {
    let kind = format!("k8s.{}.name", own.kind_name());
    let entries: [(&str, &str); 7] = [
        ("k8s.cluster.name", &own.cluster),
        ("k8s.namespace.name", &own.namespace),
        (&kind, &own.workload_name),
        ("service.name", &own.canonical_name),
        ("service.version", &own.canonical_revision),
        ("cloud.region", &own.locality.region),
        ("cloud.availability_zone", &own.locality.zone),
    ];
    let said = entries
        .iter()
        .filter(|(_, value)| !value.is_empty() && value.bytes().all(plain));
    said.map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// True for what a baggage value may hold as it is (W3C baggage, `baggage-octet` without `%`).
fn plain(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x24 | 0x26..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// Where the call comes from, and what it called (RFC 7239).
fn forwarded(client: ClientAddr, service: Option<&Service>) -> String {
    match service {
        Some(service) => format!("for=\"{client}\";host={}", service.key.hostname),
        None => format!("for=\"{client}\""),
    }
}

/// A new trace with its first span (W3C Trace Context), not sampled. Neither may be zero.
fn traceparent(trace: u128, span: u64) -> String {
    format!("00-{:032x}-{:016x}-00", trace.max(1), span.max(1))
}

#[cfg(test)]
mod tests;
