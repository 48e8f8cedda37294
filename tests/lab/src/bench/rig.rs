//! The pods that are measured: a client and a server on different nodes for each subject. No mesh
//! and ours share one lab; a peer's ztunnel has a lab of its own, of the same shape.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Kind, Peer, Settings, istio};
use crate::build::Builder;
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
    pub async fn build(settings: &Settings) -> Result<Self> {
        let builder = Lab::builder()
            .env("RUST_LOG", "warn")
            .program(settings.program.clone());
        let lab = builder.clone().start().await?;
        let mut subjects = vec![
            Subject::new("no mesh", &lab, false).await?,
            Subject::new("culvert", &lab, true).await?,
        ];
        if let Some(peer) = &settings.peer {
            let subject = Subject::of_peer(peer, builder).await;
            subjects.push(subject.with_context(|| format!("the peer {}", peer.path.display()))?);
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
        // Thousands of short connections a second between two addresses use up the ports that wait
        // in TIME_WAIT; reuse (safe with timestamps) measures connections, not the lack of ports.
        for pod in [&client, &server] {
            pod.netns().set(&[("ipv4/tcp_tw_reuse", "1")])?;
        }
        Ok(Self {
            name,
            client,
            server,
            lab: meshed.then(|| lab.clone()),
        })
    }

    async fn of_peer(peer: &Peer, builder: Builder) -> Result<Self> {
        let builder = builder.binary(peer.path.clone());
        match peer.kind {
            Kind::Culvert => Self::new("peer", &builder.start().await?, true).await,
            Kind::Istio => {
                let lab = builder.without_ztunnel().start().await?;
                // Announced now, captured when a ztunnel connects.
                let subject = Self::new("peer", &lab, true).await?;
                istio::launch(&lab, &[&subject.client, &subject.server]).await?;
                Ok(subject)
            }
        }
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
