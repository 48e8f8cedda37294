//! Mutual TLS as the mesh speaks it: TLS 1.3 only, ALPN `h2`, no server name, no resumption, and a
//! peer that is known by nothing but the SPIFFE identity in its certificate. Says why a peer was
//! refused in words that stay the same in logs and counters. Knows no HTTP/2 and no certificate
//! authority.

mod ahead;
mod expected;
mod handshake;
pub mod verifier;
mod verify;

#[cfg(test)]
pub(crate) mod test_authority;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest, Sha256};

use crate::identity::{Identity, TrustDomain};

pub use ahead::Ahead;
pub use expected::{Expected, ExpectedError};
pub use handshake::{HandshakeError, accept, connect};
pub(crate) use verify::identities;

use verifier::Verifier;

/// The only application protocol inside the mesh's TLS.
pub(crate) const ALPN: &[u8] = b"h2";

/// Why TLS with a peer did not come to be. The names are stable: they are label values of counters
/// and fields of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsRefusal {
    /// The peer presented no certificate.
    NoCertificate,
    /// The peer's certificate names no identity, several, or one that doesn't parse.
    NoIdentity,
    /// The identity belongs to a trust domain that is not accepted here.
    OtherTrustDomain,
    /// The certificate, or one of its issuers, has expired.
    Expired,
    /// The certificate is not valid yet: a clock is wrong, here or there.
    NotYetValid,
    /// No chain leads from the certificate to the mesh's roots.
    UnknownIssuer,
    /// A proper mesh certificate, but of another workload than the one expected.
    IdentityMismatch,
    /// The certificate is broken or not meant for this use.
    BadCertificate,
    /// The peer refused our certificate (it sent a TLS alert).
    RefusedByPeer,
    /// The peer speaks TLS but not HTTP/2 (ALPN `h2`).
    NotHttp2,
    /// The peer doesn't speak TLS 1.3, or not properly.
    NotTls,
    /// The peer closed, or reset the connection, before the handshake was done.
    Closed,
    /// The handshake took too long.
    TimedOut,
}

impl TlsRefusal {
    /// The stable name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::NoIdentity => "no_identity",
            Self::OtherTrustDomain => "other_trust_domain",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::IdentityMismatch => "identity_mismatch",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByPeer => "refused_by_peer",
            Self::NotHttp2 => "not_http2",
            Self::NotTls => "not_tls",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
        }
    }

    /// Finds the reason in an error of a TLS handshake or of a read or write over TLS.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> =
            error.get_ref().map(|e| e as &(dyn StdError + 'static));
        while let Some(cause) = next {
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::of_rustls(tls);
            }
            next = cause.source();
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::NotTls,
            _ => Self::Closed,
        }
    }

    fn of_rustls(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Certificate;
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::NoApplicationProtocol => Self::NotHttp2,
            rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
                Self::NotHttp2
            }
            rustls::Error::AlertReceived(_) => Self::RefusedByPeer,
            rustls::Error::InvalidCertificate(Certificate::Other(other)) => other
                .0
                .downcast_ref::<Refused>()
                .map_or(Self::BadCertificate, |r| r.reason),
            rustls::Error::InvalidCertificate(_) => Self::BadCertificate,
            _ => Self::NotTls,
        }
    }
}

impl fmt::Display for TlsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What our verifiers hand to rustls, so that the reason is found again in its error.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: TlsRefusal,
    pub(crate) detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl StdError for Refused {}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
            Arc::new(refused),
        )))
    }
}

/// The roots that a workload trusts, ready for verification.
#[derive(Clone)]
pub struct Roots {
    anchors: Arc<[TrustAnchor<'static>]>,
}

impl Roots {
    /// Prepares root certificates.
    ///
    /// # Errors
    /// If there is none, or one of them is no certificate.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, rustls::Error> {
        if certificates.is_empty() {
            return Err(rustls::Error::General(
                "there is no root certificate".to_owned(),
            ));
        }
        let anchors = certificates
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|e| rustls::Error::General(format!("a root is no certificate: {e}")))?;
        Ok(Self { anchors })
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.anchors.len())
    }
}

/// A peer whose certificate has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity in its certificate.
    pub identity: Identity,
    /// When the certificate expires; it must not be relied on afterwards.
    pub not_after: SystemTime,
    /// SHA-256 of the certificate.
    pub hash: [u8; 32],
}

impl Peer {
    /// Reads a verified leaf. `expected` chooses among several identities.
    pub(crate) fn of(leaf: &CertificateDer<'_>, expected: &[Expected]) -> io::Result<Self> {
        let broken = |e: String| io::Error::new(io::ErrorKind::InvalidData, e);
        let identities = verify::identities(leaf).map_err(|e| broken(e.to_string()))?;
        let identity = identities
            .iter()
            .find(|identity| expected.iter().any(|expected| expected.accepts(identity)))
            .or(identities.first())
            .ok_or_else(|| broken("the certificate names no identity".to_owned()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|e| broken(e.to_string()))?;
        Ok(Self {
            identity: identity.clone(),
            not_after: system_time(parsed.validity().not_after.timestamp()),
            hash: Sha256::digest(leaf).into(),
        })
    }
}

/// The configuration for connections that a workload opens. Its verifier accepts nobody: each
/// connection sets one that expects certain identities, with [`expecting`].
pub(crate) fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &Roots,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Arc::new(expected(roots, Vec::new()));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A client configuration that accepts a server that is any of these. Shares everything
/// else with `config`.
pub(crate) fn expecting(
    config: &ClientConfig,
    roots: &Roots,
    expected: Vec<Expected>,
) -> ClientConfig {
    let mut config = config.clone();
    let verifier = self::expected(roots, expected);
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    config
}

fn expected(roots: &Roots, expected: Vec<Expected>) -> Verifier<verify::Server> {
    let roots = roots.clone();
    Verifier::new(verify::Server { roots, expected }, provider())
}

/// The configuration for connections that a workload accepts, from identities of `accepted` trust
/// domains.
pub(crate) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &Roots,
    accepted: Vec<TrustDomain>,
) -> Result<ServerConfig, rustls::Error> {
    let roots = roots.clone();
    let verifier = Arc::new(Verifier::new(
        verify::Client { roots, accepted },
        provider(),
    ));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// ring, with AES-128-GCM first: on CPUs with AES instructions it is the cheapest of the three
/// (docs/adr/0003), and TLS 1.3 holds it as safe as the others.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> = std::sync::LazyLock::new(|| {
        use ring::cipher_suite as suite;
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                suite::TLS13_AES_128_GCM_SHA256,
                suite::TLS13_AES_256_GCM_SHA384,
                suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..ring::default_provider()
        })
    });
    PROVIDER.clone()
}

/// A certificate's time, in seconds since 1970, as the system's.
pub(crate) fn system_time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}
