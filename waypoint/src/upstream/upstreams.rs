//! One worker's upstream side: the way of one request from its cluster to an endpoint and back, and
//! the worker's clusters. Not shared between threads, so nothing here takes a lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode};
use mesh::policy::Permit;
use tokio::time::timeout;
use tracing::debug;

use super::answer::{Connected, Sent};
use super::choice::Choice;
use super::cluster::{Host, Local, is_among};
use super::connect::{Connector, Identified, TlsConfigs};
use super::failure::{Failure, FailureKind, Refused};
use super::outlier::LocalFailure;
use super::pool::{Closing, Failed, RequestBody};
use super::shared::{RetryPlace, Shared};
use crate::model::endpoint::Endpoint;
use crate::model::snapshot::{ClusterEntry, Current};

/// Further endpoints that are tried by ourselves while nothing of a request was sent.
const FURTHER: usize = 2;
/// How often idle connections are looked after, and outliers.
const SWEEP: Duration = Duration::from_secs(1);

/// One worker's upstream side. `B` is the body of requests. Cheap to clone.
pub struct Upstreams<B>(Rc<Inner<B>>);

struct Inner<B> {
    shared: Shared,
    current: Current,
    connector: Rc<Connector>,
    closing: Rc<Closing>,
    clusters: RefCell<HashMap<u32, Rc<Local<B>>>>,
}

impl<B> Clone for Upstreams<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: RequestBody> Upstreams<B> {
    /// A worker's upstream side. Called, and used, within the worker's runtime. Without an
    /// identity (outside a mesh) tunnelled endpoints can't be reached.
    #[must_use]
    pub fn new(
        shared: Shared,
        current: Current,
        own: Option<Identified>,
        tls: Arc<dyn TlsConfigs + Send + Sync>,
    ) -> Self {
        let connector = Rc::new(Connector::new(
            current.clone(),
            shared.names().clone(),
            own,
            tls,
        ));
        let inner = Rc::new(Inner {
            shared,
            current,
            connector,
            closing: Closing::start(),
            clusters: RefCell::default(),
        });
        tokio::task::spawn_local(look_after(Rc::downgrade(&inner)));
        Self(inner)
    }

    /// Looks after connections as if it were as late as that.
    #[cfg(test)]
    pub(super) fn look_after(&self, now: Instant) {
        self.0.sweep(now);
    }

    /// Sends one request and waits for the head of its answer. The request's URI is path and query,
    /// its host stands in `Host` or in the URI's authority: it is written as the upstream's protocol
    /// wants it. Hop-by-hop headers have been removed, those of an upgrade are kept.
    ///
    /// A request of which nothing was sent is tried on another connection or endpoint by itself; the
    /// caller's retries begin where that didn't help. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// See [`FailureKind`]; the request comes back where nothing of it was taken.
    pub async fn send(
        &self,
        cluster: &Arc<ClusterEntry>,
        choice: &Choice<'_>,
        permit: Permit,
        request: Request<B>,
    ) -> Result<Sent, Refused<B>> {
        let local = self.0.local(cluster);
        // What is known of the attempt outlives it: a time-out is the last endpoint's.
        let mut at = None;
        let done = {
            // Pinned where it is made: moved into either branch, it would take its room thrice.
            let attempt = pin!(self.attempt(&local, choice, permit, request, &mut at));
            match choice.timeout {
                None => Ok(attempt.await),
                Some(limit) => timeout(limit, attempt).await,
            }
        };
        match done {
            Ok(done) => done,
            Err(_) => {
                let endpoint = at.map(|host: Rc<Host<B>>| {
                    self.0.failed(&local, &host, LocalFailure::Timeout);
                    host.endpoint.clone()
                });
                Err(Refused {
                    failure: Failure {
                        kind: FailureKind::Timeout,
                        endpoint,
                        reused: false,
                        sent: true,
                    },
                    request: None,
                })
            }
        }
    }

