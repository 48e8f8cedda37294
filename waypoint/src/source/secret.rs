//! Certificates, keys and roots by their names, ready for TLS: the proxy's own certificate, which
//! the mesh's authority issues and renews, secrets that were subscribed to, those that stand in the
//! configuration, and the roots of the operating system. Keys never reach a log or a dump.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mesh::certificate::{Certificate, Certificates};
use mesh::identity::Identity;
use parking_lot::{Mutex, RwLock};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::tls::{Configs, TlsError};
use crate::model::tls::{Secret, SecretRef};

/// Every certificate, key and root that this process holds. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    own: Option<Own>,
    named: RwLock<HashMap<Arc<str>, Arc<Material>>>,
    inline: Mutex<HashMap<Arc<Secret>, Arc<Material>>>,
    files: Mutex<HashMap<Box<str>, Read>>,
    configs: Configs,
}

/// Roots read from a file that was changed last at this time.
type Read = (SystemTime, Arc<Material>);

/// Who the proxy is.
struct Own {
    identity: Identity,
    certificates: Certificates,
    /// What was made of the certificate that was current last.
    last: Mutex<Option<(Arc<Certificate>, Arc<Material>)>>,
}

/// A secret, ready for TLS. Another version is another one.
pub struct Material {
    /// What shows the certificate; none where it is only roots.
    pub(super) certificate: Option<Shown>,
    /// The roots, empty where it is only a certificate.
    pub(super) roots: Arc<[TrustAnchor<'static>]>,
    /// The certificates, leaf first, for people to look at.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots, for people to look at.
    pub root_certificates: Vec<CertificateDer<'static>>,
}

/// What shows a certificate, to either side.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) to_clients: Arc<dyn ResolvesServerCert>,
    pub(super) to_servers: Arc<dyn ResolvesClientCert>,
}

impl Secrets {
    /// The secrets of a proxy that is somebody in the mesh. Its certificate is asked for at once.
    #[must_use]
    pub fn new(identity: Identity, certificates: Certificates) -> Self {
        certificates.prefetch(&identity);
        let own = Own {
            identity,
            certificates,
            last: Mutex::new(None),
        };
        Self(Arc::new(Inner {
            own: Some(own),
            ..Inner::default()
        }))
    }

    /// Takes a secret that was subscribed to, in place of its last version.
    ///
    /// # Errors
    /// It can't be used for TLS; the last version stays.
    pub fn insert(&self, name: &str, secret: &Secret) -> Result<(), TlsError> {
        let material = Material::parse(secret).map_err(|cause| TlsError::Unfit {
            name: name.to_owned(),
            cause,
        })?;
        let mut named = self.0.named.write();
        named.insert(name.into(), Arc::new(material));
        Ok(())
    }

    /// Forgets a secret that was subscribed to.
    pub fn remove(&self, name: &str) {
        self.0.named.write().remove(name);
    }

    /// The secret that is meant, as it is now.
    ///
    /// # Errors
    /// It hasn't come yet, or can't be used.
    pub fn get(&self, which: &SecretRef) -> Result<Arc<Material>, TlsError> {
        match which {
            SecretRef::Workload => self.own(),
            SecretRef::Named(name) => {
                let held = self.0.named.read().get(name).cloned();
                held.ok_or_else(|| TlsError::Missing(name.to_string()))
            }
            SecretRef::Inline(secret) => self.inline(secret),
            SecretRef::File(path) => self.file(path),
        }
    }

    /// The proxy's own certificate and the mesh's roots, if they have come.
    #[must_use]
    pub fn workload(&self) -> Option<Arc<Material>> {
        self.own().ok()
    }

    /// Whether the proxy's own certificate is still to come.
    #[must_use]
    pub fn awaits_own(&self) -> bool {
        let own = self.0.own.as_ref();
        own.is_some_and(|own| own.certificates.current(&own.identity).is_none())
    }

    /// The secrets that were subscribed to, by name.
    #[must_use]
    pub fn named(&self) -> Vec<(Arc<str>, Arc<Material>)> {
        let named = self.0.named.read();
        let mut all: Vec<_> = named
            .iter()
            .map(|(name, held)| (name.clone(), held.clone()))
            .collect();
        all.sort_by(|(left, _), (right, _)| left.cmp(right));
        all
    }

    pub(super) fn configs(&self) -> &Configs {
        &self.0.configs
    }

