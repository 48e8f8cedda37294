//! The way of one connection out of a pod, top to bottom: original destination → who calls? → route
//! → permit to use the pod's identity → tunnel or plain → copy. A waypoint's pod, or a way into another
//! network, that is just gone is replaced by another; a pod that left the mesh while it was called is
//! called as it takes calls now.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::address::{ClientAddr, OrigDst};
use mesh::drain::Watch;
use mesh::policy::{Denied, Permit};
use mesh::workload::Workload;
use mesh::world::{Route, RouteError};
use tokio::time::timeout;

use super::Parts;
use super::dial::{self, Upstream};
use crate::capture::Captured;
use crate::copying::copy;
use crate::error::line;
use crate::hold;
use crate::reset::reset;
use crate::telemetry::connection::{Outcome, Record};
use crate::telemetry::labels::{Flag, Reporter};

/// Further pods of a waypoint, or ways past a gateway, that are tried when one does not take a
/// connection.
const OTHER_PODS: usize = 2;
/// Longest that a pod of a waypoint is waited for while another may be tried: an address that is
/// gone answers nothing at all.
const HASTE: Duration = Duration::from_secs(2);
/// Draws in search of a pod that has not failed: of two pods the other one is missed by one
/// connection in a million.
const DRAWS: usize = 10;

