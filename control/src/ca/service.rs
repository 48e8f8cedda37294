//! `istio.v1.auth.IstioCertificateService`: the gRPC shell around permission and authority.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::identity::{Identity, TrustDomain};
use mesh::proto::auth::istio_certificate_service_server::IstioCertificateService;
use mesh::proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use parking_lot::{Mutex, RwLock};
use prost_types::value::Kind;
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::authority::AuthorityError;
use super::current::Current;
use super::limit::Limits;
use super::permission::{Denied, Pods, decide};
use crate::authentication::{Authenticator, Caller, Roles};
use crate::metrics::Metrics;

/// The metadata key under which a node proxy names the pod's identity.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// How long a request waits for news of a pod that we may only not have heard of yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long workload certificates live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// For requests that name none.
    pub default: time::Duration,
    /// At most.
    pub max: time::Duration,
}

/// The certificate service.
pub struct Certificates<P> {
    authority: Arc<Current>,
    authenticator: Arc<Authenticator>,
    roles: Roles,
    trust_domain: TrustDomain,
    lifetimes: Lifetimes,
    limits: Mutex<Limits>,
    pods: Arc<RwLock<P>>,
    /// Changes whenever pods do.
    news: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
}

impl<P: Pods + Send + Sync + 'static> Certificates<P> {
    /// A service that signs with this authority. `news` changes whenever `pods` do.
    #[must_use]
    pub fn new(
        authority: Arc<Current>,
        authenticator: Arc<Authenticator>,
        roles: Roles,
        trust_domain: TrustDomain,
        lifetimes: Lifetimes,
        pods: (Arc<RwLock<P>>, watch::Receiver<u64>),
        metrics: Arc<Metrics>,
    ) -> Self {
        let (pods, news) = pods;
        let limits = Mutex::default();
        Self {
            authority,
            authenticator,
            roles,
            trust_domain,
            lifetimes,
            limits,
            pods,
            news,
            metrics,
        }
    }

    /// The identity, after waiting a little for a pod that is not known yet.
    async fn permitted(&self, caller: &Caller, wanted: Option<&str>) -> Result<Identity, Denied> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut news = self.news.clone();
        loop {
            news.mark_unchanged();
            let decided = decide(
                caller,
                wanted,
                &self.trust_domain,
                &self.roles,
                &*self.pods.read(),
            );
            match decided {
                Err(denied) if denied.may_be_early() => {
                    match tokio::time::timeout_at(deadline, news.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return Err(denied),
                    }
                }
                decided => return decided,
            }
        }
    }

    fn lifetime(&self, seconds: i64) -> time::Duration {
        match seconds {
            ..=0 => self.lifetimes.default,
            asked => time::Duration::seconds(asked),
        }
        .min(self.lifetimes.max)
    }
}

#[tonic::async_trait]
impl<P: Pods + Send + Sync + 'static> IstioCertificateService for Certificates<P> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.csr.inc();
        let peer = request.remote_addr().map(|peer| peer.to_string());
        let caller = self
            .authenticator
            .authenticate(request.metadata())
            .await
            .inspect_err(|status| {
                self.metrics.csr_refused.inc();
                tracing::warn!(
                    src.addr = peer,
                    error = status.message(),
                    "a certificate was refused"
                );
            })?;
        let name = caller
            .pod
            .as_ref()
            .map_or_else(|| caller.to_string(), |pod| pod.uid.clone());
        self.limits.lock().take(&name, Instant::now()).map_err(|wait| {
            self.metrics.csr_limited.inc();
            tracing::warn!(src.identity = %caller, "a certificate was refused: too many requests");
            Status::resource_exhausted(format!("too many certificate requests: wait {} ms", wait.as_millis()))
        })?;
        let request = request.into_inner();
        let identity = self.permitted(&caller, impersonated(&request)).await.map_err(|denied| {
            self.metrics.csr_refused.inc();
            tracing::warn!(src.identity = %caller, error = %denied, "a certificate was refused");
            Status::permission_denied("the caller may not have a certificate of this identity")
        })?;
        let lifetime = self.lifetime(request.validity_duration);
        let issued = self.authority.load().sign(
            &request.csr,
            &identity,
            lifetime,
            OffsetDateTime::now_utc(),
        );
        let issued = issued.map_err(|error| {
            tracing::warn!(src.identity = %caller, %identity, %error, "a certificate was refused");
            if let AuthorityError::Request(_) = error {
                self.metrics.csr_unreadable.inc();
                Status::invalid_argument(error.to_string())
            } else {
                self.metrics.csr_unsigned.inc();
                Status::internal("the certificate could not be signed: see control's log")
            }
        })?;
        self.metrics.issued.inc();
        tracing::debug!(src.identity = %caller, %identity, expires = %issued.expires, "certificate issued");
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: issued.chain,
        }))
    }
}

fn impersonated(request: &IstioCertificateRequest) -> Option<&str> {
    match request
        .metadata
        .as_ref()?
        .fields
        .get(IMPERSONATED)?
        .kind
        .as_ref()?
    {
        Kind::StringValue(identity) => Some(identity),
        _ => None,
    }
}
