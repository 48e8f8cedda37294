//! Certificates of workloads, ready for use: a chain, its key and its roots become the two rustls
//! configurations that connections share. [`Certificates`] keeps one for each identity that this
//! node speaks for. Keys stay in memory and never reach a log.

mod manager;
mod schedule;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, ServerConfig};

use crate::identity::{Identity, TrustDomain};
use crate::tls::{self, Expected, Roots};

pub use manager::{Certificates, GetError, Held};

/// What an issuer hands out: still bytes, nothing checked.
pub struct Material {
    /// The leaf first, then the intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// The roots that peers are verified against.
    pub roots: Vec<CertificateDer<'static>>,
}

/// A workload's certificate with everything prepared for connections in both directions.
pub struct Certificate {
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    chain: Vec<CertificateDer<'static>>,
    root_certificates: Vec<CertificateDer<'static>>,
    roots: Roots,
    client: ClientConfig,
    server: Arc<ServerConfig>,
}

/// Why material is no certificate for a workload.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertificateError {
    /// The chain has no leaf.
    #[error("the issuer returned an empty certificate chain")]
    Empty,
    /// The leaf can't be read.
    #[error("the issued certificate can't be read: {0}")]
    Unreadable(String),
    /// The leaf names somebody else.
    #[error(
        "the issuer returned a certificate for {found}, not for {wanted}: is the CA's trust domain another than the mesh's?"
    )]
    OtherIdentity {
        /// Whom it was asked for.
        wanted: Identity,
        /// Whom it names.
        found: String,
    },
    /// The leaf is not valid at present.
    #[error(
        "the issued certificate is not valid now: is the clock of this node or of the CA wrong?"
    )]
    NotValidNow,
    /// Key, chain and roots don't make a usable configuration; most often the key is not the
    /// leaf's.
    #[error("the issued certificate can't be used for TLS: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Certificate {
    /// Checks that `material` is a certificate of `identity` with its own key, and prepares it.
    /// Peers of the identity's own trust domain are accepted, and those of `also_accepted`.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn new(
        identity: &Identity,
        material: Material,
        also_accepted: &[TrustDomain],
    ) -> Result<Self, CertificateError> {
        let Material {
            chain,
            key,
            roots: root_certificates,
        } = material;
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let found =
            tls::identities(leaf).map_err(|e| CertificateError::Unreadable(e.to_string()))?;
        if found != std::slice::from_ref(identity) {
            let (wanted, found) = (identity.clone(), format!("{found:?}"));
            return Err(CertificateError::OtherIdentity { wanted, found });
        }
        let (not_before, not_after, serial) = read_leaf(leaf)?;
        let roots = Roots::new(&root_certificates)?;
        let mut accepted = also_accepted.to_vec();
        if let Ok(own) = TrustDomain::new(identity.trust_domain()) {
            accepted.push(own);
        }
        let client = tls::client_config(chain.clone(), key.clone_key(), &roots)?;
        let server = Arc::new(tls::server_config(chain.clone(), key, &roots, accepted)?);
        let identity = identity.clone();
        Ok(Self {
            identity,
            not_before,
            not_after,
            serial,
            chain,
            root_certificates,
            roots,
            client,
            server,
        })
    }

    /// Whose certificate this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First moment of validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether a connection may be made with it at `now`.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The leaf's serial number in hexadecimal.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The chain, leaf first, as DER.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots, as DER.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.root_certificates
    }

    /// What shows this certificate to servers, for TLS with other rules than the mesh's.
    #[must_use]
    pub fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        self.client.client_auth_cert_resolver.clone()
    }

    /// What shows this certificate to clients, for TLS with other rules than the mesh's.
    #[must_use]
    pub fn server_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.server.cert_resolver.clone()
    }

    /// The configuration for a connection to a peer that is any of these.
    pub(crate) fn client(&self, expected: Vec<Expected>) -> Arc<ClientConfig> {
        Arc::new(tls::expecting(&self.client, &self.roots, expected))
    }

    /// The configuration for a connection from a peer.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Material({} certificates, {} roots)",
            self.chain.len(),
            self.roots.len()
        )
    }
}

fn read_leaf(
    leaf: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime, String), CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|e| CertificateError::Unreadable(e.to_string()))?;
    let validity = parsed.validity();
    Ok((
        tls::system_time(validity.not_before.timestamp()),
        tls::system_time(validity.not_after.timestamp()),
        parsed
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    ))
}
