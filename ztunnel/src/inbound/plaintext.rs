//! Plain connections to a pod: from outside the mesh, or from pods that do not speak HBONE. They
//! prove no identity; policies that ask for one deny them.

use std::sync::Arc;

use mesh::address::{ClientAddr, OrigDst};
use mesh::drain::Watch;
use mesh::policy::Permit;
use tokio::net::TcpStream;

use super::flow::{Error, Inbound};
use crate::capture::{Captured, PodNetns};
use crate::connections::Tracked;
use crate::copying::copy;
use crate::pod::Shared;
use crate::pods::Info;
use crate::reset::reset;
use crate::telemetry::connection::Record;
use crate::telemetry::labels::Reporter;

/// One pod's plaintext listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plaintext {
    inbound: Inbound,
}

impl Plaintext {
    /// The plaintext side of a pod.
    #[must_use]
    pub fn new(pod: Arc<Info>, netns: PodNetns, shared: &Shared) -> Self {
        Self {
            inbound: Inbound::new(pod, netns, shared),
        }
    }

    /// Carries one connection to its end.
    pub async fn carry(self, captured: Captured, drain: Watch) {
        let client = captured.client;
        let to = captured.original;
        let metrics = &self.inbound.shared.metrics;
        let mut record = Record::begin(Reporter::Destination, client, to);
        // Boxed, so that a long connection does not carry the room that its beginning needed.
        match Box::pin(self.admit(client, to, &mut record)).await {
            Ok((permit, mut tracked, application)) => {
                let open = record.opened(metrics);
                let outcome = copy(
                    permit,
                    captured.stream,
                    application,
                    &drain,
                    tracked.denied(),
                )
                .await;
                open.end(&outcome);
            }
            Err(error) => {
                reset(captured.stream);
                record.refused(metrics, &error.outcome());
            }
        }
    }

    async fn admit(
        &self,
        client: ClientAddr,
        to: OrigDst,
        record: &mut Record,
    ) -> Result<(Permit, Tracked, TcpStream), Error> {
        let own = self.inbound.own().await?;
        self.inbound.learn(record, &own, client, None, to.get());
        self.inbound
            .authorize_and_dial(&own, client, None, to.get())
            .await
    }
}
