//! Faults that are put in: whether a request is held up, and whether it is answered here instead of
//! by its upstream. As Envoy's fault filter decides, without its `x-envoy-fault-*` headers, which
//! no configuration of ours turns on.

use std::time::Duration;

use rand::Rng;

use crate::head::Head;
use crate::model::http::{AbortWith, Fault};

/// The body of an aborted request's answer; details `fault_filter_abort`, response flag `FI`.
pub const ABORT_BODY: &str = "fault filter abort";

/// What is done to a request: first the pause (response flag `DI`), then the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    /// It is held up for so long.
    pub delay: Option<Duration>,
    /// It is answered so.
    pub abort: Option<AbortWith>,
}

impl Injected {
    /// Whether anything is done at all: then it counts among the active faults until it is over.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.delay.is_some() || self.abort.is_some()
    }
}

/// What is done to a request for this cluster, while so many faults are active.
pub fn decide(
    fault: &Fault,
    head: &Head<'_>,
    cluster: &str,
    active: u32,
    rng: &mut impl Rng,
) -> Injected {
    let elsewhere = fault
        .upstream
        .as_deref()
        .is_some_and(|upstream| upstream != cluster);
    if elsewhere || !head.matches_all(&fault.headers) {
        return Injected::default();
    }
    if fault.max_active.is_some_and(|most| active >= most) {
        return Injected::default();
    }
    let delay = fault.delay.filter(|(_, share)| share.holds(rng));
    let abort = fault.abort.filter(|(_, share)| share.holds(rng));
    Injected {
        delay: delay
            .map(|(delay, _)| delay)
            .filter(|delay| !delay.is_zero()),
        abort: abort.map(|(abort, _)| abort),
    }
}

/// The HTTP status of an abort. A gRPC status travels in 200, as gRPC has it, also to a client that
/// doesn't speak gRPC: that is what Envoy does.
#[must_use]
pub fn http_status(abort: AbortWith) -> http::StatusCode {
    match abort {
        AbortWith::Http(status) => status,
        AbortWith::Grpc(_) => http::StatusCode::OK,
    }
}

#[cfg(test)]
mod tests;
