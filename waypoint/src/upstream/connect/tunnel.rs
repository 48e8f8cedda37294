//! Streams in the mesh's tunnels, under the proxy's own identity.
//!
//! Whom a tunnel must end at: the workload that is known to be at the address, so that an address
//! that another pod got meanwhile is noticed and another endpoint tried. Where nobody is known
//! there, whoever is of our own trust domain, as istiod prescribes (`connect_originate`).

use std::net::SocketAddr;

use mesh::hbone::{ConnectError, Stream, Target};
use mesh::policy::Permit;
use mesh::tls::Expected;

use super::{Connector, dial};
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
        let mesh = self.mesh.as_ref().ok_or_else(|| {
            let text = format!("{to} is reached in a tunnel, but the proxy has no identity");
            FailureKind::Connect(text.into())
        })?;
        let expect = match self.current.peer(via.ip()) {
            Some(workload) => Expected::Identity(workload.identity.clone()),
            None => {
                let domain = format!("spiffe://{}/", mesh.identity.trust_domain());
                Expected::prefix(&domain)
                    .map_err(|error| FailureKind::Connect(error.to_string().into()))?
            }
        };
        let target = Target {
            source: mesh.identity.clone(),
            pod: SELF.into(),
            expect: vec![expect],
            next_hop: via,
            authority: to.to_string(),
            baggage: None,
            forwarded: client.map(|client| format!("for={}", client.ip())),
            traceparent: None,
        };
        let keepalive = cluster.keepalive;
        let dialling = async move || dial(via, keepalive.as_ref()).await;
        mesh.pool
            .connect(permit, target, dialling)
            .await
            .map_err(|error| match error {
                ConnectError::TimedOut { .. } => FailureKind::ConnectTimeout,
                error => FailureKind::Connect(error.to_string().into()),
            })
    }
}

#[cfg(test)]
mod tests;
