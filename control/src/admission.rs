//! A validating webhook: a wrong object is refused when somebody applies it, by name, field and
//! reason, with the words that its status would have.
//!
//! [`verdict`] decides, by the same code that writes statuses. [`trust`] tells the API server whose
//! certificate to expect. The certificate is control's own, which is renewed without a restart; when
//! another authority signs, the leader tells the API server so. Every replica answers.

pub mod trust;
pub mod verdict;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::translate::Mesh;

/// Where reviews are asked for.
pub const PATH: &str = "/validate";
/// The largest review: etcd takes no larger object than 1.5 MiB, and a review may hold it twice.
const LIMIT: usize = 4 << 20;
/// How long a caller has for its handshake, and for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; the API server needs a few.
const CONNECTIONS: usize = 128;

/// Serves until stopped.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    mesh: Mesh,
    stop: CancellationToken,
) {
    let (tls, mesh) = (TlsAcceptor::from(Arc::new(tls)), Arc::new(mesh));
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the webhook could not be accepted");
                    // Most likely out of file descriptors: give others time to close.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (tls, mesh, stop) = (tls.clone(), mesh.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, tls, mesh) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, mesh: Arc<Mesh>) {
    let stream = match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%error, "TLS with the webhook's caller failed: is the caBundle of the ValidatingWebhookConfiguration the mesh's root?");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let mesh = mesh.clone();
        async move { Ok::<_, Infallible>(answer(request, &mesh).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE * 6);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "the webhook's caller went away");
    }
}

async fn answer(request: Request<Incoming>, mesh: &Mesh) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != PATH {
        return text(StatusCode::NOT_FOUND, "here is POST /validate\n");
    }
    let body = Limited::new(request.into_body(), LIMIT).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return text(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
        Err(_) => {
            return text(
                StatusCode::REQUEST_TIMEOUT,
                "the review did not come in time\n",
            );
        }
    };
    let review: Value = match serde_json::from_slice(&body) {
        Ok(review) => review,
        Err(error) => {
            let what = format!("no AdmissionReview: {error}\n");
            return text(StatusCode::BAD_REQUEST, &what);
        }
    };
    let mut response = text(StatusCode::OK, &reviewed(mesh, review).to_string());
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

/// The answer to a review.
#[must_use]
pub fn reviewed(mesh: &Mesh, mut review: Value) -> Value {
    let object = review["request"]["object"].take();
    let passed_over = verdict::passed_over(&object).into_iter();
    let warnings = passed_over.map(|field| {
        format!("spec.{field} is not known to Culvert and passed over: is it misspelt?")
    });
    let warnings: Vec<String> = warnings.collect();
    let refused = verdict::problem(mesh, object);
    let mut response = json!({
        "uid": review["request"]["uid"],
        "allowed": refused.is_none(),
        "warnings": warnings,
    });
    if let Some(problem) = refused {
        tracing::info!(
            object = problem.object,
            detail = problem.what,
            "an object is refused at admission"
        );
        response["status"] = json!({
            "code": 422,
            "reason": "Invalid",
            "message": format!("{}: {}", problem.object, problem.what),
        });
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response
}