    async fn attempt(
        &self,
        local: &Rc<Local<B>>,
        choice: &Choice<'_>,
        permit: Permit,
        mut request: Request<B>,
        at: &mut Option<Rc<Host<B>>>,
    ) -> Result<Sent, Refused<B>> {
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut last: Option<Failure> = None;
        loop {
            let host = match local.pick(choice, &failed) {
                Ok(host) if !is_among(&host.endpoint, &failed) => host,
                // There is no other endpoint: what the last one failed of is what counts.
                picked => {
                    let failure = last.or(picked.err().map(Failure::early));
                    let failure =
                        failure.unwrap_or_else(|| Failure::early(FailureKind::NoHealthyUpstream));
                    let request = Some(Box::new(request));
                    return Err(Refused { failure, request });
                }
            };
            choice.picked(&host.endpoint);
            *at = Some(host.clone());
            let refused = match host.pool.send(request, choice, permit.clone()).await {
                Ok(sent) => {
                    self.0.answered(local, &host, &sent.response);
                    return Ok(sent);
                }
                Err(refused) => refused,
            };
            let Failed {
                kind,
                reused,
                sent,
                request: back,
            } = refused;
            if let Some(failure) = blame(&kind) {
                self.0.failed(local, &host, failure);
            }
            let again = is_of_the_endpoint(&kind) && failed.len() < FURTHER;
            let endpoint = Some(host.endpoint.clone());
            let failure = Failure {
                kind,
                endpoint,
                reused,
                sent,
            };
            match back {
                Some(back) if again => {
                    let endpoint = &host.endpoint.address;
                    debug!(?endpoint, %failure, "nothing was sent: another endpoint is tried");
                    request = back;
                    failed.push(host.endpoint.clone());
                    last = Some(failure);
                }
                back => {
                    let request = back.map(Box::new);
                    return Err(Refused { failure, request });
                }
            }
        }
    }

    /// Opens a connection for bytes: for TCP routes, and for upgrades that aren't HTTP/1's own.
    /// Endpoints that can't be reached are passed over, as with [`send`](Self::send).
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        choice: &Choice<'_>,
        permit: Permit,
    ) -> Result<Connected, Failure> {
        let local = self.0.local(cluster);
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut last: Option<Failure> = None;
        loop {
            let host = match local.pick(choice, &failed) {
                Ok(host) if !is_among(&host.endpoint, &failed) => host,
                picked => {
                    let failure = last.or(picked.err().map(Failure::early));
                    return Err(
                        failure.unwrap_or_else(|| Failure::early(FailureKind::NoHealthyUpstream))
                    );
                }
            };
            let kind = match host.pool.connect(choice, permit.clone()).await {
                Ok(connected) => return Ok(connected),
                Err(kind) => kind,
            };
            if let Some(failure) = blame(&kind) {
                self.0.failed(&local, &host, failure);
            }
            let again = is_of_the_endpoint(&kind) && failed.len() < FURTHER;
            let failure = Failure::at(kind, host.endpoint.clone());
            if !again {
                return Err(failure);
            }
            failed.push(host.endpoint.clone());
            last = Some(failure);
        }
    }

    /// Takes a place for one retry of a request to this cluster, if its limit or budget allows it.
    #[must_use]
    pub fn retry(&self, cluster: &ClusterEntry) -> Option<RetryPlace> {
        let state = self.0.shared.cluster(cluster.id);
        state.retry(&cluster.cluster.breakers)
    }
}

impl<B: RequestBody> Inner<B> {
    /// The cluster as this worker sees it. A request that still has the cluster as it was before a
    /// push is served by the present one.
    fn local(&self, entry: &Arc<ClusterEntry>) -> Rc<Local<B>> {
        let found = self.clusters.borrow().get(&entry.id).cloned();
        if let Some(local) = found {
            local.used();
            let same = Arc::ptr_eq(&local.entry.cluster, &entry.cluster)
                && Arc::ptr_eq(&local.entry.endpoints, &entry.endpoints);
            if same || self.is_current(&local.entry) {
                return local;
            }
        }
        let state = self.shared.cluster(entry.id);
        let local = Rc::new(Local::new(
            entry.clone(),
            state,
            self.connector.clone(),
            self.closing.clone(),
        ));
        let before = self.clusters.borrow_mut().insert(entry.id, local.clone());
        // Its connections may be of another transport than what counts now.
        drop(before);
        local
    }

