//! Control's own server certificate: from its own authority, renewed at half its life and whenever
//! the authority changes, without a restart and without closing a connection.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::ca::authority::{Authority, AuthorityError};
use crate::ca::current::Current;

/// How long a server certificate lives.
const LIFETIME: time::Duration = time::Duration::hours(24);
/// After a failed renewal.
const RETRY: Duration = Duration::from_secs(60);

/// Why there is no server certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It could not be signed.
    #[error("control's own certificate can't be issued")]
    Authority(#[from] AuthorityError),
    /// What was signed does not parse.
    #[error("control's own certificate does not parse")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls does not take it.
    #[error("TLS can't be set up with control's own certificate")]
    Rustls(#[from] rustls::Error),
}

/// The certificate of the moment.
#[derive(Debug)]
pub struct Server {
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Server {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Server {
    /// Issues the first certificate.
    pub fn new(authority: &Authority, names: &[String]) -> Result<Arc<Self>, TlsError> {
        let key = issue(authority, names)?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(key),
        }))
    }

    /// The TLS configuration of the gRPC server.
    pub fn config(self: &Arc<Self>) -> Result<rustls::ServerConfig, TlsError> {
        self.speaking(b"h2")
    }

    /// The TLS configuration of the webhook.
    pub fn webhook(self: &Arc<Self>) -> Result<rustls::ServerConfig, TlsError> {
        self.speaking(b"http/1.1")
    }

    fn speaking(self: &Arc<Self>, protocol: &[u8]) -> Result<rustls::ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    /// Renews until stopped, and at once where another authority signs.
    pub async fn renew(&self, authority: &Current, names: &[String], stop: CancellationToken) {
        let half = LIFETIME.unsigned_abs() / 2;
        let mut pause = half;
        let mut roots = authority.roots();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = roots.changed() => if changed.is_err() { return },
            }
            match issue(&authority.load(), names) {
                Ok(key) => {
                    self.current.store(Arc::new(key));
                    tracing::info!("control's own certificate was renewed");
                    pause = half;
                }
                Err(error) => {
                    tracing::error!(%error, "control's own certificate could not be renewed; it is tried again");
                    pause = RETRY;
                }
            }
        }
    }
}

fn issue(authority: &Authority, names: &[String]) -> Result<CertifiedKey, TlsError> {
    let issued = authority.server(names, LIFETIME, OffsetDateTime::now_utc())?;
    let chain =
        CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
    let provider: CryptoProvider = rustls::crypto::ring::default_provider();
    Ok(CertifiedKey::new(
        chain,
        provider.key_provider.load_private_key(key)?,
    ))
}
