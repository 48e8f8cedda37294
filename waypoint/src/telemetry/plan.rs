//! What a chain's logs and traces look at, found out once a chain and worker: so that a request
//! keeps only the headers that somebody wants, and none where nobody does.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use http::HeaderName;

use super::Shared;
use super::envoy::Requests;
use super::writer::Writer;
use crate::model::expression::Expression;
use crate::model::format::{Format, Operator, Part};
use crate::model::http::{HttpChain, HttpFilter, StatsFilter};
use crate::model::log::{AccessLog, JsonFormat, LogFilter, LogFormat, Tag};
use crate::model::text::HeaderKey;

/// Chains that a worker knows at a time. Beyond, it forgets them all and finds out again.
const KNOWN: usize = 4096;

/// What one chain's logs and traces look at.
#[derive(Debug)]
pub(super) struct Plan {
    /// Points at the chain, so that no other can have its address.
    _chain: Weak<HttpChain>,
    /// Istio's metrics, where the chain keeps them.
    pub(super) stats: Option<Arc<StatsFilter>>,
    /// Envoy's counters of the chain.
    pub(super) requests: Requests,
    /// Who writes each of the chain's logs, in their order.
    pub(super) writers: Vec<Arc<Writer>>,
    pub(super) wanted: Wanted,
}

/// Which headers somebody wants.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Of requests.
    pub(super) request: Vec<HeaderName>,
    /// Of answers.
    pub(super) response: Vec<HeaderName>,
    /// Trailers of answers.
    pub(super) trailers: Vec<HeaderName>,
}

/// The plans of all chains that a worker met.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: HashMap<usize, Rc<Plan>>,
    /// The one that was asked for last, which is mostly asked for again.
    last: Option<(usize, Rc<Plan>)>,
}

impl Plans {
    /// The plan of a chain.
    pub(super) fn of(&mut self, chain: &Arc<HttpChain>, shared: &Shared) -> Rc<Plan> {
        let address = Arc::as_ptr(chain).addr();
        match &self.last {
            Some((last, plan)) if *last == address => return Rc::clone(plan),
            _ => {}
        }
        let plan = match self.known.get(&address) {
            Some(plan) => Rc::clone(plan),
            None => {
                if self.known.len() >= KNOWN {
                    self.known.clear();
                }
                let plan = Rc::new(Plan::new(chain, shared));
                self.known.insert(address, Rc::clone(&plan));
                plan
            }
        };
        self.last = Some((address, Rc::clone(&plan)));
        plan
    }
}

impl Plan {
    fn new(chain: &Arc<HttpChain>, shared: &Shared) -> Self {
        let stats = chain.filters.iter().find_map(|filter| match filter {
            HttpFilter::Stats(stats) => Some(Arc::clone(stats)),
            _ => None,
        });
        let logs = chain.access_logs.iter();
        let mut plan = Self {
            _chain: Arc::downgrade(chain),
            requests: shared.envoy.of_prefix(&chain.stat_prefix),
            writers: logs.map(|log| shared.writers.of(&log.to)).collect(),
            wanted: Wanted::default(),
            stats,
        };
        let wanted = &mut plan.wanted;
        for log in &chain.access_logs {
            wanted.log(log);
        }
        for tag in chain.tracing.iter().flat_map(|tracing| &tracing.tags) {
            wanted.format(&tag.value);
        }
        if chain.tracing.is_some() {
            add(
                &mut wanted.request,
                &HeaderName::from_static("x-request-id"),
            );
            add(&mut wanted.request, &http::header::USER_AGENT);
        }
        let formats = plan.stats.iter().flat_map(|stats| &stats.labels);
        for format in formats.filter_map(|(_, _, value)| value.as_ref()) {
            wanted.format(format);
        }
        plan
    }
}

/// The headers of requests that these logs want.
pub(super) fn request_headers(logs: &[AccessLog]) -> Vec<HeaderName> {
    let mut wanted = Wanted::default();
    for log in logs {
        wanted.log(log);
    }
    wanted.request
}

impl Wanted {
    /// Which headers these tags want.
    pub(super) fn of_tags(tags: &[Tag]) -> Self {
        let mut wanted = Self::default();
        tags.iter().for_each(|tag| wanted.format(&tag.value));
        wanted
    }

    fn log(&mut self, log: &AccessLog) {
        match &log.format {
            LogFormat::Text(format) => self.format(format),
            LogFormat::Json(json) => self.json(json),
        }
        if let Some(filter) = &log.filter {
            self.filter(filter);
        }
    }

    fn json(&mut self, json: &JsonFormat) {
        match json {
            JsonFormat::Object(fields) => fields.iter().for_each(|(_, json)| self.json(json)),
            JsonFormat::List(list) => list.iter().for_each(|json| self.json(json)),
            JsonFormat::Value(format) => self.format(format),
            JsonFormat::Literal(_) => {}
        }
    }

    fn filter(&mut self, filter: &LogFilter) {
        match filter {
            LogFilter::All(all) | LogFilter::Any(all) => {
                all.iter().for_each(|filter| self.filter(filter));
            }
            LogFilter::Header(test) => self.key(&test.key),
            LogFilter::Status(..)
            | LogFilter::Duration(..)
            | LogFilter::Flags(_)
            | LogFilter::Sample(_)
            | LogFilter::NotHealthCheck
            | LogFilter::Traced => {}
            LogFilter::Where(expression) => self.expression(expression),
        }
    }

    fn format(&mut self, format: &Format) {
        for part in &format.parts {
            if let Part::Value { operator, .. } = part {
                self.operator(operator);
            }
        }
    }

    fn expression(&mut self, expression: &Expression) {
        expression.each_operator(&mut |operator| self.operator(operator));
    }

    fn operator(&mut self, operator: &Operator) {
        match operator {
            Operator::Request { key, otherwise } => {
                self.key(key);
                otherwise.iter().for_each(|key| self.key(key));
            }
            Operator::Response { key, otherwise } => {
                std::iter::once(key)
                    .chain(otherwise)
                    .for_each(|name| add(&mut self.response, name));
            }
            Operator::Trailer { key, otherwise } => {
                std::iter::once(key)
                    .chain(otherwise)
                    .for_each(|name| add(&mut self.trailers, name));
            }
            Operator::Expression(expression) => self.expression(expression),
            _ => {}
        }
    }

    fn key(&mut self, key: &HeaderKey) {
        if let HeaderKey::Name(name) = key {
            add(&mut self.request, name);
        }
    }
}

fn add(names: &mut Vec<HeaderName>, name: &HeaderName) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}
