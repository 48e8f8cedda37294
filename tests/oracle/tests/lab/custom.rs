//! A policy with action CUSTOM for an opaque port, from the object to the connection: control makes the
//! waypoint's resources of it, the waypoint asks a service over gRPC, and what that says becomes of connections
//! that came through ztunnel.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use control::index::Index;
use control::objects::{
    AuthorizationPolicy, Change, Gateway, GatewayClass, Key, Kind, MeshConfig, Namespace, Object,
    Pod, Service,
};
use control::translate::Mesh;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::google::rpc;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::patience;
use parking_lot::Mutex;
use prost::Message;
use prost_types::Any;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::{PORT, SOON, Scene, said};

/// The service's port: declared to be neither HTTP nor anything else that is looked into.
const OPAQUE: u16 = 9000;
/// gRPC's status of a refusal.
const DENIED: i32 = 7;

/// A service that allows one caller, and remembers who it was asked about.
struct Authoriser {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    running: AbortHandle,
}

impl Authoriser {
    fn start(listener: std::net::TcpListener, allowed: String) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (at, asked) = (listener.local_addr()?, Arc::default());
        let known = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (allowed, known) = (allowed.clone(), Arc::clone(&known));
                let service =
                    service_fn(move |request| decide(request, allowed.clone(), Arc::clone(&known)));
                let served = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(served);
            }
        });
        let running = serving.abort_handle();
        Ok(Self { at, asked, running })
    }
}

type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

/// `envoy.service.auth.v3.Authorization/Check`.
async fn decide(
    request: Request<Incoming>,
    allowed: String,
    asked: Arc<Mutex<Vec<String>>>,
) -> Result<Response<StreamBody<Frames>>> {
    let body = request.into_body().collect().await?.to_bytes();
    // Before the message stand its length and whether it is compressed.
    let request = auth::CheckRequest::decode(body.get(5..).unwrap_or_default())?;
    let source = request.attributes.and_then(|attributes| attributes.source);
    let caller = source.context("a connection has a source")?.principal;
    let code = if caller == allowed { 0 } else { DENIED };
    asked.lock().push(caller);
    let answer = auth::CheckResponse {
        status: Some(rpc::Status {
            code,
            ..Default::default()
        }),
        ..Default::default()
    };
    let message = answer.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.extend_from_slice(&message);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = vec![
        Ok(Frame::data(framed.freeze())),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(Response::builder()
        .header("content-type", "application/grpc")
        .body(body)?)
}

fn read<T: DeserializeOwned>(object: Value) -> Result<T> {
    let what = object["metadata"]["name"].to_string();
    serde_json::from_value(object).context(what)
}

/// What control knows of the lab: the service and its pod, the service that decides, and the waypoint.
fn cluster(scene: &Scene, authoriser: SocketAddr) -> Result<Index> {
    let mut index = Index::new(Mesh::default());
    let pod = |name: &str, address: String, enrolled: bool| {
        let redirection = if enrolled { "enabled" } else { "none" };
        json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": name, "labels": {"app": name},
                "annotations": {"ambient.istio.io/redirection": redirection},
            },
            "spec": {"nodeName": "node-1", "serviceAccountName": name, "containers": []},
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    };
    let service = |name: &str, spoken: &str, address: &str, target: u16| {
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "selector": {"app": name},
                "ports": [{"name": spoken, "port": OPAQUE, "targetPort": target}],
            },
        })
    };
    let mesh = format!(
        "extensionProviders: [{{name: ask, envoyExtAuthzGrpc: {{service: ask.default.svc.cluster.local, port: {OPAQUE}}}}}]"
    );
    let mesh = json!({
        "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh},
    });
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": "istio.io/mesh-controller"},
    });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "way", "namespace": "default", "uid": "way"},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "Hostname", "value": "way.default.svc.cluster.local"}]},
    });
    let namespace =
        json!({"metadata": {"name": "default", "labels": {"istio.io/use-waypoint": "way"}}});
    let objects = [
        Object::MeshConfig(Box::new(MeshConfig::from(&read(mesh)?))),
        Object::GatewayClass(Box::new(GatewayClass::from(&read(class)?))),
        Object::Namespace(Namespace::from(&read(namespace)?)),
        Object::Gateway(Box::new(Gateway::from(&read(gateway)?))),
    ];
    let services = [
        service("shop", "tcp", &scene.shop.ip().to_string(), PORT),
        service("ask", "grpc", "10.96.0.250", authoriser.port()),
    ];
    let pods = [
        pod("shop", scene.server.ip().to_string(), true),
        pod("ask", authoriser.ip().to_string(), false),
    ];
    for object in objects {
        index.apply(Change::Applied(object));
    }
    for object in services {
        let read = Service::from_kubernetes(&read(object)?).context("a service")?;
        index.apply(Change::Applied(Object::Service(Box::new(read))));
    }
    for object in pods {
        let read = Pod::from_kubernetes(&read(object)?).context("a pod")?;
        index.apply(Change::Applied(Object::Pod(Box::new(read))));
    }
    Ok(index)
}

