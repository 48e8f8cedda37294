//! The way of one connection through an HBONE tunnel to a pod, top to bottom: CONNECT → is it for
//! this pod? → authorise → dial the application → 200 → copy.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh::address::{ClientAddr, OrigDst};
use mesh::drain::Watch;
use mesh::hbone::{Destination, Request};
use mesh::identity::Identity;
use mesh::policy::{self, Permit, Source};
use mesh::workload::Workload;
use tokio::net::TcpStream;

use super::authority::{self, Refused};
use super::tunnel::Tunnel;
use crate::capture::{From, PodNetns};
use crate::connections::Tracked;
use crate::copying::copy;
use crate::hold::{self, Hold};
use crate::pod::Shared;
use crate::pods::Info;
use crate::telemetry::connection::{Outcome, Record};
use crate::telemetry::labels::{Flag, Reporter};

/// What inbound connections of one pod need. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    pub(super) pod: Arc<Info>,
    pub(super) netns: PodNetns,
    pub(super) shared: Shared,
}

/// Why a connection did not reach the application.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The request is not for this pod.
    #[error(transparent)]
    NotForUs(#[from] Refused),
    /// Data is missing, or a policy denies it.
    #[error(transparent)]
    Hold(#[from] hold::Error),
    /// Nobody waits any more.
    #[error("the client has given up")]
    GivenUp,
    /// The application does not take it.
    #[error("cannot connect to the application at {to} (does it listen there?): {source}")]
    Dial {
        /// Where it was called.
        to: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn outcome(&self) -> Outcome {
        let flag = match self {
            Self::Hold(error) if error.is_denial() => Flag::Denied,
            Self::Hold(_) => Flag::Identity,
            Self::NotForUs(_) | Self::GivenUp | Self::Dial { .. } => Flag::Connect,
        };
        Outcome::failed(flag, self)
    }

    /// The answer to CONNECT.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotForUs(_) => StatusCode::BAD_REQUEST,
            Self::Hold(error) if error.is_denial() => StatusCode::UNAUTHORIZED,
            Self::Hold(_) | Self::GivenUp | Self::Dial { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Inbound {
    pub(super) fn new(pod: Arc<Info>, netns: PodNetns, shared: &Shared) -> Self {
        Self {
            pod,
            netns,
            shared: shared.clone(),
        }
    }

    /// The workload that this pod is.
    pub(super) async fn own(&self) -> Result<Arc<Workload>, hold::Error> {
        self.hold().own(&self.pod).await
    }

    fn hold(&self) -> &Hold {
        &self.shared.hold
    }

    /// Carries one request to its end.
    pub(super) async fn request(self, mut request: Request, tunnel: Tunnel, drain: Watch) {
        let mut record = Record::begin(
            Reporter::Destination,
            tunnel.client,
            OrigDst::new(tunnel.at),
        );
        record.hbone = Some(tunnel.at);
        let peer = request.peer().identity.clone();
        record.source_identity = Some(peer.clone());
        let asked = request.destination().clone();
        // Boxed, so that a long connection does not carry the room that its beginning needed.
        let admitted = tokio::select! {
            admitted = Box::pin(self.admit(&asked, peer, tunnel, &mut record)) => admitted,
            () = request.cancelled() => Err(Error::GivenUp),
        };
        match admitted {
            Ok((permit, mut tracked, application)) => {
                let open = record.opened(&self.shared.metrics);
                let outcome = match request.accept(permit.clone()) {
                    Ok(stream) => copy(permit, stream, application, &drain, tracked.denied()).await,
                    Err(error) => {
                        Outcome::failed(Flag::Connect, format!("{}: {error}", Error::GivenUp))
                    }
                };
                open.end(&outcome);
            }
            Err(error) => {
                request.refuse(error.status());
                record.refused(&self.shared.metrics, &error.outcome());
            }
        }
    }

    async fn admit(
        &self,
        asked: &Destination,
        peer: Identity,
        tunnel: Tunnel,
        record: &mut Record,
    ) -> Result<(Permit, Tracked, TcpStream), Error> {
        let own = self.own().await?;
        let to = authority::resolve(&self.shared.world.read(), &own, asked, tunnel.at)?;
        self.learn(record, &own, tunnel.client, Some(&peer), to);
        self.authorize_and_dial(&own, tunnel.client, Some(peer), to)
            .await
    }

    /// Fills in what a log line and labels say about the two ends.
    pub(super) fn learn(
        &self,
        record: &mut Record,
        own: &Arc<Workload>,
        client: ClientAddr,
        proven: Option<&Identity>,
        to: SocketAddr,
    ) {
        let world = self.shared.world.read();
        record.to = to;
        record.destination = Some(Arc::clone(own));
        record.destination_identity = proven.map(|_| own.identity.clone());
        record.service = authority::service(&world, own, to.port());
        // An address alone names nobody: it only finds more words for who was proven.
        let source = world.workload_at(&own.network, client.ip());
        record.source = source
            .filter(|source| proven.is_none_or(|proven| source.identity == *proven))
            .cloned();
    }

    /// Decides, and dials the application with the client's own address.
    pub(super) async fn authorize_and_dial(
        &self,
        own: &Arc<Workload>,
        client: ClientAddr,
        identity: Option<Identity>,
        to: SocketAddr,
    ) -> Result<(Permit, Tracked, TcpStream), Error> {
        let source = Source {
            ip: client.ip(),
            identity,
        };
        let connection = policy::Inbound {
            source,
            destination: to,
        };
        let tracked = self
            .shared
            .connections
            .track(Arc::clone(own), connection.clone());
        let permit = self.hold().authorize(own, &connection).await?;
        let application = self
            .netns
            .connect(to, seen_from(client, to))
            .await
            .map_err(|source| Error::Dial { to, source })?;
        Ok((permit, tracked, application))
    }
}

/// The address that the application sees: the client's, unless that can't be one on this socket.
fn seen_from(client: ClientAddr, to: SocketAddr) -> From {
    let same_family = client.get().is_ipv4() == to.is_ipv4();
    if same_family && client.ip() != to.ip() {
        From::Client(client.get())
    } else {
        From::Pod
    }
}
