//! Making connections to endpoints: TCP, TLS in it, tunnels, PROXY headers. Knows how one endpoint
//! is reached, and nothing of which.

mod io;

use std::sync::Arc;

use mesh::certificate::Certificates;
use mesh::identity::Identity;
use rustls::ClientConfig;

use crate::model::tls::ClientTls;

pub use io::Io;

/// Where TLS configurations of clusters come from: `source` holds certificates and roots.
pub trait TlsConfigs {
    /// The configuration for this TLS, with its certificate, roots and names as they are now; asked
    /// for at each handshake, so renewed secrets count at once.
    ///
    /// # Errors
    /// What is missing, by name: a secret that hasn't come yet, or can't be used.
    fn client_config(&self, tls: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String>;
}

/// Who the proxy is in the mesh: tunnels speak for it.
#[derive(Clone)]
pub struct Identified {
    /// Its identity.
    pub identity: Identity,
    /// Where its certificate is kept.
    pub certificates: Certificates,
}