fn policy() -> Result<Change> {
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "ask", "namespace": "default", "generation": 1},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "shop"}],
            "action": "CUSTOM", "provider": {"name": "ask"},
            "rules": [{"to": [{"operation": {"ports": [OPAQUE.to_string()]}}]}],
        },
    });
    let policy = AuthorizationPolicy::from(&read(policy)?);
    Ok(Change::Applied(Object::AuthorizationPolicy(Box::new(
        policy,
    ))))
}

/// What control has to tell the waypoint since the last time.
fn told(index: &mut Index) -> Vec<(String, Any)> {
    index.recompute();
    let (updates, _) = index.take_l7();
    let updates = updates.into_values().flatten();
    let present = updates.filter_map(|update| {
        let any = Any {
            type_url: update.kind.url().to_owned(),
            value: update.resource?.value.to_vec(),
        };
        Some((update.name.to_string(), any))
    });
    present.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_ones_own_decides_about_opaque_connections() -> Result<()> {
    let scene = Scene::stand(OPAQUE).await?;
    let at = SocketAddr::new(scene.way.ip(), 0);
    let authoriser = Authoriser::start(scene.way.netns().listen(at)?, scene.client.identity())?;
    let mut index = cluster(&scene, authoriser.at)?;
    index.apply(policy()?);
    scene.discovery.publish(told(&mut index));
    scene.ready().await?;
    scene.require().await?;
    let wishes = index.take_wishes();
    let status = wishes
        .iter()
        .find(|wish| wish.kind == Kind::AuthorizationPolicy);
    let status = &status.context("the policy's status")?.verdict;
    ensure!(status.accepted, "{}", status.message);

    scene.served(false).await?;
    let refused = scene.other.get(scene.shop).await;
    ensure!(refused.is_denied(), "another's: {refused}");
    let asked = authoriser.asked.lock().clone();
    for caller in [&scene.client, &scene.other] {
        let identity = caller.identity();
        ensure!(asked.contains(&identity), "{identity} in {asked:?}");
    }
    // Nobody answers: nobody passes, whom it would have allowed neither.
    authoriser.running.abort();
    let refused = async || scene.call(false).await.is_denied().then_some(());
    patience::some("what nobody decides about to be refused", SOON, refused).await?;
    // Without the policy nobody is asked.
    index.apply(Change::Removed(
        Kind::AuthorizationPolicy,
        Key::new("default", "ask"),
    ));
    scene.discovery.publish(told(&mut index));
    let other = async || {
        let answer = said(scene.other.get(scene.shop).await);
        answer.filter(|answer| answer.starts_with("server sees"))
    };
    patience::some("another to be served without the policy", SOON, other).await?;
    Ok(())
}
