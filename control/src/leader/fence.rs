//! A leader's client: it writes only while the term lasts, whoever uses it and however late.
//!
//! A process that was stopped for a minute comes back in the middle of what it did, before it has
//! looked at a clock. So it is not the duties that check: every writing request looks at the term
//! itself, and is given up where its answer does not come within it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tonic::codegen::{BoxFuture, Service};

/// A writing request that would end after the term is not begun with less than this left.
const LEAST: Duration = Duration::from_millis(200);

/// How long this replica leads; shared by all that write in its name.
#[derive(Clone, Debug)]
pub struct Term(Arc<Mutex<Instant>>);

impl Term {
    /// A term that lasts until then.
    #[must_use]
    pub fn until(until: Instant) -> Self {
        Self(Arc::new(Mutex::new(until)))
    }

    /// It lasts longer.
    pub fn extend(&self, until: Instant) {
        *self.0.lock() = until;
    }

    /// It is over.
    pub fn end(&self) {
        *self.0.lock() = Instant::now();
    }

    /// When it ends, if there is time at `now` to write anything.
    fn ends(&self, now: Instant) -> Option<Instant> {
        let until = *self.0.lock();
        (now + LEAST <= until).then_some(until)
    }
}

/// A request came after the term, or would have ended after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica leads no longer: the next leader writes")]
pub struct Deposed;

/// The client, for as long as the term lasts. Reading and watching stay possible after it.
#[must_use]
pub fn fenced(client: Client, term: Term) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Fence { client, term }, namespace)
}

#[derive(Clone)]
struct Fence {
    client: Client,
    term: Term,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Service<Request<Body>> for Fence {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Response<Body>, Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, term } = self.clone();
        Box::pin(async move {
            if matches!(*request.method(), Method::GET | Method::HEAD) {
                return Ok(client.send(request).await?);
            }
            let until = term.ends(Instant::now()).ok_or(Deposed)?;
            match tokio::time::timeout_at(until.into(), client.send(request)).await {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(Deposed.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, PostParams};

    use super::*;

    /// An API server that counts, and answers writes never if `hangs`.
    fn server(hangs: bool) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let service = tower_service(move |request: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let hang = hangs && request.method() != Method::GET;
            Box::pin(async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                let map = ConfigMap::default();
                let body = Body::from(serde_json::to_vec(&map).unwrap());
                Ok::<_, Infallible>(Response::new(body))
            })
        });
        (Client::new(service, "default"), asked)
    }

    struct Func<F>(F);

    fn tower_service<F>(f: F) -> Func<F>
    where
        F: FnMut(Request<Body>) -> BoxFuture<Response<Body>, Infallible>,
    {
        Func(f)
    }

    impl<F> Service<Request<Body>> for Func<F>
    where
        F: FnMut(Request<Body>) -> BoxFuture<Response<Body>, Infallible>,
    {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            (self.0)(request)
        }
    }

    async fn create(client: &Client) -> Result<ConfigMap, kube::Error> {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        maps.create(&PostParams::default(), &ConfigMap::default())
            .await
    }

    #[tokio::test]
    async fn a_deposed_leader_reads_and_does_not_write() {
        let (server, asked) = server(false);
        let term = Term::until(Instant::now() + Duration::from_secs(60));
        let client = fenced(server, term.clone());
        create(&client).await.unwrap();
        term.end();
        let refused = create(&client).await.unwrap_err();
        assert!(format!("{refused:?}").contains("Deposed"), "{refused:?}");
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        maps.delete("x", &DeleteParams::default())
            .await
            .unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "nothing was sent");
        maps.get("x").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_write_that_takes_longer_than_the_term_is_given_up() {
        let (server, asked) = server(true);
        let client = fenced(
            server,
            Term::until(Instant::now() + Duration::from_millis(400)),
        );
        let refused = create(&client).await.unwrap_err();
        assert!(format!("{refused:?}").contains("Deposed"), "{refused:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
