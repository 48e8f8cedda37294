//! A throw-away certificate authority, served as the real `IstioCertificateService` over TLS. A
//! test can also ask it for certificates that no peer may accept.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh::proto::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use mesh::proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What the service expects as the bearer token.
pub const TOKEN: &str = "lab-token";

/// A certificate with its key, as a peer presents it.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// PEM: the leaf.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

/// How a certificate is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: it is fine.
    None,
    /// It ended an hour ago.
    Expired,
    /// It is signed by a root that nobody knows.
    UnknownRoot,
}

/// The authority and, while it runs, its server.
#[derive(Debug)]
pub struct Authority {
    issuer: Arc<Signer>,
    root: String,
    at: SocketAddr,
    server: Mutex<Option<tokio::runtime::Runtime>>,
}

#[derive(Debug)]
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many certificates were signed for each identity.
    signed: BTreeMap<String, u64>,
    /// Lifetime in seconds instead of the one asked for.
    lifetime: Option<i64>,
}

impl Authority {
    /// Makes the root. `at` is where [`Self::serve`] will listen.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn create(at: SocketAddr) -> Result<Self> {
        let (issuer, root) = root("Culvert lab")?;
        let signer = Signer {
            issuer,
            root: root.clone(),
            state: Mutex::default(),
        };
        Ok(Self {
            issuer: Arc::new(signer),
            root,
            at,
            server: Mutex::new(None),
        })
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Where it is served.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.at)
    }

    /// Serves on a listener that was opened in the fabric, until [`Self::stop`].
    ///
    /// # Errors
    /// When its own TLS certificate can't be made.
    pub fn serve(&self, listener: TcpListener) -> Result<()> {
        let mut params = CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()])?;
        params
            .subject_alt_names
            .push(SanType::IpAddress(self.at.ip()));
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer.issuer)?;
        let tls =
            ServerTlsConfig::new().identity(TlsIdentity::from_pem(leaf.pem(), key.serialize_pem()));
        let service = IstioCertificateServiceServer::from_arc(Arc::clone(&self.issuer));
        let router = Server::builder().tls_config(tls)?.add_service(service);
        listener.set_nonblocking(true)?;
        // A runtime of its own, so that stopping ends its connections too.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lab-ca")
            .enable_all()
            .build()?;
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
            router
                .serve_with_incoming(incoming)
                .await
                .context("the certificate authority ended")
        });
        *self.server.lock() = Some(runtime);
        Ok(())
    }

    /// Ends the server and its connections. Certificates stay valid.
    pub fn stop(&self) {
        if let Some(runtime) = self.server.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// How many certificates were signed for an identity.
    #[must_use]
    pub fn signed(&self, identity: &str) -> u64 {
        self.issuer
            .state
            .lock()
            .signed
            .get(identity)
            .copied()
            .unwrap_or(0)
    }

    /// From now on certificates live this many seconds, whatever is asked for.
    pub fn set_lifetime(&self, seconds: Option<i64>) {
        self.issuer.state.lock().lifetime = seconds;
    }

    /// A certificate for a test's own peer.
    ///
    /// # Errors
    /// When the identity is no URI.
    pub fn issue(&self, identity: &str, flaw: Flaw) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let mut params = leaf(identity)?;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = match flaw {
            Flaw::Expired => (now - Duration::hours(2), now - Duration::hours(1)),
            Flaw::None | Flaw::UnknownRoot => {
                (now - Duration::minutes(1), now + Duration::hours(1))
            }
        };
        let certificate = match flaw {
            Flaw::UnknownRoot => params.signed_by(&key, &root("somebody else")?.0)?,
            Flaw::None | Flaw::Expired => params.signed_by(&key, &self.issuer.issuer)?,
        };
        Ok(Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        if token != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("the token is not the lab's"));
        }
        let request = request.into_inner();
        let mut csr = CertificateSigningRequestParams::from_pem(&request.csr).map_err(|error| {
            Status::invalid_argument(format!("the request does not parse: {error}"))
        })?;
        // A ztunnel asks for others, a waypoint for itself.
        let identity = impersonated(&request)
            .or_else(|| asked_for(&csr))
            .ok_or_else(|| Status::invalid_argument("neither impersonated nor named"))?;
        let lifetime = self
            .state
            .lock()
            .lifetime
            .unwrap_or(request.validity_duration);
        let now = OffsetDateTime::now_utc();
        csr.params =
            leaf(&identity).map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
        csr.params.not_before = now - Duration::seconds(2);
        csr.params.not_after = now + Duration::seconds(lifetime);
        let signed = csr
            .signed_by(&self.issuer)
            .map_err(|error| Status::internal(error.to_string()))?;
        *self.state.lock().signed.entry(identity).or_default() += 1;
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![signed.pem(), self.root.clone()],
        }))
    }
}

fn asked_for(csr: &CertificateSigningRequestParams) -> Option<String> {
    csr.params
        .subject_alt_names
        .iter()
        .find_map(|name| match name {
            SanType::URI(uri) => Some(uri.to_string()),
            _ => None,
        })
}

fn impersonated(request: &IstioCertificateRequest) -> Option<String> {
    let value = request
        .metadata
        .as_ref()?
        .fields
        .get("ImpersonatedIdentity")?;
    match value.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn root(name: &str) -> Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((Issuer::new(params, key), certificate.pem()))
}

fn leaf(identity: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let uri = identity
        .try_into()
        .with_context(|| format!("the identity {identity:?}"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
