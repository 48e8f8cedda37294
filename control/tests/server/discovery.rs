//! Node proxies over the wire.

use std::time::Duration;

use control::admin;
use mesh::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::world::*;

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// A node proxy's end of the stream.
pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
}

impl Proxy {
    pub(crate) async fn connect(world: &World, token: Option<&str>) -> Result<Self, tonic::Status> {
        let (requests, stream) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(stream), token);
        let mut client = AggregatedDiscoveryServiceClient::new(world.connect().await);
        let responses = client
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub(crate) async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&self, url: &str, known: &[(String, String)]) {
        let node = Node {
            id: "ztunnel~10.0.0.9~ztunnel-a.istio-system~istio-system.svc.cluster.local".to_owned(),
            ..Node::default()
        };
        self.send(DeltaDiscoveryRequest {
            node: Some(node),
            type_url: url.to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: known.iter().cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| Status {
                code: 3,
                message: message.to_owned(),
            }),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("a response in time");
        message.map(|response| response.expect("the stream is open"))
    }

    /// The names that the next response sends and removes; it is acknowledged.
    pub(crate) async fn take(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.next().await.unwrap();
        self.answer(&response, None).await;
        (
            response
                .resources
                .into_iter()
                .map(|resource| resource.name)
                .collect(),
            response.removed_resources,
        )
    }

    /// How the stream ends, whatever comes before.
    pub(crate) async fn ended(&mut self) -> Result<(), tonic::Status> {
        let end = async {
            while self.responses.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(PATIENCE, end).await.expect("an end")
    }

    pub(crate) async fn silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(200), self.responses.message())
            .await
            .is_err()
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn changes_reach_a_connected_proxy() {
    let mut world = World::empty().await;
    world.change([service("web")]);
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(ADDRESS, &[]).await;
    assert_eq!(
        proxy.take().await,
        (
            names(&["default/web.default.svc.cluster.local"]),
            names(&[])
        )
    );
    proxy.subscribe(AUTHORIZATION, &[]).await;
    assert_eq!(proxy.take().await, (names(&[]), names(&[])));
    world.change([
        pod("default", "web", "web", "node-a"),
        policy("p", json!({})),
    ]);
    assert_eq!(proxy.take().await, (names(&["default/p"]), names(&[])));
    assert_eq!(
        proxy.take().await,
        (names(&["Kubernetes//Pod/default/web"]), names(&[]))
    );
    world.change([service("web")]);
    assert!(proxy.silent().await, "the same again is no change");
}

#[tokio::test]
async fn a_proxy_that_reconnects_is_sent_only_what_it_lacks() {
    let mut world = World::empty().await;
    world.change([service("a"), service("b")]);
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(ADDRESS, &[]).await;
    let first = proxy.next().await.unwrap();
    let mut known: Vec<(String, String)> = first
        .resources
        .into_iter()
        .map(|resource| (resource.name, resource.version))
        .collect();
    drop(proxy);
    known.push((
        "default/gone.default.svc.cluster.local".to_owned(),
        "1".to_owned(),
    ));
    world.change([service("c")]);
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(ADDRESS, &known).await;
    let expected = (
        names(&["default/c.default.svc.cluster.local"]),
        names(&["default/gone.default.svc.cluster.local"]),
    );
    assert_eq!(proxy.take().await, expected);
}

#[tokio::test]
async fn nobody_is_served_before_the_cluster_is_known() {
    let mut world = World::starting(Duration::from_secs(3600)).await;
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy
        .subscribe(ADDRESS, &[("x".to_owned(), "1".to_owned())])
        .await;
    assert!(
        proxy.silent().await,
        "it would be told to forget what it knows"
    );
    world.listed();
    assert_eq!(proxy.take().await, (names(&[]), names(&["x"])));
}

#[tokio::test]
async fn a_caller_without_the_right_token_gets_nothing() {
    let world = World::empty().await;
    let code = async |token| Proxy::connect(&world, token).await.err().unwrap().code();
    assert_eq!(code(None).await, Code::Unauthenticated);
    assert_eq!(code(Some("wrong")).await, Code::Unauthenticated);
    assert_eq!(code(Some(SLEEP)).await, Code::PermissionDenied);
    assert_eq!(code(Some("down")).await, Code::Unavailable);
    assert!(
        world
            .metrics
            .text()
            .contains("culvert_control_xds_refused_total 4")
    );
}

#[tokio::test]
async fn a_client_that_trusts_another_root_or_name_does_not_connect() {
    let (world, other) = (World::empty().await, World::empty().await);
    assert!(
        world
            .try_connect(&other.root, "istiod.istio-system.svc")
            .await
            .is_err()
    );
    assert!(
        world
            .try_connect(&world.root, "istiod.elsewhere.svc")
            .await
            .is_err()
    );
    assert!(
        world
            .try_connect(&world.root, "istiod.istio-system.svc")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_refusal_is_counted_and_shown() {
    let mut world = World::empty().await;
    world.change([policy("p", json!({}))]);
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(AUTHORIZATION, &[]).await;
    let response = proxy.next().await.unwrap();
    proxy.answer(&response, Some("default/p: can't")).await;
    // The next change is sent after the refusal was taken in.
    world.change([policy("q", json!({}))]);
    assert_eq!(proxy.take().await.0, names(&["default/q"]));
    let syncz = admin::syncz(&world.hub);
    let client = &syncz["clients"][0];
    assert_eq!(
        client["proxy"],
        "ztunnel~10.0.0.9~ztunnel-a.istio-system~istio-system.svc.cluster.local"
    );
    assert_eq!(client["types"][AUTHORIZATION]["nacks"], 1);
    assert_eq!(
        client["types"][AUTHORIZATION]["lastNack"],
        "default/p: can't"
    );
    let metrics = world.metrics.text();
    assert!(
        metrics.contains(r#"culvert_control_xds_answers_total{type="wads",answer="nack"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"pilot_xds_pushes{type="wads"} 2"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_unknown_type_ends_the_stream_with_a_reason() {
    let world = World::empty().await;
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy
        .subscribe("type.googleapis.com/envoy.config.cluster.v3.Cluster", &[])
        .await;
    let status = proxy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Cluster"), "{status}");
}

#[tokio::test]
async fn stopping_tells_clients_to_go_elsewhere() {
    let world = World::empty().await;
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(ADDRESS, &[]).await;
    proxy.take().await;
    world.stop.cancel();
    assert_eq!(proxy.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_ends_with_its_time() {
    let mut world = World::starting(Duration::from_millis(300)).await;
    world.listed();
    let mut proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
    proxy.subscribe(ADDRESS, &[]).await;
    proxy.take().await;
    let end = tokio::time::timeout(PATIENCE, proxy.responses.message())
        .await
        .expect("an end in time");
    assert!(end.unwrap().is_none(), "an orderly end");
}

#[tokio::test]
async fn many_proxies_and_many_resources() {
    let mut world = World::empty().await;
    world.change((0..2000).map(|number| service(&format!("s{number}"))));
    let mut proxies = Vec::new();
    for _ in 0..20 {
        let proxy = Proxy::connect(&world, Some(ZTUNNEL)).await.unwrap();
        proxy.subscribe(ADDRESS, &[]).await;
        proxies.push(proxy);
    }
    for proxy in &mut proxies {
        assert_eq!(proxy.take().await.0.len(), 2000);
    }
    world.change([service("one-more")]);
    for proxy in &mut proxies {
        assert_eq!(
            proxy.take().await.0,
            names(&["default/one-more.default.svc.cluster.local"])
        );
    }
}
