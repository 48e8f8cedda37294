//! The gRPC shell around sessions: one task a client.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mesh::proto::discovery::DeltaDiscoveryRequest;
use mesh::proto::discovery::aggregated_discovery_service_server::SERVICE_NAME;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Request, Status, Streaming};

use super::codec::{RequestDecoder, Responses};
use super::debug::{self, Instance, Questions};
use super::fleet::Fleet;
use super::hub::Hub;
use super::session::{Heard, Push, Role, Session};
use super::store::Behind;
use crate::authentication::{Authenticator, Caller, Roles};
use crate::index::{Index, Seat};
use crate::metrics::Metrics;
use crate::objects::Key;

/// The largest request: a client that reconnects names every resource that it has.
const REQUEST_LIMIT: usize = 64 << 20;
/// Responses under way to one client: at most one of each kind is unacknowledged.
const QUEUE: usize = 4;
const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The aggregated discovery service.
#[derive(Clone)]
pub struct Discovery(Arc<Shared>);

/// Where each client's resources are.
#[derive(Clone)]
pub struct Sources {
    /// The node proxies', and all workloads.
    pub mesh: Arc<Hub>,
    /// The waypoints'.
    pub waypoints: Arc<Fleet>,
    /// Which pod is a waypoint.
    pub index: Arc<RwLock<Index>>,
    /// Who answers.
    pub instance: Arc<Instance>,
}

struct Shared {
    hub: Arc<Hub>,
    waypoints: Arc<Fleet>,
    index: Arc<RwLock<Index>>,
    instance: Arc<Instance>,
    authenticator: Arc<Authenticator>,
    roles: Roles,
    metrics: Arc<Metrics>,
    /// A stream ends after this time, so that its client shows a fresh token.
    max_age: Duration,
    stop: CancellationToken,
}

impl Discovery {
    /// A service over the hubs. `max_age` is how long one stream may live, `stop` ends all.
    #[must_use]
    pub fn new(
        sources: Sources,
        authenticator: Arc<Authenticator>,
        roles: Roles,
        metrics: Arc<Metrics>,
        max_age: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            hub: sources.mesh,
            waypoints: sources.waypoints,
            index: sources.index,
            instance: sources.instance,
            authenticator,
            roles,
            metrics,
            max_age,
            stop,
        }))
    }
}

impl NamedService for Discovery {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            match request.uri().path() {
                PATH => Ok(delta(shared, request)
                    .await
                    .unwrap_or_else(Status::into_http)),
                debug::PATH => Ok(debug::serve(shared.questions(), request).await),
                _ => Ok(Status::unimplemented(
                    "only delta discovery is served: DeltaAggregatedResources",
                )
                .into_http()),
            }
        })
    }
}

/// A client, and of a waypoint's replica its seat and what is published there.
struct Admitted {
    caller: Caller,
    waypoint: Option<(Seat, Arc<Hub>)>,
}

