//! Plugins ask clusters by the proxy's own requests, as services that decide are asked.

use std::pin::Pin;
use std::rc::{Rc, Weak};

use http::uri::Parts;
use http::{Request, Uri, header};
use tracing::debug;

use super::grpc;
use crate::http::RequestBody;
use crate::http::own::{self, Whole};
use crate::wasm::calls::{Ask, AskGrpc, Called, Calls, Listener};
use crate::wasm::{Head, MOST_HELD, Map};
use crate::worker::Local;

/// The clusters of a worker's present configuration.
struct Through(Weak<Local>);

/// How plugins of this worker ask clusters.
pub(super) fn through(local: &Rc<Local>) -> Rc<dyn Calls> {
    Rc::new(Through(Rc::downgrade(local)))
}

impl Calls for Through {
    fn has(&self, cluster: &str) -> bool {
        let local = self.0.upgrade();
        local.is_some_and(|local| local.current.glance().clusters.contains_key(cluster))
    }

    fn ask(&self, ask: Ask) -> Pin<Box<dyn Future<Output = Called>>> {
        let local = self.0.upgrade();
        Box::pin(async move {
            let Some(local) = local else {
                return Called::default();
            };
            let (cluster, timeout) = (ask.cluster.clone(), ask.timeout);
            let late = |_| Err(format!("no answer within {timeout:?}"));
            let called = tokio::time::timeout(timeout, send(&local, ask)).await;
            called.unwrap_or_else(late).unwrap_or_else(|error| {
                debug!(cluster, error, "a plugin gets no answer");
                Called::default()
            })
        })
    }

    fn grpc(&self, ask: AskGrpc, heard: Listener) -> Pin<Box<dyn Future<Output = ()>>> {
        let local = self.0.upgrade();
        Box::pin(async move {
            if let Some(local) = local {
                grpc::run(&local, ask, &heard).await;
            }
        })
    }
}

async fn send(local: &Local, ask: Ask) -> Result<Called, String> {
    let snapshot = local.current.snapshot();
    let entry = snapshot.clusters.get(&*ask.cluster);
    let entry = entry.ok_or("there is no such cluster")?;
    let Head::Request(line) = ask.headers.head else {
        return Err("its head is none of a request".to_owned());
    };
    let authority = line.authority.to_str().unwrap_or_default().to_owned();
    let body = match ask.body.is_empty() {
        true => RequestBody::Empty,
        false => RequestBody::Whole(Some(ask.body)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = line.method;
    let mut parts = Parts::default();
    parts.path_and_query = line.path;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    *request.headers_mut() = ask.headers.headers;
    request.headers_mut().insert(header::HOST, line.authority);
    let answer = own::send(local, entry, &authority, request).await?;
    let (head, body) = answer.into_parts();
    let Whole { body, trailers } = own::whole(body, MOST_HELD).await?;
    Ok(Called {
        headers: Some(Map {
            head: Head::Response(head.status),
            headers: head.headers,
            changed: false,
        }),
        body,
        trailers: trailers.map(Map::plain),
    })
}
