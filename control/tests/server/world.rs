//! A control plane on a loopback port, its objects given by the test, tokens reviewed by a table.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::authentication::{Authenticator, BoundPod, Caller, ReviewError, Reviewer, Roles};
use control::ca::authority::{Authority, Material};
use control::ca::current::Current;
use control::ca::service::{Certificates, Lifetimes};
use control::index::Index;
use control::kubernetes::watch::Report;
use control::metrics::Metrics;
use control::objects::{AuthorizationPolicy, Change, Kind, Object, Pod, Service};
use control::pilot::Pilot;
use control::status::writer::Queue;
use control::translate::Mesh;
use control::xds::debug::Instance;
use control::xds::fleet::Fleet;
use control::xds::hub::Hub;
use control::xds::service::{Discovery, Sources};
use control::{server, tls};
use futures_util::future::BoxFuture;
use mesh::identity::TrustDomain;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// The token of ztunnel on node-a.
pub(crate) const ZTUNNEL: &str = "ztunnel-a";
/// The token of an ordinary workload.
pub(crate) const SLEEP: &str = "sleep";

/// The token of a waypoint's pod.
pub(crate) const WAYPOINT: &str = "waypoint-1";
/// The token of another replica of it.
pub(crate) const WAYPOINT_2: &str = "waypoint-2";
/// The token of a replica of a waypoint beside it.
pub(crate) const NEIGHBOUR: &str = "neighbour-1";
/// The token of a pod that has a waypoint's label and not its account.
pub(crate) const FORGED: &str = "forged-1";

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

struct Table;

impl Reviewer for Table {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, ReviewError>> {
        let caller = |namespace: &str, account: &str, pod: &str| {
            let pod = BoundPod {
                name: pod.to_owned(),
                uid: format!("uid-{pod}"),
            };
            Caller {
                namespace: namespace.to_owned(),
                service_account: account.to_owned(),
                pod: Some(pod),
            }
        };
        let answer = match token {
            ZTUNNEL => Ok(caller("istio-system", "ztunnel", "ztunnel-a")),
            WAYPOINT => Ok(caller("shop", "waypoint", "waypoint-1")),
            WAYPOINT_2 => Ok(caller("shop", "waypoint", "waypoint-2")),
            NEIGHBOUR => Ok(caller("shop", "neighbour", "neighbour-1")),
            FORGED => Ok(caller("shop", "sleep", "forged-1")),
            SLEEP => Ok(caller("default", "sleep", "sleep-1")),
            "down" => Err(ReviewError::Unavailable("no API server".to_owned())),
            _ => Err(ReviewError::Refused("not known".to_owned())),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// A running control plane.
pub(crate) struct World {
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) root: String,
    pub(crate) stop: CancellationToken,
    address: String,
    pilot: Pilot,
}

impl World {
    /// One that has not listed anything yet.
    pub(crate) async fn starting(max_age: Duration) -> Self {
        let hub = Arc::new(Hub::default());
        let metrics = Arc::new(Metrics::default());
        let index = Arc::new(RwLock::new(Index::new(Mesh::default())));
        let fleet = Arc::new(Fleet::default());
        let pilot = Pilot::new(
            index.clone(),
            hub.clone(),
            fleet.clone(),
            Arc::new(Queue::default()),
            metrics.clone(),
        );
        let now = time::OffsetDateTime::now_utc();
        let authority =
            Authority::load(&Material::generate("cluster.local", now).unwrap()).unwrap();
        let root = authority.root().to_owned();
        let authority = Arc::new(Current::new(authority));
        let tls = tls::Server::new(&authority.load(), &["istiod.istio-system.svc".to_owned()])
            .unwrap()
            .config()
            .unwrap();
        let authenticator = Arc::new(Authenticator::new(Table));
        let roles = Roles::new(["istio-system/ztunnel"]).unwrap();
        let stop = CancellationToken::new();
        let sources = Sources {
            mesh: hub.clone(),
            waypoints: fleet,
            index: index.clone(),
            instance: Arc::new(Instance {
                name: "control-1".to_owned(),
                namespace: "istio-system".to_owned(),
                cluster: "Kubernetes".to_owned(),
            }),
        };
        let discovery = Discovery::new(
            sources,
            authenticator.clone(),
            roles.clone(),
            metrics.clone(),
            max_age,
            stop.clone(),
        );
        let lifetimes = Lifetimes {
            default: time::Duration::hours(24),
            max: time::Duration::hours(24),
        };
        let trust_domain = TrustDomain::new("cluster.local").unwrap();
        let pods = (index, pilot.pods());
        let certificates = Certificates::new(
            authority,
            authenticator,
            roles,
            trust_domain,
            lifetimes,
            pods,
            metrics.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve(
            listener,
            tls,
            discovery,
            certificates,
            stop.clone(),
        ));
        Self {
            hub,
            metrics,
            root,
            stop,
            address,
            pilot,
        }
    }

    /// One that serves an empty cluster.
    pub(crate) async fn empty() -> Self {
        let mut world = Self::starting(Duration::from_secs(3600)).await;
        world.listed();
        world
    }

    /// Everything is listed, and there is nothing.
    pub(crate) fn listed(&mut self) {
        let reports = Kind::ALL
            .into_iter()
            .map(|kind| Report::Listed(kind, HashSet::new()))
            .collect();
        self.pilot.take(reports, Instant::now());
    }

    /// Objects changed.
    pub(crate) fn change(&mut self, changes: impl IntoIterator<Item = Change>) {
        let reports = changes.into_iter().map(Report::Change).collect();
        self.pilot.take(reports, Instant::now());
    }

    /// A connection that trusts this control plane.
    pub(crate) async fn connect(&self) -> Channel {
        self.try_connect(&self.root, "istiod.istio-system.svc")
            .await
            .unwrap()
    }

    /// A connection that trusts `root` and expects `name`.
    pub(crate) async fn try_connect(
        &self,
        root: &str,
        name: &str,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(root))
            .domain_name(name);
        Endpoint::from_shared(self.address.clone())
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A request with a token.
pub(crate) fn with_token<T>(message: T, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// A pod on node-a.
pub(crate) fn pod(namespace: &str, name: &str, account: &str, node: &str) -> Change {
    let object = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": []},
        "status": {"podIP": "10.0.0.1"},
    });
    let pod = Pod::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap();
    Change::Applied(Object::Pod(Box::new(pod)))
}

/// A service.
pub(crate) fn service(name: &str) -> Change {
    let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {"app": name}}});
    let service = Service::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap();
    Change::Applied(Object::Service(Box::new(service)))
}

/// An AuthorizationPolicy.
pub(crate) fn policy(name: &str, spec: Value) -> Change {
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    });
    let policy = AuthorizationPolicy::from(&serde_json::from_value(object).unwrap());
    Change::Applied(Object::AuthorizationPolicy(Box::new(policy)))
}
