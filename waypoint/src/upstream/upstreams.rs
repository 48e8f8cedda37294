//! One worker's upstream side: its connections and balancers. Not shared between threads, so
//! nothing here takes a lock.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use hyper_util::rt::TokioIo;
use mesh::policy::Permit;
use tokio::net::TcpStream;

use super::Choice;
use super::answer::{Connected, Place, Received, Release, Sent};
use super::connect::{Identified, Io, TlsConfigs};
use super::failure::{Failure, FailureKind, Refused, Reset};
use super::shared::{ClusterState, RetryPlace, Shared};
use crate::model::endpoint::Address;
use crate::model::snapshot::{ClusterEntry, Current};

/// One worker's upstream side. `B` is the body of requests. Cheap to clone.
pub struct Upstreams<B>(Rc<Inner<B>>);

#[expect(dead_code, reason = "connecting is given them with the tunnels")]
struct Inner<B> {
    shared: Shared,
    current: Current,
    own: Option<Identified>,
    tls: Arc<dyn TlsConfigs + Send + Sync>,
    body: std::marker::PhantomData<fn(B)>,
}

impl<B> Clone for Upstreams<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Upstreams<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A worker's upstream side. Called, and used, within the worker's `LocalSet`. Without an
    /// identity (outside a mesh) tunnelled endpoints can't be reached.
    #[must_use]
    pub fn new(
        shared: Shared,
        current: Current,
        own: Option<Identified>,
        tls: Arc<dyn TlsConfigs + Send + Sync>,
    ) -> Self {
        Self(Rc::new(Inner {
            shared,
            current,
            own,
            tls,
            body: std::marker::PhantomData,
        }))
    }

    /// Sends one request and waits for the head of its answer. The request's URI is path and query,
    /// its host stands in `Host` or in the URI's authority: it is written as the upstream's protocol
    /// wants it. Hop-by-hop headers have been removed, those of an upgrade are kept.
    ///
    /// A request of which nothing was sent is tried on another connection or endpoint by itself; the
    /// caller's retries begin where that didn't help. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// See [`FailureKind`]; the request comes back where nothing of it was taken.
    pub async fn send(
        &self,
        cluster: &Arc<ClusterEntry>,
        choice: &Choice<'_>,
        permit: Permit,
        request: Request<B>,
    ) -> Result<Sent, Refused<B>> {
        let connected = match self.connect(cluster, choice, permit).await {
            Ok(connected) => connected,
            Err(failure) => {
                let request = Some(Box::new(request));
                return Err(Refused { failure, request });
            }
        };
        let Connected {
            io,
            endpoint,
            peer,
            local,
            place,
        } = connected;
        let failed = |kind| {
            let failure = Failure::at(kind, endpoint.clone());
            Refused {
                failure,
                request: None,
            }
        };
        let made = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) =
            made.map_err(|_| failed(FailureKind::Reset(Reset::Connection)))?;
        tokio::task::spawn_local(connection.with_upgrades());
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| failed(FailureKind::Reset(Reset::Connection)))?;
        Ok(Sent {
            response: response.map(|incoming| Received::new(incoming, place)),
            endpoint,
            peer,
            local,
            reused: false,
        })
    }

    /// Opens a connection for bytes: for TCP routes, and for upgrades that aren't HTTP/1's own.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        choice: &Choice<'_>,
        _permit: Permit,
    ) -> Result<Connected, Failure> {
        let endpoints = cluster.endpoints.load_full();
        let endpoint = endpoints
            .localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
            .find(|endpoint| !choice.tried.contains(endpoint))
            .cloned()
            .ok_or_else(|| Failure::early(FailureKind::NoHealthyUpstream))?;
        let Address::Socket(address) = endpoint.address else {
            let text = "only sockets can be reached yet".into();
            return Err(Failure::at(FailureKind::Connect(text), endpoint));
        };
        let state = self.0.shared.cluster(cluster.id);
        if !state.connections.take(cluster.cluster.breakers.connections) {
            return Err(Failure::at(FailureKind::Overflow, endpoint));
        }
        let place = Place::new(Rc::new(Connection(state)));
        let limit = cluster.cluster.connect_timeout;
        let tcp = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Err(_) => return Err(Failure::at(FailureKind::ConnectTimeout, endpoint)),
            Ok(Err(error)) => {
                let text = format!("delayed connect error: {error}").into();
                return Err(Failure::at(FailureKind::Connect(text), endpoint));
            }
            Ok(Ok(tcp)) => tcp,
        };
        Ok(Connected {
            local: tcp.local_addr().ok(),
            io: Io::Tcp(tcp),
            endpoint,
            peer: Some(address),
            place,
        })
    }

    /// Takes a place for one retry of a request to this cluster, if its limit or budget allows it.
    #[must_use]
    pub fn retry(&self, cluster: &ClusterEntry) -> Option<RetryPlace> {
        let state = self.0.shared.cluster(cluster.id);
        state.retry(&cluster.cluster.breakers)
    }
}

struct Connection(Arc<ClusterState>);

impl Release for Connection {
    fn release(self: Rc<Self>) {
        self.0.connections.give();
    }
}