    fn is_current(&self, entry: &ClusterEntry) -> bool {
        let snapshot = self.current.glance();
        let present = snapshot.clusters.get(&entry.cluster.name);
        present.is_some_and(|present| {
            Arc::ptr_eq(&present.cluster, &entry.cluster)
                && Arc::ptr_eq(&present.endpoints, &entry.endpoints)
        })
    }

    fn answered<R>(&self, local: &Local<B>, host: &Host<B>, answer: &Response<R>) {
        let outlier = local.entry.cluster.outlier.as_ref();
        let status = match outlier.and_then(|outlier| outlier.errors.as_ref()) {
            None => outcome(answer.status(), answer.headers()),
            // They are named by the status of HTTP.
            Some(_) => answer.status(),
        };
        local
            .state
            .answered(&host.state, status, outlier, || self.shared.now());
    }

    fn failed(&self, local: &Local<B>, host: &Host<B>, failure: LocalFailure) {
        let outlier = local.entry.cluster.outlier.as_ref();
        local
            .state
            .failed(&host.state, failure, outlier, || self.shared.now());
    }

    /// Closes idle connections, ends intervals of outlier detection, forgets clusters that are gone.
    fn sweep(&self, now: Instant) {
        let process = self.shared.now();
        let clusters: Vec<_> = self.clusters.borrow().values().cloned().collect();
        for local in clusters {
            local.sweep(now);
            match &local.entry.cluster.outlier {
                Some(outlier) => local.state.sweep(outlier, process),
                None => local.state.pardon(),
            }
        }
        let snapshot = self.current.glance();
        let there = |entry: &ClusterEntry| {
            let present = snapshot.clusters.get(&entry.cluster.name);
            present.is_some_and(|present| present.id == entry.id)
        };
        let mut clusters = self.clusters.borrow_mut();
        let gone: Vec<_> = clusters
            .extract_if(|_, local| !there(&local.entry) || local.is_forgotten())
            .collect();
        drop(clusters);
        for (id, local) in gone {
            drop(local);
            self.shared.forget(id);
        }
    }
}

async fn look_after<B: RequestBody>(upstreams: Weak<Inner<B>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match upstreams.upgrade() {
            Some(upstreams) => upstreams.sweep(Instant::now()),
            None => return,
        }
    }
}

/// What outlier detection makes of a failure; nothing where the endpoint isn't to blame.
fn blame(kind: &FailureKind) -> Option<LocalFailure> {
    match kind {
        FailureKind::Connect(_) | FailureKind::ConnectTimeout => Some(LocalFailure::Connect),
        FailureKind::Reset(_) => Some(LocalFailure::Reset),
        FailureKind::Timeout => Some(LocalFailure::Timeout),
        FailureKind::NoHealthyUpstream
        | FailureKind::Dropped
        | FailureKind::Overflow
        | FailureKind::Request(_) => None,
    }
}

/// Another endpoint may do better.
fn is_of_the_endpoint(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Connect(_) | FailureKind::ConnectTimeout | FailureKind::Reset(_)
    )
}

/// An answer's status as outlier detection counts it: that of gRPC, where the head says it already.
fn outcome(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    let Some(grpc) = headers
        .get(crate::grpc::STATUS)
        .and_then(|value| value.to_str().ok())
    else {
        return status;
    };
    match grpc {
        "0" => StatusCode::OK,
        "1" => StatusCode::from_u16(499).unwrap_or(status),
        "3" | "9" | "11" => StatusCode::BAD_REQUEST,
        "4" => StatusCode::GATEWAY_TIMEOUT,
        "5" => StatusCode::NOT_FOUND,
        "6" | "10" => StatusCode::CONFLICT,
        "7" => StatusCode::FORBIDDEN,
        "8" => StatusCode::TOO_MANY_REQUESTS,
        "12" => StatusCode::NOT_IMPLEMENTED,
        "14" => StatusCode::SERVICE_UNAVAILABLE,
        "16" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
