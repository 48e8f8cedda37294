//! The subscription over real connections: TLS, token, reconnection, and a control plane that the
//! test plays, stream by stream.

use std::net::SocketAddr;
use std::path::Path;

use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::proto::workload as proto;
use crate::world::World;

/// One stream as the control plane sees it.
struct Stream {
    headers: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

/// Hands each stream to the test.
struct Handover(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Handover {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let headers = request.metadata().clone();
        let (responses, queue) = mpsc::channel(4);
        if headers
            .get("authorization")
            .is_some_and(|token| token == "Bearer expired")
        {
            return Err(Status::unauthenticated("token has expired"));
        }
        let requests = request.into_inner();
        let stream = Stream {
            headers,
            requests,
            responses,
        };
        self.0
            .send(stream)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

impl Stream {
    /// The first two requests of a stream, one a type.
    async fn opening(&mut self) -> [DeltaDiscoveryRequest; 2] {
        [self.request().await, self.request().await]
    }

    async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests
            .message()
            .await
            .unwrap()
            .expect("the client ended the stream")
    }

    /// Sends a response and gives the answer to it.
    async fn push(&mut self, kind: Kind, uids: &[&str], removed: &[&str]) -> DeltaDiscoveryRequest {
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: format!("{uids:?}{removed:?}"),
            resources: uids.iter().map(|uid| workload(uid)).collect(),
            removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let nonce = response.nonce.clone();
        self.responses.send(Ok(response)).await.unwrap();
        let answer = self.request().await;
        assert_eq!(answer.response_nonce, nonce);
        answer
    }
}

fn workload(uid: &str) -> Resource {
    let workload = proto::Workload {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        ..proto::Workload::default()
    };
    let address = proto::Address {
        r#type: Some(proto::address::Type::Workload(workload)),
    };
    Resource {
        name: uid.to_owned(),
        version: "1".to_owned(),
        resource: Some(prost_types::Any {
            type_url: Kind::Address.type_url().to_owned(),
            value: address.encode_to_vec(),
        }),
        aliases: Vec::new(),
    }
}

/// A root, and a certificate for `localhost` and `istiod.test` from it.
fn certificates() -> (String, Identity) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let pem = root.self_signed(&root_key).unwrap().pem();
    let leaf = CertificateParams::new(["localhost".to_owned(), "istiod.test".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = leaf
        .signed_by(&key, &Issuer::from_params(&root, &root_key))
        .unwrap();
    (pem, Identity::from_pem(leaf.pem(), key.serialize_pem()))
}

/// Serves streams to the test on a port of its own.
async fn serve(identity: Option<Identity>) -> (SocketAddr, mpsc::Receiver<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handover, streams) = mpsc::channel(4);
    let mut server = Server::builder();
    if let Some(identity) = identity {
        server = server
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap();
    }
    let service = AggregatedDiscoveryServiceServer::new(Handover(handover));
    let serving = server.add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, streams)
}

fn config(address: String, folder: &Path) -> Config {
    std::fs::write(folder.join("token"), "first\n").unwrap();
    Config {
        address,
        root: Some(folder.join("root.pem")),
        server_name: None,
        token: Some(folder.join("token")),
        cluster_id: "Kubernetes".to_owned(),
        node: Node {
            ip: "10.0.0.1".to_owned(),
            pod: "ztunnel-abc".to_owned(),
            namespace: "istio-system".to_owned(),
            node_name: "node-1".to_owned(),
            metadata: [("MESH_ID".to_owned(), "m".to_owned())].into(),
        }
        .message("Kubernetes"),
    }
}

/// Waits until the counters say so.
async fn until(counters: &Counters, done: impl Fn(&Counters) -> bool) {
    let waiting = async {
        while !done(counters) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("the counters never said so");
}

#[tokio::test]
async fn a_world_is_filled_over_tls_and_kept_over_a_disconnect() {
    let folder = tempfile::tempdir().unwrap();
    let (root, identity) = certificates();
    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    let (address, mut streams) = serve(Some(identity)).await;
    let config = config(
        format!("https://localhost:{}", address.port()),
        folder.path(),
    );
    let world = SharedWorld::new(World::new("node-1"));
    let client = into_world(config, world.clone());
    let counters = client.counters();
    let running = tokio::spawn(client.run());

    let mut stream = streams.recv().await.unwrap();
    assert_eq!(stream.headers.get("authorization").unwrap(), "Bearer first");
    assert_eq!(stream.headers.get("clusterid").unwrap(), "Kubernetes");
    let [addresses, policies] = stream.opening().await;
    assert_eq!(addresses.type_url, Kind::Address.type_url());
    assert_eq!(policies.type_url, Kind::Authorization.type_url());
    assert!(policies.node.is_none(), "the node is named once a stream");
    let node = addresses.node.unwrap();
    assert_eq!(
        node.id,
        "ztunnel~10.0.0.1~ztunnel-abc.istio-system~istio-system.svc.cluster.local"
    );
    let fields = node.metadata.unwrap().fields;
    let text = |key: &str| match &fields[key].kind {
        Some(ValueKind::StringValue(text)) => text.clone(),
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!(text("NAME"), "ztunnel-abc");
    assert_eq!(text("NAMESPACE"), "istio-system");
    assert_eq!(text("INSTANCE_IPS"), "10.0.0.1");
    assert_eq!(text("NODE_NAME"), "node-1");
    assert_eq!(text("CLUSTER_ID"), "Kubernetes");
    assert_eq!(text("MESH_ID"), "m");

    stream.push(Kind::Address, &["a", "b"], &[]).await;
    stream.push(Kind::Authorization, &[], &[]).await;
    world.synced().await;
    assert_eq!(world.read().workloads().len(), 2);
    assert!(counters.connected());

    std::fs::write(folder.path().join("token"), "second\n").unwrap();
    drop(stream);
    let mut stream = streams.recv().await.unwrap();
    assert_eq!(
        stream.headers.get("authorization").unwrap(),
        "Bearer second"
    );
    let [addresses, _] = stream.opening().await;
    let mut known: Vec<_> = addresses.initial_resource_versions.into_iter().collect();
    known.sort();
    let version = |name: &str| (name.to_owned(), "1".to_owned());
    assert_eq!(known, [version("a"), version("b")]);
    assert_eq!(
        world.read().workloads().len(),
        2,
        "a disconnect lost what was known"
    );
    // `a` went while the client was away.
    stream.push(Kind::Address, &["c"], &["a"]).await;
    let mut held: Vec<_> = world
        .read()
        .workloads()
        .map(|workload| workload.uid.to_string())
        .collect();
    held.sort();
    assert_eq!(held, ["b", "c"]);
    assert_eq!(counters.terminations(Termination::Complete), 1);
    assert_eq!(counters.messages(Kind::Address.type_url()), 2);
    assert!(counters.bytes(Kind::Address.type_url()) > 0);
    running.abort();
}

#[tokio::test]
async fn a_wrong_root_is_refused_and_a_right_one_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, identity) = certificates();
    let (other_root, _) = certificates();
    std::fs::write(folder.path().join("root.pem"), other_root).unwrap();
    let (address, mut streams) = serve(Some(identity)).await;
    let config = config(
        format!("https://localhost:{}", address.port()),
        folder.path(),
    );
    let client = into_world(config, SharedWorld::new(World::new("node-1")));
    let counters = client.counters();
    let running = tokio::spawn(client.run());
    until(&counters, |c| {
        c.terminations(Termination::ConnectionError) >= 2
    })
    .await;
    assert!(!counters.connected());
    assert!(
        streams.try_recv().is_err(),
        "a control plane of another root was believed"
    );

    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    assert!(streams.recv().await.is_some());
    running.abort();
}

#[tokio::test]
async fn the_certificate_must_have_the_right_name() {
    let folder = tempfile::tempdir().unwrap();
    let (root, identity) = certificates();
    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    let (address, mut streams) = serve(Some(identity)).await;
    let by_ip = config(format!("https://{address}"), folder.path());
    let client = into_world(by_ip.clone(), SharedWorld::new(World::new("node-1")));
    let counters = client.counters();
    let running = tokio::spawn(client.run());
    until(&counters, |c| {
        c.terminations(Termination::ConnectionError) >= 1
    })
    .await;
    assert!(
        streams.try_recv().is_err(),
        "the certificate isn't for this address"
    );
    running.abort();

    let named = Config {
        server_name: Some("istiod.test".to_owned()),
        ..by_ip
    };
    let client = into_world(named, SharedWorld::new(World::new("node-1")));
    let running = tokio::spawn(client.run());
    assert!(streams.recv().await.is_some());
    running.abort();
}

#[tokio::test]
async fn a_refused_token_is_tried_again_when_it_is_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (address, mut streams) = serve(None).await;
    let config = config(format!("http://{address}"), folder.path());
    std::fs::write(folder.path().join("token"), "expired").unwrap();
    let client = into_world(config, SharedWorld::new(World::new("node-1")));
    let counters = client.counters();
    let running = tokio::spawn(client.run());
    until(&counters, |c| c.terminations(Termination::Error) >= 2).await;
    std::fs::write(folder.path().join("token"), "renewed").unwrap();
    let stream = streams.recv().await.unwrap();
    assert_eq!(
        stream.headers.get("authorization").unwrap(),
        "Bearer renewed"
    );
    running.abort();
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let world = || SharedWorld::new(World::new("node-1"));
    let good = config("https://localhost:1".to_owned(), folder.path());
    let error = |config: Config| async move {
        let mut client = into_world(config, world());
        client.once().await.unwrap_err().to_string()
    };
    let no_file = error(good.clone()).await;
    assert!(
        no_file.contains("can't read root certificate") && no_file.contains("root.pem"),
        "{no_file}"
    );
    let no_root = error(Config {
        root: None,
        ..good.clone()
    })
    .await;
    assert!(
        no_root.contains("no root certificate to verify it is configured"),
        "{no_root}"
    );
    let nobody = error(Config {
        address: "http://127.0.0.1:1".to_owned(),
        ..good.clone()
    })
    .await;
    assert!(
        nobody.contains("can't connect to http://127.0.0.1:1") && nobody.contains("refused"),
        "{nobody}"
    );
    let no_address = error(Config {
        address: "not an address".to_owned(),
        ..good.clone()
    })
    .await;
    assert!(
        no_address.contains("is no address of a control plane"),
        "{no_address}"
    );
    let (address, _streams) = serve(None).await;
    let config = Config {
        address: format!("http://{address}"),
        ..good
    };
    std::fs::write(folder.path().join("token"), " \n").unwrap();
    let no_token = error(config.clone()).await;
    assert!(no_token.contains("holds no token"), "{no_token}");
    std::fs::write(folder.path().join("token"), "expired").unwrap();
    let refused = error(config).await;
    assert!(refused.contains("for another audience"), "{refused}");
}
