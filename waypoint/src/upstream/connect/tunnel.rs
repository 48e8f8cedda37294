//! Streams in the mesh's tunnels, under the proxy's own identity.
//!
//! Whom a tunnel must end at: the workload that is known to be at the address, so that an address
//! that another pod got meanwhile is noticed and another endpoint tried. Where nobody is known
//! there, whoever is of our own trust domain, as istiod prescribes (`connect_originate`). That holds
//! for the far end of a tunnel within a tunnel (`inner_connect_originate`) too: who is behind the
//! gateway of another network, istiod does not say.

use std::net::SocketAddr;

use mesh::hbone::{ConnectError, Stream, Target};
use mesh::policy::Permit;
use mesh::tls::Expected;

use super::{Connector, Mesh, dial};
use crate::model::cluster::Cluster;
use crate::upstream::failure::FailureKind;

/// What stands for the pod in the keys of the pool: a waypoint is only one.
const SELF: &str = "waypoint";

impl Connector {
    /// A stream to `to` in the tunnel that ends at `via`.
    pub(super) async fn tunnel(
        &self,
        cluster: &Cluster,
        to: SocketAddr,
        via: SocketAddr,
        client: Option<SocketAddr>,
        permit: Permit,
    ) -> Result<Stream, FailureKind> {
        let mesh = self.mesh(&to)?;
        let target = mesh.target(to.to_string(), via, self.at(via, mesh)?, client);
        let keepalive = cluster.keepalive;
        let dialling = async move || dial(via, keepalive.as_ref()).await;
        let connected = mesh.pool.connect(permit, target, dialling).await;
        connected.map_err(failure)
    }

    /// A stream to the service `to` in a tunnel within the tunnel that ends at `via`, a gateway.
    pub(super) async fn tunnel_beyond(
        &self,
        cluster: &Cluster,
        to: &str,
        via: SocketAddr,
        client: Option<SocketAddr>,
        permit: Permit,
    ) -> Result<Stream, FailureKind> {
        let mesh = self.mesh(&to)?;
        let mut outer = mesh.target(to.to_owned(), via, self.at(via, mesh)?, client);
        let mut inner = outer.clone();
        outer.further = vec![("x-istio-source", SELF.to_owned())];
        inner.expect = vec![mesh.anybody()?];
        inner.further = vec![("x-forwarded-network", mesh.network.clone())];
        let keepalive = cluster.keepalive;
        let dialling = async move || dial(via, keepalive.as_ref()).await;
        let connecting = mesh.pool.connect_beyond(permit, outer, inner, dialling);
        connecting.await.map_err(failure)
    }

    /// Who the proxy is, to reach `to`.
    fn mesh(&self, to: &impl std::fmt::Display) -> Result<&Mesh, FailureKind> {
        self.mesh.as_ref().ok_or_else(|| {
            let text = format!("{to} is reached in a tunnel, but the proxy has no identity");
            FailureKind::Connect(text.into())
        })
    }

    /// Who must be at an address.
    fn at(&self, via: SocketAddr, mesh: &Mesh) -> Result<Expected, FailureKind> {
        match self.current.peer(via.ip()) {
            Some(workload) => Ok(Expected::Identity(workload.identity.clone())),
            None => mesh.anybody(),
        }
    }
}

impl Mesh {
    /// Anybody of our own trust domain.
    fn anybody(&self) -> Result<Expected, FailureKind> {
        let domain = format!("spiffe://{}/", self.identity.trust_domain());
        Expected::prefix(&domain).map_err(|error| FailureKind::Connect(error.to_string().into()))
    }

    fn target(
        &self,
        authority: String,
        next_hop: SocketAddr,
        expect: Expected,
        client: Option<SocketAddr>,
    ) -> Target {
        Target {
            source: self.identity.clone(),
            pod: SELF.into(),
            expect: vec![expect],
            next_hop,
            authority,
            baggage: None,
            forwarded: client.map(|client| format!("for={}", client.ip())),
            traceparent: None,
            further: Vec::new(),
        }
    }
}

fn failure(error: ConnectError) -> FailureKind {
    match error {
        ConnectError::TimedOut { .. } => FailureKind::ConnectTimeout,
        ConnectError::Beyond { cause, .. } if matches!(*cause, ConnectError::TimedOut { .. }) => {
            FailureKind::ConnectTimeout
        }
        error => FailureKind::Connect(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests;
