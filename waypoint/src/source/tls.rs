//! TLS as configured, made into what rustls runs on: once for each configuration and version of its
//! secrets, found again at each handshake. The mesh's own tunnels have their TLS in `mesh::tls`.

mod verify;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use mesh::identity::Identity;
use mesh::tls::verifier::Verifier;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use xxhash_rust::xxh64::xxh64;

use super::secret::{Material, Secrets};
use crate::model::tls::{ClientTls, Secret, SecretRef, ServerTls, TlsVersions};
use crate::upstream::TlsConfigs;

/// Configurations that are kept; when there are more, all are made anew.
const KEPT: usize = 1024;
/// Sessions of one client configuration that can be taken up again.
const SESSIONS: usize = 32;

/// ring, with AES-128-GCM first (docs/adr/0003).
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = ring::default_provider();
    let first = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.suite();
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
});

/// Why there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The proxy is nobody in a mesh.
    #[error("the proxy has no identity of its own: it doesn't run in a mesh")]
    Nobody,
    /// The proxy's own certificate isn't there.
    #[error("no valid certificate of {0} yet: the certificate authority hasn't issued one")]
    NotIssued(Identity),
    /// A secret isn't there.
    #[error("secret {0:?} has not come: it doesn't exist, or the proxy may not read it")]
    Missing(String),
    /// A secret can't be used.
    #[error("secret {name:?}: {cause}")]
    Unfit {
        /// The secret.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
    /// rustls refuses.
    #[error("{0}")]
    Refused(String),
}

/// What has been made, by configuration.
#[derive(Default)]
pub(super) struct Configs {
    servers: Mutex<HashMap<String, Made<ServerConfig>>>,
    clients: Mutex<HashMap<String, Made<ClientConfig>>>,
}

/// What was made of these versions of the secrets.
struct Made<C> {
    certificate: Option<Arc<Material>>,
    roots: Option<Arc<Material>>,
    config: Arc<C>,
}

impl Secrets {
    /// The configuration for connections from clients, with its secrets as they are now. Ask at each
    /// handshake: it is made only once.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn server_config(&self, tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
        let ServerTls {
            certificate,
            roots,
            require_client,
            names,
            alpn,
            versions,
        } = tls;
        let key = format!("{tls:?}{:?}", inline([Some(certificate), roots.as_ref()]));
        let secrets = (self.kept(Some(certificate))?, self.kept(roots.as_ref())?);
        kept(&self.configs().servers, key, secrets, |shown, anchors| {
            let shown = shown
                .and_then(|material| material.certificate.as_ref())
                .ok_or_else(|| TlsError::Refused("its secret has no certificate".to_owned()))?;
            let builder = ServerConfig::builder_with_provider(PROVIDER.clone())
                .with_protocol_versions(protocols(*versions))
                .map_err(refused)?;
            let builder = match anchors {
                Some(anchors) => {
                    let check = verify::Client {
                        roots: anchors.roots.clone(),
                        names: names.clone(),
                        mandatory: *require_client,
                        in_mesh: *roots == Some(SecretRef::Workload),
                    };
                    let verifier = Verifier::new(check, PROVIDER.clone());
                    builder.with_client_cert_verifier(Arc::new(verifier))
                }
                None if *require_client => {
                    let why = "clients must show certificates, but no roots say whose";
                    return Err(TlsError::Refused(why.to_owned()));
                }
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(shown.to_clients.clone());
            config.alpn_protocols = protocol_names(alpn);
            if anchors.is_some() {
                // A client shows its certificate each time, as roots and names are each time.
                config.send_tls13_tickets = 0;
                config.session_storage = Arc::new(NoServerSessionStorage {});
            }
            Ok(config)
        })
    }

