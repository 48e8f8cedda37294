//! The pods that are measured: a client and a server on different nodes for each subject. No mesh
//! and ours share one lab; a peer's ztunnel has a lab of its own, of the same shape.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::node::Node;
use crate::pod::Pod;
use crate::world::Lab;

const PORT: u16 = 8080;

/// Everything that a run needs.
#[derive(Debug)]
pub struct Rig {
    subjects: Vec<Subject>,
}

/// One thing to measure.
#[derive(Debug)]
pub struct Subject {
    /// `no mesh`, `culvert`, `peer`.
    pub name: &'static str,
    client: Pod,
    server: Pod,
    lab: Option<Lab>,
}

impl Rig {
    /// Builds the labs.
    ///
    /// # Errors
    /// When one can't be built.
    pub async fn build(peer: Option<&Path>) -> Result<Self> {
        let lab = Lab::builder().env("RUST_LOG", "warn").start().await?;
        let mut subjects = vec![
            Subject::new("no mesh", &lab, false).await?,
            Subject::new("culvert", &lab, true).await?,
        ];
        if let Some(peer) = peer {
            let lab = Lab::builder()
                .env("RUST_LOG", "warn")
                .binary(peer.to_owned())
                .start()
                .await;
            let lab = lab.with_context(|| format!("starting the peer {}", peer.display()))?;
            subjects.push(Subject::new("peer", &lab, true).await?);
        }
        Ok(Self { subjects })
    }

    /// In the order of the table; the first is what the others are compared with.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }
}

impl Subject {
    async fn new(name: &'static str, lab: &Lab, meshed: bool) -> Result<Self> {
        let kind = if meshed { "meshed" } else { "plain" };
        let (client, server) = (format!("{kind}-client"), format!("{kind}-server"));
        let (mut client, mut server) = (
            lab.pod(&client),
            lab.pod(&server).on(lab.node(2)).serving(PORT),
        );
        if !meshed {
            (client, server) = (client.outside_the_mesh(), server.outside_the_mesh());
        }
        let (client, server) = (client.start().await?, server.start().await?);
        Ok(Self {
            name,
            client,
            server,
            lab: meshed.then(|| lab.clone()),
        })
    }

    /// Who calls.
    #[must_use]
    pub fn client(&self) -> &Pod {
        &self.client
    }

    /// Who is called.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.server.at(PORT)
    }

    /// The ztunnels on the way; none without a mesh.
    pub fn ztunnels(&self) -> impl Iterator<Item = &Node> {
        self.lab
            .iter()
            .flat_map(|lab| lab.nodes())
            .map(AsRef::as_ref)
    }
}
