//! The backends: each endpoint of each cluster is a listener of its own that knows its name, answers
//! as the request's script says, and writes down what it saw.

mod authz;
mod http;
mod tcp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};

/// The header that names a case, by which what was seen is found again.
pub const CASE: &str = "x-case";
/// The header that says how to answer; see [`crate::script`].
pub const SCRIPT: &str = "x-script";
/// The header that says how a service that decides about requests answers; see [`crate::script`].
pub const AUTHZ: &str = "x-authz";
/// The header of an answer that says which endpoint gave it.
pub const FROM: &str = "x-from";

/// What a cluster's endpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP/1.1 servers.
    #[default]
    Http1,
    /// HTTP/2 servers with prior knowledge.
    Http2,
    /// HTTP/1.1 servers that decide about requests: they answer by the header `x-authz`.
    Authz,
    /// The same as gRPC's `envoy.service.auth.v3.Authorization`.
    AuthzGrpc,
    /// They say their name and echo bytes.
    Tcp,
    /// Ports where nobody listens.
    Refused,
}

/// A request as an endpoint saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Of the endpoint.
    pub cluster: String,
    /// Its number in the cluster, from 0.
    pub endpoint: usize,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `host`, or `:authority`.
    pub authority: String,
    /// In the order of the wire, without the authority.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// After the body.
    pub trailers: Vec<(String, String)>,
}

/// What all backends saw, by case.
#[derive(Debug, Default)]
pub struct Journal(Mutex<HashMap<String, Vec<Seen>>>);

impl Journal {
    /// What was seen of a case so far, in order.
    #[must_use]
    pub fn of(&self, case: &str) -> Vec<Seen> {
        self.0.lock().get(case).cloned().unwrap_or_default()
    }

    /// Writes down, and says how often this cluster's endpoints had seen the case before.
    fn write(&self, case: &str, seen: Seen) -> usize {
        let mut all = self.0.lock();
        let earlier = all.entry(case.to_owned()).or_default();
        let number = earlier.iter().filter(|e| e.cluster == seen.cluster).count();
        earlier.push(seen);
        number
    }

    /// The body of the latest entry, which is known later than the head.
    fn complete(&self, case: &str, cluster: &str, body: String, trailers: Vec<(String, String)>) {
        let mut all = self.0.lock();
        let entry = all.get_mut(case).into_iter().flatten();
        if let Some(entry) = entry.rev().find(|entry| entry.cluster == cluster) {
            entry.body = body;
            entry.trailers = trailers;
        }
    }
}

/// Who an endpoint is.
#[derive(Clone, Debug)]
struct Name {
    cluster: Arc<str>,
    endpoint: usize,
}

impl Name {
    fn text(&self) -> String {
        format!("{}/{}", self.cluster, self.endpoint)
    }
}

/// Starts one endpoint and says where it is. It lives as long as the runtime.
///
/// # Errors
/// When no port is free.
pub async fn start(
    journal: &Arc<Journal>,
    cluster: &str,
    endpoint: usize,
    kind: Kind,
) -> Result<SocketAddr> {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    if kind == Kind::Refused {
        return refused(free);
    }
    let listener = TcpListener::bind(free).await?;
    let at = listener.local_addr()?;
    let name = Name {
        cluster: cluster.into(),
        endpoint,
    };
    match kind {
        Kind::AuthzGrpc => {
            tokio::spawn(authz::serve(listener, name, Arc::clone(journal)));
        }
        Kind::Http1 | Kind::Http2 | Kind::Authz | Kind::Refused => {
            tokio::spawn(http::serve(listener, kind, name, Arc::clone(journal)));
        }
        Kind::Tcp => {
            tokio::spawn(tcp::serve(listener, name));
        }
    }
    Ok(at)
}

/// A port that nobody else gets, and where nobody listens.
fn refused(free: SocketAddr) -> Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(free)?;
    let at = socket.local_addr()?;
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    Ok(at)
}