/// A stream of delta discovery, once its caller is known.
async fn delta(
    shared: Arc<Shared>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Status> {
    let request =
        request.map(|body| Streaming::new_request(RequestDecoder, body, None, Some(REQUEST_LIMIT)));
    let request = Request::from_http(request);
    let admitted = shared.admit(&request).await?;
    let (responses, pushes) = mpsc::channel(QUEUE);
    tokio::spawn(shared.serve(admitted, request.into_inner(), responses));
    let mut response = http::Response::new(Body::new(Responses::new(pushes)));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    Ok(response)
}

impl Shared {
    /// What those who ask about the proxies are answered from.
    fn questions(&self) -> Questions {
        Questions {
            mesh: self.hub.clone(),
            waypoints: self.waypoints.clone(),
            authenticator: self.authenticator.clone(),
            instance: self.instance.clone(),
            stop: self.stop.clone(),
        }
    }

    async fn admit(
        &self,
        request: &Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Admitted, Status> {
        let caller = self
            .authenticator
            .authenticate(request.metadata())
            .await
            .inspect_err(|status| {
                self.metrics.refused_streams.inc();
                let peer = request.remote_addr().map(|peer| peer.to_string());
                tracing::warn!(
                    src.addr = peer,
                    error = status.message(),
                    "an xDS client was refused"
                );
            })?;
        if self.roles.is_node_proxy(&caller) {
            return Ok(Admitted {
                caller,
                waypoint: None,
            });
        }
        if let Some(waypoint) = self.waypoint_of(&caller) {
            return Ok(Admitted {
                caller,
                waypoint: Some(waypoint),
            });
        }
        self.metrics.refused_streams.inc();
        tracing::warn!(src.identity = %caller, "an xDS client was refused: it is no node proxy (see --node-proxy-accounts), and its pod is no waypoint that is known (yet)");
        Err(Status::permission_denied(format!(
            "{caller} is neither a node proxy nor the pod of a waypoint: it is not allowed to read the mesh's configuration"
        )))
    }

    /// Whose pod the caller is, by its token alone: what it says of itself counts for nothing.
    fn waypoint_of(&self, caller: &Caller) -> Option<(Seat, Arc<Hub>)> {
        let pod = caller.pod.as_ref()?;
        let key = Key::new(caller.namespace.as_str(), pod.name.as_str());
        // Nobody is told to leave the seat as long as the index is held.
        let index = self.index.read();
        let seat = index.seat_of_instance(&key, &pod.uid, &caller.service_account)?;
        let hub = self.waypoints.hub(&seat);
        Some((seat, hub))
    }

    async fn serve(
        self: Arc<Self>,
        Admitted { caller, waypoint }: Admitted,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<Result<Push, Status>>,
    ) {
        let (seat, own) = waypoint.unzip();
        let number = self.hub.enter(&caller, seat);
        self.metrics.connected.inc();
        tracing::info!(src.identity = %caller, "xDS client connected");
        let reason = match self.converse(number, own, &mut requests, &responses).await {
            Ok(reason) => reason.to_owned(),
            Err(status) => {
                let reason = status.message().to_owned();
                // The client may be gone already: then nobody is there to be told.
                let _ = responses.send(Err(status)).await;
                reason
            }
        };
        self.hub.leave(number);
        self.metrics.connected.dec();
        tracing::info!(src.identity = %caller, reason, "xDS client disconnected");
    }

    async fn converse(
        &self,
        number: u64,
        waypoint: Option<Arc<Hub>>,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        responses: &mpsc::Sender<Result<Push, Status>>,
    ) -> Result<&'static str, Status> {
        let beside = waypoint.is_some();
        let (mut session, own) = match waypoint {
            Some(own) => (Session::of(Role::Waypoint), own),
            None => (Session::of(Role::NodeProxy), self.hub.clone()),
        };
        let (mut newest, mut mesh) = (own.follow(), self.hub.follow());
        let (mut ready, mut filled) = (self.hub.ready(), own.ready());
        let end = tokio::time::sleep(jittered(self.max_age));
        tokio::pin!(end);
        loop {
            let serving = *ready.borrow_and_update() && *filled.borrow_and_update();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Status::unavailable("control is stopping: connect to another replica")),
                () = own.dismissed() => return Ok("the waypoint is gone or the replica stands elsewhere: it connects anew"),
                () = &mut end => return Ok("the stream's time is over: the client shows its token again"),
                request = requests.message() => match request {
                    Ok(Some(request)) => self.hear(number, &mut session, request)?,
                    Ok(None) => return Ok("the client closed"),
                    Err(_) => return Ok("the connection broke"),
                },
                _ = newest.changed() => {}
                _ = mesh.changed(), if beside => {}
                _ = ready.changed(), if !serving => {}
                _ = filled.changed(), if !serving => {}
            }
            if *ready.borrow() && *filled.borrow() {
                let heard = newest.borrow_and_update().heard;
                mesh.borrow_and_update();
                let pushed = self
                    .push(number, &mut session, &own, responses, heard)
                    .await;
                self.record(number, &session);
                pushed?;
            }
        }
    }

    fn hear(
        &self,
        number: u64,
        session: &mut Session,
        request: DeltaDiscoveryRequest,
    ) -> Result<(), Status> {
        if let Some(node) = &request.node {
            let metadata = node.metadata.as_ref().map(|metadata| &metadata.fields);
            let version = metadata.and_then(|fields| fields.get("ISTIO_VERSION"));
            let version = match version.and_then(|value| value.kind.as_ref()) {
                Some(prost_types::value::Kind::StringValue(version)) => version.clone(),
                _ => String::new(),
            };
            self.hub.update(number, |client| {
                client.node.clone_from(&node.id);
                client.version = version;
            });
        }
        match session
            .handle(request)
            .map_err(|refusal| Status::invalid_argument(refusal.to_string()))?
        {
            Heard::Subscription(_) => {}
            Heard::Ack(kind) => self.metrics.acknowledged(kind, true),
            Heard::Nack(kind, message) => {
                self.metrics.acknowledged(kind, false);
                tracing::warn!(
                    r#type = kind.label(),
                    error = message,
                    "an xDS client refused resources; it keeps the last good ones"
                );
            }
        }
        Ok(())
    }

    async fn push(
        &self,
        number: u64,
        session: &mut Session,
        own: &Hub,
        responses: &mpsc::Sender<Result<Push, Status>>,
        heard: std::time::Instant,
    ) -> Result<(), Status> {
        loop {
            let begun = std::time::Instant::now();
            let next = self
                .next(session, own)
                .map_err(|behind| Status::resource_exhausted(behind.to_string()))?;
            let Some(push) = next else { return Ok(()) };
            let (kind, bytes) = (push.kind, push.body.len());
            if responses.send(Ok(push)).await.is_err() {
                return Ok(());
            }
            self.metrics.pushed(kind, bytes, begun.elapsed());
            self.hub.update(number, |client| {
                client.sent.insert(kind, SystemTime::now());
            });
            self.metrics
                .convergence
                .observe(heard.elapsed().as_secs_f64());
        }
    }

    fn next(&self, session: &mut Session, own: &Hub) -> Result<Option<Push>, Behind> {
        let store = own.store();
        // A node proxy's own store is the mesh's: it must not be locked twice.
        if std::ptr::eq(own, &*self.hub) {
            session.poll(&store)
        } else {
            session.poll_both(&store, &self.hub.store())
        }
    }

    fn record(&self, number: u64, session: &Session) {
        self.hub.update(number, |client| {
            client.progress = session
                .progress()
                .map(|(kind, progress)| (kind, progress.clone()))
                .collect();
        });
    }
}

/// Up to a tenth less, so that clients that connected together do not come back together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(1.0 - rand::random::<f64>() / 10.0)
}
