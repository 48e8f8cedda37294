//! A stand-in for an ingress gateway outside the mesh: forwards every request to the product page
//! with its own service account, adds what gateways add (`x-forwarded-for`, `x-request-id`), and
//! answers 502 or 504 when there is nobody behind. It has no routes of its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::Full;

use crate::fetch::{self, Ask, Failed};
use crate::headers;
use crate::serve::{self, Answer, Asked};

/// How long the gateway waits for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How the gateway runs.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Where to forward to.
    #[arg(long, env = "BACKEND", default_value = "productpage:9080")]
    backend: String,
    #[command(flatten)]
    serve: serve::Options,
}

/// Runs the gateway.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let backend: Arc<str> = options.backend.as_str().into();
    serve::run("gateway", &options.serve, move |asked| {
        let backend = backend.clone();
        async move { forward(asked, &backend).await }
    })
    .await
}

async fn forward(asked: Asked, backend: &str) -> Answer {
    if asked.path == "/healthz/ready" {
        return serve::text(StatusCode::OK, "ready\n");
    }
    let query = if asked.query.is_empty() {
        String::new()
    } else {
        format!("?{}", asked.query)
    };
    let uri: Uri = match format!("http://{backend}{}{query}", asked.path).parse() {
        Ok(uri) => uri,
        Err(error) => return serve::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let ask = Ask {
        method: asked.method.clone(),
        uri,
        headers: onward(&asked),
        body: asked.body.clone(),
        connect_timeout: Duration::from_secs(5),
    };
    match fetch::whole(ask, TIMEOUT).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = head.status;
            *response.headers_mut() = headers::forward(&head.headers);
            // The body is whole by now: its length is counted anew.
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response
        }
        Err(error @ Failed::TimedOut { .. }) => {
            serve::text(StatusCode::GATEWAY_TIMEOUT, format!("{backend}: {error}\n"))
        }
        Err(error) => serve::text(StatusCode::BAD_GATEWAY, format!("{backend}: {error}\n")),
    }
}

fn onward(asked: &Asked) -> http::HeaderMap {
    let mut onward = headers::forward(&asked.headers);
    // The body is whole by now: its length is counted anew.
    onward.remove(header::CONTENT_LENGTH);
    let client = asked.client.ip().to_canonical().to_string();
    let chain = match onward
        .get("x-forwarded-for")
        .and_then(|value| value.to_str().ok())
    {
        Some(before) => format!("{before}, {client}"),
        None => client,
    };
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        onward.insert("x-forwarded-for", chain);
    }
    onward.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if !onward.contains_key("x-request-id")
        && let Ok(id) = HeaderValue::from_str(&request_id())
    {
        onward.insert("x-request-id", id);
    }
    onward
}

/// A fresh identifier. The standard library seeds each `RandomState` anew, which is random enough
/// for a name that must only not repeat.
fn request_id() -> String {
    let half = || RandomState::new().hash_one(std::time::Instant::now());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&'static str, &'static str)]) -> Asked {
        let mut headers = http::HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Asked {
            method: http::Method::GET,
            path: "/productpage".to_owned(),
            query: String::new(),
            headers,
            body: bytes::Bytes::new(),
            client: ([192, 0, 2, 7], 4711).into(),
        }
    }

    #[test]
    fn a_gateway_adds_the_client_and_an_identifier() {
        let sent = onward(&asked(&[
            ("connection", "keep-alive"),
            ("cookie", "user=jason"),
        ]));
        assert_eq!(sent["x-forwarded-for"], "192.0.2.7");
        assert_eq!(sent["x-request-id"].len(), 32);
        assert_eq!(sent["cookie"], "user=jason");
        assert!(!sent.contains_key("connection"));
        assert_ne!(request_id(), request_id());
    }

    #[test]
    fn what_an_earlier_hop_said_is_kept() {
        let sent = onward(&asked(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-request-id", "mine"),
        ]));
        assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(sent["x-request-id"], "mine");
    }

    #[tokio::test]
    async fn nobody_behind_is_a_bad_gateway() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let answer = forward(asked(&[]), &nobody.to_string()).await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    }
}
