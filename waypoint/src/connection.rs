//! What is known of a downstream connection: Envoy's filter state, as a type. Made once when the
//! connection (or tunnel stream) is accepted, and shared by its requests.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::identity::Identity;
use mesh::workload::Workload;

use crate::model::listener::Protocol;

/// What is known of a downstream connection.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// Who connects: the source's address. For a tunnel, the tunnel's peer.
    pub remote: SocketAddr,
    /// Where it connects to: the socket's own address, or the tunnel's authority where that is an
    /// address.
    pub local: SocketAddr,
    /// The tunnel's `:authority`, for a stream of one.
    pub authority: Option<Box<str>>,
    /// Who the peer proved to be, and what its certificate said.
    pub peer: Option<Arc<PeerCertificate>>,
    /// Who we are to the peer.
    pub own: Option<Identity>,
    /// The workload behind the source, for telemetry.
    pub workload: Option<Arc<Workload>>,
    /// The name asked for by TLS.
    pub server_name: Option<Box<str>>,
    /// TLS ended here, or the tunnel's did.
    pub secure: bool,
    /// What the first bytes were found to be; none where nobody looked.
    pub detected: Option<Protocol>,
    /// Unlike any other connection's of this process.
    pub id: u64,
}

/// What a verified peer's certificate said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its identity, where it is a SPIFFE ID.
    pub identity: Option<Identity>,
    /// Its URI names; the first is the principal in policy and logs.
    pub uris: Vec<Box<str>>,
    /// Its DNS names.
    pub dns: Vec<Box<str>>,
    /// Its subject, as RFC 2253 writes it.
    pub subject: Box<str>,
    /// SHA-256 of the certificate, hexadecimal.
    pub hash: Box<str>,
}

impl Downstream {
    /// A connection of which nothing is known but its ends.
    #[must_use]
    pub fn between(remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            remote,
            local,
            authority: None,
            peer: None,
            own: None,
            workload: None,
            server_name: None,
            secure: false,
            detected: None,
            id: 0,
        }
    }

    /// The peer's principal as policy compares it: its first URI name.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.peer.as_ref()?.uris.first().map(|uri| &**uri)
    }

    /// A label of the peer's workload. The workload is found by its address, and counts only where
    /// the peer proved to be who runs there.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let workload = self.workload.as_ref()?;
        let proved = self.peer.as_ref()?.identity.as_ref()?;
        let labels = workload.labels.as_ref()?;
        let label = labels.get(name).filter(|_| workload.identity == *proved);
        label.map(|label| &**label)
    }
}