    fn own(&self) -> Result<Arc<Material>, TlsError> {
        let own = self.0.own.as_ref().ok_or(TlsError::Nobody)?;
        let identity = &own.identity;
        let Some(certificate) = own.certificates.current(identity) else {
            own.certificates.prefetch(identity);
            return Err(TlsError::NotIssued(identity.clone()));
        };
        let mut last = own.last.lock();
        if let Some((of, material)) = &*last
            && Arc::ptr_eq(of, &certificate)
        {
            return Ok(material.clone());
        }
        let roots = certificate.roots().to_vec();
        let material = Arc::new(Material {
            certificate: Some(Shown {
                to_clients: certificate.server_resolver(),
                to_servers: certificate.client_resolver(),
            }),
            roots: anchors(&roots).map_err(|cause| TlsError::Unfit {
                name: identity.to_string(),
                cause,
            })?,
            chain: certificate.chain().to_vec(),
            root_certificates: roots,
        });
        *last = Some((certificate, material.clone()));
        Ok(material)
    }

    /// A secret that stands in the configuration, read once.
    fn inline(&self, secret: &Arc<Secret>) -> Result<Arc<Material>, TlsError> {
        let mut inline = self.0.inline.lock();
        if let Some(material) = inline.get(secret) {
            return Ok(material.clone());
        }
        let material = Material::parse(secret).map_err(|cause| TlsError::Unfit {
            name: "in the configuration".to_owned(),
            cause,
        })?;
        // Those of configurations that are gone.
        inline.retain(|secret, _| Arc::strong_count(secret) > 1);
        let material = Arc::new(material);
        inline.insert(secret.clone(), material.clone());
        Ok(material)
    }

    /// Roots from a file, read again when it has changed.
    fn file(&self, path: &str) -> Result<Arc<Material>, TlsError> {
        let wrong = |cause: String| TlsError::Unfit {
            name: path.to_owned(),
            cause,
        };
        let changed = std::fs::metadata(path).and_then(|about| about.modified());
        let changed = changed.map_err(|error| wrong(format!("can't be read: {error}")))?;
        let mut files = self.0.files.lock();
        if let Some((when, material)) = files.get(path)
            && *when == changed
        {
            return Ok(material.clone());
        }
        let roots = std::fs::read(path).map_err(|e| wrong(format!("can't be read: {e}")))?;
        let secret = Secret {
            roots,
            ..Secret::default()
        };
        let material = Arc::new(Material::parse(&secret).map_err(wrong)?);
        files.insert(path.into(), (changed, material.clone()));
        Ok(material)
    }
}

impl Material {
    /// Reads a secret.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        let chain = certificates(&secret.chain, "the certificate chain")?;
        let root_certificates = certificates(&secret.roots, "the roots")?;
        let certificate = if chain.is_empty() && secret.key.is_empty() {
            None
        } else {
            Some(shown(chain.clone(), &secret.key)?)
        };
        if certificate.is_none() && root_certificates.is_empty() {
            return Err("it holds neither a certificate nor roots".to_owned());
        }
        Ok(Self {
            certificate,
            roots: anchors(&root_certificates)?,
            chain,
            root_certificates,
        })
    }
}

fn shown(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Result<Shown, String> {
    if chain.is_empty() {
        return Err("there is a private key but no certificate for it".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("the private key can't be read: {error}"))?;
    let provider: &CryptoProvider = &super::tls::PROVIDER;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("certificate and private key can't be used: {error}"))?;
    let certified = Arc::new(SingleCertAndKey::from(certified));
    Ok(Shown {
        to_clients: certified.clone(),
        to_servers: certified,
    })
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| format!("{what} can't be read: {error}"))?;
    if read.is_empty() && !pem.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("{what}: there is no certificate in it"));
    }
    Ok(read)
}

fn anchors(roots: &[CertificateDer<'_>]) -> Result<Arc<[TrustAnchor<'static>]>, String> {
    let anchor = |root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
    roots
        .iter()
        .map(anchor)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a root is no certificate: {error}"))
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.0.own.as_ref().map(|own| &own.identity);
        let named = self.0.named.read().len();
        write!(f, "Secrets({identity:?}, {named} named)")
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, roots) = (self.chain.len(), self.root_certificates.len());
        write!(f, "Material({chain} certificates, {roots} roots)")
    }
}
