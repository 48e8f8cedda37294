//! Copies of requests that go elsewhere as well: nobody waits for their answers, and nothing that
//! becomes of them is seen by the client. A copy's body is sent as the request's own comes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request, Uri};
use http_body_util::BodyExt;

use super::body::RequestBody;
use super::copied::Copied;
use super::flow::Flow;
use crate::model::route::Mirror;
use crate::model::snapshot::ClusterEntry;
use crate::route::select::falls;
use crate::upstream::Choice;

/// How long a copy may take where its route has no limit.
const LONGEST: Duration = Duration::from_secs(300);

/// The copies that are made of a request.
pub(super) fn chosen(mirrors: &[Mirror], random: u64) -> Vec<&Mirror> {
    // The lowest digits chose the route: those of another part are independent of it.
    let random = random.rotate_left(32);
    let chosen = |mirror: &&Mirror| falls(mirror.fraction, random);
    mirrors.iter().filter(chosen).collect()
}

/// Sends a copy, with the body that it has.
pub(super) fn send(flow: &Flow<'_>, mirror: &Mirror, body: Option<Copied>) {
    let Some(cluster) = flow.view.snapshot.clusters.get(&mirror.cluster).cloned() else {
        return;
    };
    let Some(mut request) = copy(flow, mirror) else {
        return;
    };
    if let Some(body) = body {
        *request.body_mut() = RequestBody::Copied(body);
    }
    let (local, down) = (
        flow.http.connection.local.clone(),
        flow.http.connection.down.clone(),
    );
    // The request that is copied was let through; the copy is the same request.
    let permit = mesh::policy::Permit::by_waypoint();
    tokio::task::spawn_local(async move {
        let exchanged = exchange(&local, &cluster, &down, permit, request);
        let _ = tokio::time::timeout(LONGEST, exchanged).await;
    });
}

/// Sends it and reads its answer to the end, so that the connection can be used again.
async fn exchange(
    local: &crate::worker::Local,
    cluster: &Arc<ClusterEntry>,
    down: &crate::connection::Downstream,
    permit: mesh::policy::Permit,
    request: Request<RequestBody>,
) {
    let authority = request.headers().get(header::HOST).cloned();
    let choice = Choice {
        authority: authority.as_ref().and_then(|host| host.to_str().ok()),
        ..Choice::new(down)
    };
    let sent = local
        .upstreams
        .send(cluster, &choice, permit, request)
        .await;
    let Ok(sent) = sent else {
        return;
    };
    let mut body = sent.response.into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

fn copy(flow: &Flow<'_>, mirror: &Mirror) -> Option<Request<RequestBody>> {
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = flow.asked.method.clone();
    *request.version_mut() = flow.asked.version;
    *request.headers_mut() = flow.asked.headers.clone();
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = flow.asked.path.clone();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    let host = match mirror.shadow_suffix {
        false => flow.asked.authority.clone(),
        true => shadow(flow.asked.authority.to_str().ok()?)?,
    };
    request.headers_mut().insert(header::HOST, host);
    Some(request)
}

/// The host with `-shadow` behind its name, before its port.
fn shadow(host: &str) -> Option<HeaderValue> {
    let name = crate::route::select::without_port(host);
    let port = &host[name.len()..];
    HeaderValue::try_from(format!("{name}-shadow{port}")).ok()
}

#[cfg(test)]
mod tests {
    use super::shadow;

    #[test]
    fn a_copy_says_in_its_host_that_it_is_one() {
        assert_eq!(shadow("reviews:9080").unwrap(), "reviews-shadow:9080");
        assert_eq!(shadow("reviews").unwrap(), "reviews-shadow");
    }
}
