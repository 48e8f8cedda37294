//! Traces: whose trace a request belongs to, whether it is sampled, and what the next hop is told.
//! W3C's `traceparent` and both forms of B3 are understood; what came in is passed on in the same
//! forms, so that neither end has to change. Spans that are over go to a collector by [`export`].

pub mod export;
mod otlp;
mod propagate;
mod zipkin;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

use crate::model::log::{TraceProtocol, Tracing};

pub use propagate::{Forms, Parent, extract, inject};

/// A client's wish to be traced, which a configuration may grant.
const CLIENT_TRACE: HeaderName = HeaderName::from_static("x-client-trace-id");

/// The span of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub id: u64,
    /// The caller's span.
    pub parent: Option<u64>,
    /// It goes to the collector, and so should those behind it.
    pub sampled: bool,
    /// `tracestate`, passed on as it came.
    pub state: Option<HeaderValue>,
    /// How the next hop is told.
    pub forms: Forms,
}

impl Span {
    /// The span of a request, whose headers may name a trace. A trace that was begun elsewhere is
    /// sampled as it was decided there; a new one by chance.
    pub fn start(tracing: &Tracing, headers: &HeaderMap, rng: &mut impl Rng) -> Self {
        let id = rng.random_range(1..=u64::MAX);
        if let Some(parent) = extract(headers) {
            return Self {
                trace: parent.trace,
                id,
                parent: Some(parent.span),
                sampled: match parent.sampled {
                    Some(sampled) => sampled,
                    None => by_chance(tracing, headers, rng),
                },
                state: parent.state,
                forms: parent.forms,
            };
        }
        let zipkin = |provider: &crate::model::log::TraceProvider| {
            provider.protocol == TraceProtocol::Zipkin
        };
        Self {
            trace: rng.random_range(1..=u128::MAX),
            id,
            parent: None,
            sampled: by_chance(tracing, headers, rng),
            state: None,
            forms: match tracing.provider.as_deref().is_some_and(zipkin) {
                true => Forms::B3_MULTI,
                false => Forms::W3C,
            },
        }
    }

    /// A span below this one: an attempt of its own.
    #[must_use]
    pub fn child(&self, rng: &mut impl Rng) -> Self {
        Self {
            id: rng.random_range(1..=u64::MAX),
            parent: Some(self.id),
            ..self.clone()
        }
    }
}

/// Whether a trace that begins here is sampled.
fn by_chance(tracing: &Tracing, headers: &HeaderMap, rng: &mut impl Rng) -> bool {
    let asked = headers.contains_key(CLIENT_TRACE) && tracing.client.holds(rng);
    (asked || tracing.random.holds(rng)) && tracing.overall.holds(rng)
}
