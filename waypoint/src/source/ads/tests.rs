//! A waypoint against a control plane that the test plays over a real stream, with what the real
//! istiod sent, byte for byte.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use mesh::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};
use prost_types::Any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::model::snapshot::Current;
use crate::source::envoy::Envoy;
use crate::source::secret::Secrets;
use crate::source::store::Store;

/// One stream as the control plane sees it.
struct Stream {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonce: u32,
}

struct Handover(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Handover {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::channel(8);
        let stream = Stream {
            requests: request.into_inner(),
            responses,
            nonce: 0,
        };
        let handed = self.0.send(stream).await;
        handed.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

impl Stream {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        let request = tokio::time::timeout(Duration::from_secs(20), self.requests.message());
        let request = request.await.expect("the client asks for nothing");
        request.unwrap().expect("the client ended the stream")
    }

    async fn send(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[&str]) {
        self.nonce += 1;
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            resources,
            removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
    }

    /// Sends resources and gives the answer to them.
    async fn push(
        &mut self,
        kind: Kind,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        self.send(kind, resources, removed).await;
        let answer = self.request().await;
        assert_eq!(answer.response_nonce, self.nonce.to_string());
        answer
    }
}

/// What istiod sent for Bookinfo, of one kind.
fn istiod(kind: Kind) -> Vec<Resource> {
    let mut all = sent(include_str!(
        "../../../tests/fixtures/istiod/bookinfo.pb.json"
    ));
    all.retain(|it| it.resource.as_ref().unwrap().type_url == kind.type_url());
    all
}

/// Resources as they were recorded.
fn sent(text: &str) -> Vec<Resource> {
    let all: Value = serde_json::from_str(text).unwrap();
    let all = all
        .get("resources")
        .unwrap_or(&all)
        .as_array()
        .unwrap()
        .iter();
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    all.map(|resource| Resource {
        name: text(resource, "name"),
        version: text(resource, "version"),
        resource: Some(Any {
            type_url: text(resource, "type_url"),
            value: base64::prelude::BASE64_STANDARD
                .decode(text(resource, "value"))
                .unwrap(),
        }),
        aliases: Vec::new(),
    })
    .collect()
}

struct World {
    streams: mpsc::Receiver<Stream>,
    current: Current,
    feed: Feed<Envoy>,
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (handover, streams) = mpsc::channel(4);
    let service = AggregatedDiscoveryServiceServer::new(Handover(handover));
    let serving = Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let current = Current::default();
    let store = Store::new(Envoy::default(), Secrets::default(), current.clone());
    let feed = Feed::new(store);
    tokio::spawn(feed.clone().run());
    let config = xds::Config {
        address: format!("http://{address}"),
        root: None,
        server_name: None,
        token: None,
        cluster_id: "Kubernetes".to_owned(),
        node: Node {
            id: "waypoint~10.0.0.1~w.bookinfo~bookinfo.svc.cluster.local".to_owned(),
            ..Node::default()
        },
    };
    tokio::spawn(client(config, feed.clone()).run());
    World {
        streams,
        current,
        feed,
    }
}

impl World {
    /// Waits until a snapshot of at least this version is published.
    async fn version(&self, version: u64) {
        let mut changes = self.current.changes();
        let published = changes.wait_for(|now| *now >= version);
        let published = tokio::time::timeout(Duration::from_secs(20), published);
        published.await.expect("it was never published").unwrap();
    }
}

const REVIEWS: &str = "inbound-vip|9080|http/v1|reviews.bookinfo.svc.cluster.local";

#[tokio::test]
async fn istiods_push_is_served_as_a_whole_and_kept_over_a_disconnect() {
    let mut world = world().await;
    let mut stream = world.streams.recv().await.unwrap();
    let opening = [
        stream.request().await,
        stream.request().await,
        stream.request().await,
    ];
    let types: Vec<_> = opening
        .iter()
        .map(|request| request.type_url.as_str())
        .collect();
    let all = [Kind::Cluster, Kind::Listener, Kind::Workload];
    assert_eq!(types, all.map(Kind::type_url));
    assert!(
        opening
            .iter()
            .all(|it| it.resource_names_subscribe == ["*"])
    );
    assert!(opening[0].node.is_some() && opening[1].node.is_none());

    let answer = stream.push(Kind::Cluster, istiod(Kind::Cluster), &[]).await;
    assert_eq!(answer.error_detail, None);
    let endpoints = stream.request().await;
    assert_eq!(endpoints.type_url, Kind::Endpoints.type_url());
    assert!(
        endpoints
            .resource_names_subscribe
            .contains(&REVIEWS.to_owned())
    );
    let answer = stream
        .push(Kind::Listener, istiod(Kind::Listener), &[])
        .await;
    assert_eq!(answer.error_detail, None);
    let answer = stream
        .push(Kind::Workload, istiod(Kind::Workload), &[])
        .await;
    assert_eq!(answer.error_detail, None);
    assert!(
        !world.feed.look(|store| store.is_ready()),
        "endpoints are missing"
    );
    let answer = stream
        .push(Kind::Endpoints, istiod(Kind::Endpoints), &[])
        .await;
    assert_eq!(answer.error_detail, None);
    world.version(1).await;
    let snapshot = world.current.snapshot();
    assert!(
        !snapshot.clusters[REVIEWS]
            .endpoints
            .load()
            .localities
            .is_empty()
    );

    drop(stream);
    let mut stream = world.streams.recv().await.unwrap();
    let clusters = stream.request().await;
    assert_eq!(
        clusters.initial_resource_versions.len(),
        istiod(Kind::Cluster).len()
    );
    let endpoints = stream.request().await;
    assert_eq!(endpoints.type_url, Kind::Endpoints.type_url());
    assert_eq!(
        endpoints.initial_resource_versions.len(),
        endpoints.resource_names_subscribe.len()
    );
    assert!(Arc::ptr_eq(&snapshot, &world.current.snapshot()));
}

#[tokio::test]
async fn a_filter_is_asked_for_by_name_and_a_bad_one_is_refused_by_it() {
    let mut world = world().await;
    let mut stream = world.streams.recv().await.unwrap();
    for _ in 0..3 {
        stream.request().await;
    }
    let text = include_str!("../../../tests/fixtures/istiod/plugins.pb.json");
    let all = sent(text);
    let of = |kind: Kind| {
        let all = all.iter();
        let all = all.filter(|it| it.resource.as_ref().unwrap().type_url == kind.type_url());
        all.cloned().collect::<Vec<_>>()
    };
    // Of its listeners only one that has plugins.
    let listeners = of(Kind::Listener).into_iter();
    let listeners: Vec<_> = listeners.filter(|it| it.name == "main_internal").collect();
    stream.push(Kind::Cluster, Vec::new(), &[]).await;
    stream.push(Kind::Listener, listeners, &[]).await;
    let asked = stream.request().await;
    assert_eq!(asked.type_url, Kind::Extension.type_url());
    let [name] = &asked.resource_names_subscribe[..] else {
        panic!("{asked:?}");
    };
    assert!(!world.feed.look(|store| store.is_ready()));
    let mut extensions = of(Kind::Extension);
    extensions.retain(|it| it.name == *name);
    let mut bad = extensions.clone();
    bad[0].resource.as_mut().unwrap().value.push(0xff);
    let answer = stream.push(Kind::Extension, bad, &[]).await;
    let refused = answer.error_detail.unwrap().message;
    assert!(refused.starts_with(name.as_str()), "{refused}");
    // Its requests are answered with an error, until a good one comes whose code is there.
    world.version(1).await;
    assert!(world.current.snapshot().extensions.is_empty());
    let answer = stream.push(Kind::Extension, extensions, &[]).await;
    assert_eq!(answer.error_detail, None);
    let plugins = world.feed.look(|store| store.take_plugins());
    let failed = crate::model::wasm::Module::Failed("no such registry".into());
    plugins[0].module.store(Arc::new(failed));
    world.feed.loaded();
    world.version(2).await;
    assert!(
        world
            .current
            .snapshot()
            .extensions
            .contains_key(name.as_str())
    );
}

#[tokio::test]
async fn one_bad_resource_is_named_and_the_rest_is_in_force() {
    let mut world = world().await;
    let mut stream = world.streams.recv().await.unwrap();
    for _ in 0..3 {
        stream.request().await;
    }
    let mut clusters = istiod(Kind::Cluster);
    let broken = clusters.iter_mut().find(|it| it.name == REVIEWS).unwrap();
    broken.resource.as_mut().unwrap().value.push(0xff);
    let answer = stream.push(Kind::Cluster, clusters, &[]).await;
    let refused = answer.error_detail.unwrap().message;
    assert!(refused.starts_with(REVIEWS), "{refused}");
    assert!(!refused.contains("; "), "only one is bad: {refused}");
    let names = stream.request().await.resource_names_subscribe;
    assert!(!names.contains(&REVIEWS.to_owned()));
    stream
        .push(Kind::Listener, istiod(Kind::Listener), &[])
        .await;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    // There are none of these, the control plane says.
    stream.push(Kind::Endpoints, Vec::new(), &names).await;
    world.version(1).await;
    let snapshot = world.current.snapshot();
    assert!(!snapshot.clusters.contains_key(REVIEWS));
    assert!(snapshot.listeners.contains_key("main_internal"));

    // The next version of it is good.
    let good = istiod(Kind::Cluster)
        .into_iter()
        .filter(|it| it.name == REVIEWS);
    let answer = stream.push(Kind::Cluster, good.collect(), &[]).await;
    assert_eq!(answer.error_detail, None);
    let more = stream.request().await;
    assert_eq!(more.resource_names_subscribe, [REVIEWS]);
    let endpoints = istiod(Kind::Endpoints).into_iter();
    let endpoints = endpoints.filter(|it| it.name == REVIEWS).collect();
    stream.push(Kind::Endpoints, endpoints, &[]).await;
    world.version(2).await;
    assert!(world.current.snapshot().clusters.contains_key(REVIEWS));
}
