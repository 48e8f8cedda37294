//! Where certificates come from: the seam [`Issuer`], and the client of a mesh's certificate
//! authority, `istio.v1.auth.IstioCertificateService` over gRPC, which istiod and Culvert's own
//! control plane serve. Retries and renewal are [`crate::certificate`]'s.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate as RootPem, Channel, ClientTlsConfig, Endpoint};

use crate::certificate::Material;
use crate::identity::Identity;
use crate::proto::auth::IstioCertificateRequest;
use crate::proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;

/// Longest wait for a connection to the CA.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer of the CA.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for everything together: reading files, resolving the name, connecting, asking.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most certificates in an answer; a chain has two to five.
const MAX_CHAIN: usize = 32;

/// A future that issues.
pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Material, IssueError>> + Send + 'a>>;

/// Something that makes a key and has a certificate for it signed.
pub trait Issuer: Send + Sync + 'static {
    /// Issues a certificate for `identity`. Must end by itself within a bounded time.
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a>;
}

/// How to reach the CA.
#[derive(Debug, Clone)]
pub struct Config {
    /// `https://istiod.istio-system.svc:15012`; `http://` for plaintext.
    pub address: String,
    /// PEM file with the roots that the CA's own certificate is verified against. Read again for
    /// each request, so that a rotation needs no restart.
    pub root: PathBuf,
    /// File with the ServiceAccount token; read again for each request, because kubelet renews it.
    pub token: PathBuf,
    /// Sent as the header `clusterid`.
    pub cluster_id: String,
    /// Validity to ask for; the CA may give less.
    pub validity: Duration,
    /// Certificates are asked for on behalf of others, as a node proxy does for its pods; otherwise
    /// the token's own. A CA refuses the first to anybody but node proxies.
    pub for_others: bool,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A file that the request needs can't be read.
    #[error("{what} {path}: {cause} (is the volume mounted?)", path = path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The token file holds no token.
    #[error("token {path} is empty or holds characters no token has", path = .0.display())]
    Token(PathBuf),
    /// The CA's address or roots can't be used.
    #[error("CA {address}: {cause}")]
    Address {
        /// The configured address.
        address: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The key or the signing request could not be made.
    #[error("can't make a certificate signing request: {0}")]
    Request(#[from] rcgen::Error),
    /// The CA can't be reached, or refused.
    #[error("CA {address} refused or is unreachable: {}", describe(.status))]
    Refused {
        /// The configured address.
        address: String,
        /// Its answer.
        status: Box<tonic::Status>,
    },
    /// The CA did not answer in time.
    #[error("CA {0} does not answer within {ISSUE_TIMEOUT:?}")]
    TimedOut(String),
    /// The CA answered with something that is no certificate chain.
    #[error("the CA's answer is no certificate chain: {0}")]
    Answer(String),
}

/// The client of an `IstioCertificateService`.
pub struct Client {
    config: Config,
    /// The connection, and the roots it was made with.
    channel: tokio::sync::Mutex<Option<(Vec<u8>, Channel)>>,
}

impl Client {
    /// A client that connects when it is first asked.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            channel: tokio::sync::Mutex::new(None),
        }
    }

    async fn create(&self, identity: &Identity) -> Result<Material, IssueError> {
        let token = self.token().await?;
        let channel = self.channel().await?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let message = IstioCertificateRequest {
            csr: signing_request(identity, &key)?,
            validity_duration: i64::try_from(self.config.validity.as_secs()).unwrap_or(i64::MAX),
            metadata: self.config.for_others.then(|| impersonate(identity)),
        };
        let mut request = tonic::Request::new(message);
        request.set_timeout(REQUEST_TIMEOUT);
        request.metadata_mut().insert("authorization", token);
        if let Ok(cluster) = self.config.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        let answer = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await
            .map_err(|status| IssueError::Refused {
                address: self.config.address.clone(),
                status: Box::new(status),
            })?;
        let (chain, roots) = read_chain(&answer.into_inner().cert_chain)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Material { chain, key, roots })
    }

    async fn token(&self) -> Result<MetadataValue<Ascii>, IssueError> {
        let path = &self.config.token;
        let text = String::from_utf8(read("token", path).await?).unwrap_or_default();
        let token = text.trim();
        if token.is_empty() {
            return Err(IssueError::Token(path.clone()));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| IssueError::Token(path.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The connection; a new one where the roots have changed since it was made.
    async fn channel(&self) -> Result<Channel, IssueError> {
        let address = &self.config.address;
        let wrong = |cause: String| IssueError::Address {
            address: address.clone(),
            cause,
        };
        let secure = address.starts_with("https://");
        let roots = if secure {
            read("CA root", &self.config.root).await?
        } else {
            Vec::new()
        };
        let mut held = self.channel.lock().await;
        if let Some((made_with, channel)) = &*held
            && *made_with == roots
        {
            return Ok(channel.clone());
        }
        let mut endpoint = Endpoint::from_shared(address.clone())
            .map_err(|e| wrong(e.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if secure {
            let tls = ClientTlsConfig::new().ca_certificate(RootPem::from_pem(&roots));
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|e| wrong(describe_error(&e)))?;
        }
        let channel = endpoint.connect_lazy();
        *held = Some((roots, channel.clone()));
        Ok(channel)
    }
}

impl Issuer for Client {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async {
            tokio::time::timeout(ISSUE_TIMEOUT, self.create(identity))
                .await
                .unwrap_or_else(|_| Err(IssueError::TimedOut(self.config.address.clone())))
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ca::Client({})", self.config.address)
    }
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, IssueError> {
    let failed = |cause| IssueError::File {
        what,
        path: path.to_owned(),
        cause,
    };
    tokio::fs::read(path).await.map_err(failed)
}

fn signing_request(identity: &Identity, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    params.serialize_request(key)?.pem()
}

fn impersonate(identity: &Identity) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(identity.to_string())),
    };
    Struct {
        fields: [("ImpersonatedIdentity".to_owned(), value)].into(),
    }
}

/// Splits an answer: the first PEM is the leaf, the last holds the root or several, what lies
/// between are intermediates.
fn read_chain(
    pems: &[String],
) -> Result<(Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>), IssueError> {
    let answer = |what: &str| IssueError::Answer(what.to_owned());
    let [chain @ .., roots] = pems else {
        return Err(answer("it is empty"));
    };
    if chain.is_empty() {
        return Err(answer("it has one element, and needs a leaf and a root"));
    }
    let parse = |pem: &String| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| answer(&format!("{e}")))
    };
    let chain: Vec<_> = chain
        .iter()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let roots = parse(roots)?;
    if chain.is_empty() || roots.is_empty() {
        return Err(answer("its leaf or its root is no PEM certificate"));
    }
    if chain.len() + roots.len() > MAX_CHAIN {
        return Err(answer("it has too many certificates"));
    }
    Ok((chain, roots))
}

fn describe(status: &tonic::Status) -> String {
    let cause = std::error::Error::source(status).map(describe_error);
    let hint = match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            " (is the token's audience right, and the pod on this node?)"
        }
        _ => "",
    };
    let cause = cause.map(|c| format!(": {c}")).unwrap_or_default();
    format!("{:?} {}{cause}{hint}", status.code(), status.message())
}

/// An error with all its causes: tonic's own text often says only "transport error".
fn describe_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
