//! Traces: whose trace a request belongs to, whether it is sampled, and what the next hop is told.
//! W3C's `traceparent` and both forms of B3 are understood; what came in is passed on in the same
//! forms, so that neither end has to change. Spans that are over go to a collector by [`export`].

pub mod export;
mod otlp;
mod propagate;
mod zipkin;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

use crate::model::log::{RouteTracing, TraceProtocol, Tracing};
use crate::model::text::Fraction;

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
        let told = |forms| match tracing.propagates {
            true => forms,
            false => Forms::default(),
        };
        if let Some(parent) = extract(headers) {
            return Self {
                trace: parent.trace,
                id,
                parent: Some(parent.span),
                sampled: match parent.sampled {
                    Some(sampled) => sampled,
                    None => by_chance(&shares(tracing), headers, rng),
                },
                state: parent.state,
                forms: told(parent.forms),
            };
        }
        let zipkin = |provider: &crate::model::log::TraceProvider| {
            provider.protocol == TraceProtocol::Zipkin
        };
        Self {
            trace: rng.random_range(1..=u128::MAX),
            id,
            parent: None,
            sampled: by_chance(&shares(tracing), headers, rng),
            state: None,
            forms: told(match tracing.provider.as_deref().is_some_and(zipkin) {
                true => Forms::B3_MULTI,
                false => Forms::W3C,
            }),
        }
    }

    /// The request's route is known, and says itself what is sampled. What was decided elsewhere stays.
    pub fn on_route(&mut self, route: &RouteTracing, headers: &HeaderMap, rng: &mut impl Rng) {
        let decided = extract(headers).and_then(|parent| parent.sampled);
        if decided.is_none() {
            let RouteTracing {
                random,
                client,
                overall,
                tags: _,
            } = route;
            self.sampled = by_chance(&[*client, *random, *overall], headers, rng);
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

/// Of requests that ask for it, of all, and the bound over both.
fn shares(tracing: &Tracing) -> [Fraction; 3] {
    [tracing.client, tracing.random, tracing.overall]
}

/// Whether a trace that begins here is sampled.
fn by_chance(shares: &[Fraction; 3], headers: &HeaderMap, rng: &mut impl Rng) -> bool {
    let [client, random, overall] = shares;
    let asked = headers.contains_key(CLIENT_TRACE) && client.holds(rng);
    (asked || random.holds(rng)) && overall.holds(rng)
}
