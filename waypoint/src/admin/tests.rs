//! The admin interface as its clients see it, over real connections.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

use super::*;
use crate::source::json::Descriptors;

/// Resources that stand still.
#[derive(Default)]
struct Still {
    resources: HashMap<Kind, Vec<(Arc<str>, Raw)>>,
    refused: Vec<(Kind, Arc<str>, String)>,
    complete: AtomicBool,
}

impl Taken for Still {
    fn resources(&self, kind: Kind) -> Vec<(Arc<str>, Raw)> {
        self.resources.get(&kind).cloned().unwrap_or_default()
    }

    fn refused(&self) -> Vec<(Kind, Arc<str>, String)> {
        self.refused.clone()
    }

    fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }
}

struct Process {
    taken: Arc<Still>,
    draining: Draining,
    ports: [std::net::SocketAddr; 3],
}

/// A process with one good cluster and one that was refused.
async fn process() -> Process {
    let cluster = json!({
        "@type": Kind::Cluster.type_url(),
        "name": "reviews",
        "type": "STATIC",
        "connect_timeout": "10s",
    });
    let any = Descriptors::get().any(cluster).unwrap();
    let raw = Raw {
        bytes: Bytes::from(any.value),
        version: "7".into(),
        taken: Instant::now(),
    };
    let taken = Arc::new(Still {
        resources: HashMap::from([(Kind::Cluster, vec![("reviews".into(), raw)])]),
        refused: vec![(
            Kind::Cluster,
            "ratings".into(),
            "lb_policy: 99 is none".to_owned(),
        )],
        complete: AtomicBool::new(false),
    });
    let (_, ask) = mesh::stop::Stop::listen().unwrap();
    let draining = Draining::default();
    let current = Current::default();
    current.listening();
    let admin = Arc::new(Admin {
        taken: Arc::clone(&taken) as Arc<dyn Taken>,
        current,
        secrets: Secrets::default(),
        upstream: upstream::Shared::default(),
        telemetry: Telemetry::default(),
        plugins: Default::default(),
        log: LogFilter::apart("info").unwrap(),
        stop: ask,
        drain: AskToDrain::new().0,
        draining: draining.clone(),
        node: json!({"id": "waypoint~10.0.0.1~w.ns~ns.svc.cluster.local"}),
        started: Instant::now(),
    });
    let mut ports = Vec::new();
    for face in [Face::Admin, Face::Metrics, Face::Health] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap());
        tokio::spawn(Arc::clone(&admin).serve(listener, face));
    }
    Process {
        taken,
        draining,
        ports: ports.try_into().unwrap(),
    }
}

impl Process {
    async fn ask(&self, face: Face, method: Method, path: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.ports[face as usize]).await.unwrap();
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        let answer = send
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, face: Face, path: &str) -> (StatusCode, String) {
        self.ask(face, Method::GET, path).await
    }
}

#[tokio::test]
async fn readiness_follows_the_configuration_and_the_end() {
    let process = process().await;
    let unready = (
        StatusCode::SERVICE_UNAVAILABLE,
        "PRE_INITIALIZING\n".to_owned(),
    );
    assert_eq!(process.get(Face::Health, "/healthz/ready").await, unready);
    process.taken.complete.store(true, Ordering::Relaxed);
    let (status, _) = process.get(Face::Health, "/healthz/ready").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(process.get(Face::Admin, "/ready").await.1, "LIVE\n");
    process.draining.begin();
    let (status, said) = process.get(Face::Health, "/healthz/ready").await;
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n")
    );
}

#[tokio::test]
async fn the_dump_shows_what_was_taken_and_what_was_refused() {
    let process = process().await;
    let (status, body) = process.get(Face::Admin, "/config_dump?include_eds").await;
    assert_eq!(status, StatusCode::OK);
    let dump: Value = serde_json::from_str(&body).unwrap();
    let of = |name: &str| {
        let configs = dump["configs"].as_array().unwrap();
        let found = configs
            .iter()
            .find(|config| config["@type"].as_str().unwrap().ends_with(name));
        found.unwrap().clone()
    };
    assert_eq!(
        of("BootstrapConfigDump")["bootstrap"]["node"]["id"],
        "waypoint~10.0.0.1~w.ns~ns.svc.cluster.local"
    );
    let clusters = of("ClustersConfigDump");
    let first = &clusters["dynamic_active_clusters"][0];
    assert_eq!(first["version_info"], "7");
    assert_eq!(first["cluster"]["name"], "reviews");
    assert_eq!(first["cluster"]["connect_timeout"], "10s");
    let second = &clusters["dynamic_active_clusters"][1];
    assert_eq!(second["name"], "ratings");
    assert_eq!(second["error_state"]["details"], "lb_policy: 99 is none");
    // Envoy's own type takes all of it: istioctl parses it so.
    let mut typed = clusters.clone();
    typed["dynamic_active_clusters"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let message = Descriptors::get().any(typed).unwrap();
    assert!(message.encoded_len() > 0);
}

#[tokio::test]
async fn each_port_shows_its_own_pages_only() {
    let process = process().await;
    for (face, path, status) in [
        (Face::Metrics, "/stats/prometheus", StatusCode::OK),
        (Face::Metrics, "/metrics", StatusCode::OK),
        (Face::Metrics, "/config_dump", StatusCode::NOT_FOUND),
        (Face::Health, "/quitquitquit", StatusCode::NOT_FOUND),
        (Face::Admin, "/stats", StatusCode::OK),
        (Face::Admin, "/nowhere", StatusCode::NOT_FOUND),
        (Face::Admin, "/quitquitquit", StatusCode::METHOD_NOT_ALLOWED),
        (
            Face::Admin,
            "/logging?level=debug",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Face::Admin,
            "/debug/pprof/profile?seconds=0",
            StatusCode::BAD_REQUEST,
        ),
    ] {
        assert_eq!(process.get(face, path).await.0, status, "{face:?} {path}");
    }
    let (_, metrics) = process.get(Face::Metrics, "/stats/prometheus").await;
    assert!(
        metrics.contains("istio_build{component=\"proxy\""),
        "{metrics}"
    );
    let (status, said) = process
        .ask(Face::Admin, Method::POST, "/logging?level=debug")
        .await;
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::OK, "active loggers:\n  waypoint: debug\n")
    );
}
