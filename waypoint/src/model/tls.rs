//! TLS towards clients and towards upstream hosts, as configured. Who holds the certificates is
//! `source`'s business: here they are named.

use std::sync::Arc;

use super::text::TextMatch;

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The certificate it shows.
    pub certificate: SecretRef,
    /// Whose certificates clients may show; none where clients need none.
    pub roots: Option<SecretRef>,
    /// Whether a client must show one.
    pub require_client: bool,
    /// One of these must match a subject alternative name of the client; any where empty.
    pub names: Vec<TextMatch>,
    /// Protocols offered by ALPN, in order.
    pub alpn: Vec<Box<str>>,
    /// Accepted versions.
    pub versions: TlsVersions,
}

/// TLS towards an upstream host.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// The certificate we show, if any.
    pub certificate: Option<SecretRef>,
    /// Whose certificates are accepted; none means that nothing is verified, as Envoy does.
    pub roots: Option<SecretRef>,
    /// One of these must match a subject alternative name of the host; any where empty.
    pub names: Vec<TextMatch>,
    /// The name asked for.
    pub sni: Option<Box<str>>,
    /// The name asked for is the request's host, and the host must have it.
    pub auto_sni: bool,
    /// The host must have the name asked for.
    pub auto_san: bool,
    /// Protocols offered by ALPN, in order.
    pub alpn: Vec<Box<str>>,
    /// Accepted versions.
    pub versions: TlsVersions,
}

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// Which secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// The proxy's own certificate (Istio's `default`) or the mesh's roots (`ROOTCA`): both come
    /// from the mesh's certificate authority.
    Workload,
    /// A secret by name, subscribed to (SDS).
    Named(Arc<str>),
    /// One that stands in the configuration itself.
    Inline(Arc<Secret>),
    /// The roots of the operating system, read from this file.
    File(Box<str>),
}

/// A certificate with its key, or roots, as PEM.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret {
    /// The chain, leaf first; empty where it is only roots.
    pub chain: Vec<u8>,
    /// The private key. Never logged.
    pub key: Vec<u8>,
    /// Roots; empty where it is only a certificate.
    pub roots: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (chain, roots) = (self.chain.len(), self.roots.len());
        write!(f, "Secret {{ chain: {chain} bytes, roots: {roots} bytes }}")
    }
}
