//! HTTP for people, probes and Prometheus: readiness, metrics and views of the state.
//!
//! | port  | path                  | answer                                                          |
//! |-------|-----------------------|-----------------------------------------------------------------|
//! | 8080  | `/ready`              | 200 once all objects of the cluster are known, before 503 and why |
//! | 15014 | `/metrics`            | metrics in the OpenMetrics text format                          |
//! | 15014 | `/version`            | the version, as `istioctl version` reads it                     |
//! | 15014 | `/debug/syncz`        | each client: what was sent, accepted and refused                |
//! | 15014 | `/debug/config_dump`  | the resources that clients get, with their versions             |

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::resource::{Resource, ResourceType};
use crate::xds::hub::Hub;

/// How long a client has to send its request.
const HEADERS: Duration = Duration::from_secs(5);

/// What is served where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Readiness only.
    Health,
    /// Metrics and debug views.
    Monitoring,
}

/// Serves one face until stopped.
pub async fn serve(
    listener: TcpListener,
    face: Face,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (hub, metrics) = (hub.clone(), metrics.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(face, request.method(), request.uri().path(), &hub, &metrics);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "an HTTP client went away");
            }
        });
    }
}

fn answer(
    face: Face,
    method: &Method,
    path: &str,
    hub: &Hub,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match (face, path) {
        (Face::Health, "/ready") if *hub.ready().borrow() => {
            text(StatusCode::OK, "ready\n".to_owned())
        }
        (Face::Health, "/ready") => text(StatusCode::SERVICE_UNAVAILABLE, not_ready(hub)),
        // In the form that `istioctl version` reads.
        (Face::Monitoring, "/version") => {
            let version = concat!("culvert-", env!("CARGO_PKG_VERSION"));
            document(&json!({"clientVersion": {
                "version": version, "revision": "", "golang_version": "", "status": "Clean", "tag": version,
            }}))
        }
        (Face::Monitoring, "/metrics") => {
            let mut response = text(StatusCode::OK, metrics.text());
            let format = http::HeaderValue::from_static(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            );
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, format);
            response
        }
        (Face::Monitoring, "/debug/syncz") => document(&syncz(hub)),
        (Face::Monitoring, "/debug/config_dump") => document(&config_dump(hub)),
        (Face::Health, _) => text(StatusCode::NOT_FOUND, "here is /ready\n".to_owned()),
        (Face::Monitoring, _) => text(
            StatusCode::NOT_FOUND,
            "here are /metrics, /version, /debug/syncz and /debug/config_dump\n".to_owned(),
        ),
    }
}

fn not_ready(hub: &Hub) -> String {
    match hub.missing().as_slice() {
        [] => "not ready: nothing of the cluster is listed yet\n".to_owned(),
        missing => format!(
            "not ready: not listed yet: {} (control's log says why, where it is for a reason)\n",
            missing.join(", ")
        ),
    }
}

/// Each client, and how far it is with each kind of resource.
#[must_use]
pub fn syncz(hub: &Hub) -> Value {
    let revision = hub.store().revision();
    let clients = hub.clients().into_iter().map(|client| {
        let kinds = client.progress.into_iter().map(|(kind, progress)| {
            let view = json!({
                "nonceSent": progress.nonce_sent,
                "nonceAcked": progress.nonce_acked,
                "revisionAcked": progress.revision_acked,
                "synced": progress.nonce_sent == progress.nonce_acked,
                "nacks": progress.nacks,
                "lastNack": progress.last_nack,
            });
            (kind.url().to_owned(), view)
        });
        json!({"proxy": client.node, "identity": client.identity, "types": kinds.collect::<serde_json::Map<_, _>>()})
    });
    json!({"revision": revision, "clients": clients.collect::<Vec<_>>()})
}

/// The resources that clients get.
#[must_use]
pub fn config_dump(hub: &Hub) -> Value {
    let store = hub.store();
    let kinds = ResourceType::ALL.into_iter().map(|kind| {
        let resources = store.collection(kind).map(|all| {
            all.iter()
                .map(|resource| view(kind, resource))
                .collect::<Vec<_>>()
        });
        (
            kind.url().to_owned(),
            Value::from(resources.unwrap_or_default()),
        )
    });
    json!({"revision": store.revision(), "resources": kinds.collect::<serde_json::Map<_, _>>()})
}

fn view(kind: ResourceType, resource: &Resource) -> Value {
    let value = &*resource.value;
    let body = match kind {
        ResourceType::Authorization => {
            Authorization::decode(value).map(|policy| json!(format!("{policy:?}")))
        }
        ResourceType::Cluster
        | ResourceType::Endpoints
        | ResourceType::Listener
        | ResourceType::Workload
        | ResourceType::Route
        | ResourceType::Secret
        | ResourceType::Extension => Ok(json!({"bytes": value.len()})),
        ResourceType::Address => Address::decode(value).map(|address| address_view(&address)),
    };
    let aliases: Vec<&str> = resource.aliases.iter().map(|alias| &**alias).collect();
    json!({
        "name": &*resource.name,
        "version": resource.version.to_string(),
        "aliases": aliases,
        "resource": body.unwrap_or_else(|error| json!(error.to_string())),
    })
}

/// The fields that people look for; the debug form has the rest.
fn address_view(address: &Address) -> Value {
    match &address.r#type {
        Some(address::Type::Workload(workload)) => json!({
            "workload": workload.name,
            "namespace": workload.namespace,
            "addresses": workload.addresses.iter().map(|octets| ip(octets)).collect::<Vec<_>>(),
            "protocol": workload.tunnel_protocol().as_str_name(),
            "serviceAccount": workload.service_account,
            "node": workload.node,
            "status": workload.status().as_str_name(),
            "canonical": format!("{}/{}", workload.canonical_name, workload.canonical_revision),
            "owner": format!("{} {}", workload.workload_type().as_str_name(), workload.workload_name),
            "policies": workload.authorization_policies,
            "services": workload.services.iter().map(|(name, ports)| {
                let ports = ports.ports.iter().map(|port| format!("{}->{}", port.service_port, port.target_port));
                (name.clone(), json!(ports.collect::<Vec<_>>()))
            }).collect::<serde_json::Map<_, _>>(),
        }),
        Some(address::Type::Service(service)) => json!({
            "service": service.hostname,
            "namespace": service.namespace,
            "addresses": service.addresses.iter().map(|address| ip(&address.address)).collect::<Vec<_>>(),
            "ports": service.ports.iter().map(|port| format!("{}->{}", port.service_port, port.target_port)).collect::<Vec<_>>(),
            "loadBalancing": service.load_balancing.as_ref().map(|balancing| format!("{balancing:?}")),
        }),
        None => Value::Null,
    }
}

fn ip(octets: &[u8]) -> String {
    let address: Option<IpAddr> = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    };
    address.map_or_else(|| format!("{octets:?}"), |address| address.to_string())
}

fn document(value: &Value) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, format!("{value:#}\n"));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