/// Why a connection did not reach its destination.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It is not known who calls.
    #[error(transparent)]
    Own(#[from] hold::Error),
    /// It leads nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The pod's identity may not be used for it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The other end does not take it.
    #[error(transparent)]
    Dial(#[from] dial::Error),
}

impl Error {
    fn outcome(&self) -> Outcome {
        let flag = match self {
            Self::Own(_) => Flag::Identity,
            Self::Route(_) => Flag::Connect,
            Self::Denied(_) => Flag::Denied,
            Self::Dial(error) => error.flag(),
        };
        Outcome::failed(flag, line(self))
    }
}

/// Carries one connection to its end.
pub(super) async fn carry(out: &Parts, captured: Captured, drain: &Watch) {
    let Captured {
        stream,
        client,
        original,
    } = captured;
    let metrics = &out.shared.metrics;
    let mut record = Record::begin(Reporter::Source, client, original);
    // Boxed, so that a long connection does not carry the room that its beginning needed.
    match Box::pin(connect(out, client, original, &mut record)).await {
        Ok((permit, upstream)) => {
            let open = record.opened(metrics);
            let outcome = match upstream {
                Upstream::Tunnel(tunnel) => copy(permit, stream, tunnel, drain, pending()).await,
                Upstream::Plain(plain) => copy(permit, stream, plain, drain, pending()).await,
            };
            open.end(&outcome);
        }
        Err(error) => {
            reset(stream);
            if let Error::Dial(dial::Error::Tunnel(tunnel)) = &error
                && let Some(reason) = tunnel.refusal()
            {
                metrics.tls_refused(Reporter::Source, reason);
            }
            record.refused(metrics, &error.outcome());
        }
    }
}

async fn connect(
    out: &Parts,
    client: ClientAddr,
    original: OrigDst,
    record: &mut Record,
) -> Result<(Permit, Upstream), Error> {
    let own = out.shared.hold.own(&out.pod).await?;
    record.source = Some(Arc::clone(&own));
    record.source_identity = Some(own.identity.clone());
    let mut failed = Failed::default();
    let mut asked_again = false;
    loop {
        let Some((permit, route)) = decide(out, &own, original, &failed)? else {
            failed.no_other()?;
            continue;
        };
        learn(record, &route);
        let hop = replaceable(&route);
        let called = called_itself(&route);
        let dialled = dial::dial(out, &own, client, permit.clone(), route);
        let dialled = match hop {
            Some(hop) if failed.may_go_on() => timeout(HASTE, dialled)
                .await
                .unwrap_or_else(|_| Err(dial::Error::slow(hop))),
            _ => dialled.await,
        };
        match dialled {
            Ok(upstream) => return Ok((permit, upstream)),
            Err(error) => match called {
                Some(called)
                    if !asked_again && error.is_of_the_hop() && has_changed(out, &called) =>
                {
                    let uid = &called.uid;
                    tracing::debug!(%uid, %error, "it takes connections in another way by now");
                    asked_again = true;
                }
                _ => failed.note(hop, error)?,
            },
        }
    }
}

/// The workload at whose own pod a tunnel ends.
fn called_itself(route: &Route) -> Option<Arc<Workload>> {
    match route {
        Route::Hbone {
            destination,
            via_waypoint: false,
            beyond: None,
            ..
        } => Some(Arc::clone(destination)),
        _ => None,
    }
}

/// Whether a workload left the mesh, or is gone, since it was called. What it was called with then
/// reached nobody, and may go another way.
fn has_changed(out: &Parts, called: &Workload) -> bool {
    let world = out.shared.world.read();
    let now = world.workload(&called.uid);
    now.is_none_or(|now| now.tunnel != called.tunnel)
}

/// The pods of a waypoint, or gateways, that did not take the connection. Nothing of the application was sent to
/// them, so another pod may have it.
#[derive(Default)]
struct Failed {
    hops: Vec<SocketAddr>,
    last: Option<dial::Error>,
    /// Whether the last pod gets all the time there is, because there is no other.
    patient: bool,
}

impl Failed {
    /// Whether another pod may be tried after this attempt.
    fn may_go_on(&self) -> bool {
        !self.patient && self.hops.len() < OTHER_PODS
    }

    /// Keeps the error for the case that there is no other pod, or gives it back at once.
    fn note(&mut self, hop: Option<SocketAddr>, error: dial::Error) -> Result<(), dial::Error> {
        match hop {
            Some(hop) if error.is_of_the_hop() && self.may_go_on() => {
                tracing::debug!(%hop, %error, "another pod of the waypoint, or another way, is tried");
                self.hops.push(hop);
                self.last = Some(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// There is no other pod: one that was only slow is tried again, with patience.
    fn no_other(&mut self) -> Result<(), dial::Error> {
        match self.last.take() {
            Some(error) if !error.is_slowness() => Err(error),
            _ => {
                self.hops.clear();
                self.patient = true;
                Ok(())
            }
        }
    }

    fn has(&self, route: &Route) -> bool {
        replaceable(route).is_some_and(|hop| self.hops.contains(&hop))
    }
}

/// The pod of a waypoint that a route leads to, or the gateway of another network. Beside a gateway
/// there may be another one, and endpoints in this network.
fn replaceable(route: &Route) -> Option<SocketAddr> {
    match route {
        Route::Hbone {
            next_hop,
            via_waypoint,
            beyond,
            ..
        } if *via_waypoint || beyond.is_some() => Some(*next_hop),
        _ => None,
    }
}

/// One look at the world answers both questions; nothing, if every way has failed.
fn decide(
    out: &Parts,
    own: &Workload,
    original: OrigDst,
    failed: &Failed,
) -> Result<Option<(Permit, Route)>, Error> {
    let world = out.shared.world.read();
    let permit = world.permit_outbound(own, original)?;
    let streams = |hop| match failed.hops.contains(&hop) {
        true => usize::MAX,
        false => out.shared.pool.streams(hop),
    };
    let mut rng = rand::rng();
    for _ in 0..DRAWS {
        let route = world.route_by_load(own, original, &streams, &mut rng)?;
        if !failed.has(&route) {
            return Ok(Some((permit, route)));
        }
    }
    Ok(None)
}

/// Fills in what a log line and labels say about the destination.
fn learn(record: &mut Record, route: &Route) {
    match route {
        Route::Hbone {
            next_hop,
            authority,
            destination,
            service,
            ..
        } => {
            record.hbone = Some(*next_hop);
            let address = authority.parse();
            record.asked = address.is_err().then(|| authority.clone());
            record.to = address.unwrap_or(record.to);
            record.destination_identity = Some(destination.identity.clone());
            record.destination = Some(Arc::clone(destination));
            record.service.clone_from(service);
        }
        Route::Plain {
            to,
            destination,
            service,
        } => {
            record.to = *to;
            record.destination.clone_from(destination);
            record.service.clone_from(service);
        }
    }
}