    /// The configuration for connections to upstream hosts, with its secrets as they are now. Ask at
    /// each handshake: it is made only once. The name that the host is called by there must be that
    /// of [`server_name`]: where the configuration wants it, the certificate must have it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn client_config(&self, tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
        let ClientTls {
            certificate,
            roots,
            names,
            sni,
            auto_sni,
            auto_san,
            alpn,
            versions,
        } = tls;
        let key = format!(
            "{tls:?}{:?}",
            inline([certificate.as_ref(), roots.as_ref()])
        );
        let secrets = (self.kept(certificate.as_ref())?, self.kept(roots.as_ref())?);
        kept(&self.configs().clients, key, secrets, |shown, anchors| {
            let check = verify::Server {
                roots: anchors.map(|anchors| anchors.roots.clone()),
                names: names.clone(),
                name_itself: *auto_san,
            };
            let verifier = Verifier::new(check, PROVIDER.clone());
            let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
                .with_protocol_versions(protocols(*versions))
                .map_err(refused)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            let mut config = match shown {
                None => builder.with_no_client_auth(),
                Some(material) => {
                    let shown = material.certificate.as_ref().ok_or_else(|| {
                        TlsError::Refused("its secret has no certificate".to_owned())
                    })?;
                    builder.with_client_cert_resolver(shown.to_servers.clone())
                }
            };
            config.alpn_protocols = protocol_names(alpn);
            config.enable_sni = sni.is_some() || *auto_sni;
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Ok(config)
        })
    }

    fn kept(&self, which: Option<&SecretRef>) -> Result<Option<Arc<Material>>, TlsError> {
        which.map(|which| self.get(which)).transpose()
    }
}

impl TlsConfigs for Secrets {
    fn client_config(&self, tls: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String> {
        Self::client_config(self, tls).map_err(|error| error.to_string())
    }
}

/// What an upstream host is called in a handshake: the request's host where the configuration takes
/// that, then the configured name, then its address (which is never sent).
///
/// # Errors
/// The name is none that TLS can carry.
pub fn server_name(
    tls: &ClientTls,
    host: Option<&str>,
    address: IpAddr,
) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let host = host.filter(|_| tls.auto_sni || tls.auto_san);
    match host.or(tls.sni.as_deref()) {
        Some(name) => ServerName::try_from(name.to_owned()),
        None => Ok(ServerName::from(address)),
    }
}

/// The configuration that was made of these secrets already, or a new one.
fn kept<C>(
    made: &Mutex<HashMap<String, Made<C>>>,
    key: String,
    (certificate, roots): (Option<Arc<Material>>, Option<Arc<Material>>),
    make: impl FnOnce(Option<&Material>, Option<&Material>) -> Result<C, TlsError>,
) -> Result<Arc<C>, TlsError> {
    let mut made = made.lock();
    if let Some(found) = made.get(&key)
        && same(found.certificate.as_ref(), certificate.as_ref())
        && same(found.roots.as_ref(), roots.as_ref())
    {
        return Ok(found.config.clone());
    }
    let config = Arc::new(make(certificate.as_deref(), roots.as_deref())?);
    if made.len() >= KEPT {
        made.clear();
    }
    let entry = Made {
        certificate,
        roots,
        config: config.clone(),
    };
    made.insert(key, entry);
    Ok(config)
}

fn same(left: Option<&Arc<Material>>, right: Option<&Arc<Material>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (left, right) => left.is_none() && right.is_none(),
    }
}

/// What tells secrets in the configuration itself apart, whose contents are never told.
fn inline(secrets: [Option<&SecretRef>; 2]) -> [Option<u64>; 2] {
    secrets.map(|secret| match secret? {
        SecretRef::Inline(secret) => {
            let Secret { chain, key, roots } = &**secret;
            Some(xxh64(&[&chain[..], key, roots].concat(), 0))
        }
        _ => None,
    })
}

fn protocols(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match versions {
        TlsVersions::Both => &BOTH,
        TlsVersions::Tls12 => &BOTH[1..],
        TlsVersions::Tls13 => &BOTH[..1],
    }
}

fn protocol_names(alpn: &[Box<str>]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn refused(error: rustls::Error) -> TlsError {
    TlsError::Refused(error.to_string())
}
