//! What a chain's logs and traces look at, found out once a chain and worker: so that a request
//! keeps only the headers that somebody wants, and none where nobody does.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderName;

use crate::model::format::{Format, Operator, Part};
use crate::model::http::HttpChain;
use crate::model::log::{AccessLog, JsonFormat, LogFilter, LogFormat};
use crate::model::text::HeaderKey;

/// Chains that a worker knows at a time. Beyond, it forgets them all and finds out again.
const KNOWN: usize = 4096;

/// What one chain's logs and traces look at.
#[derive(Debug)]
pub(super) struct Plan {
    /// Keeps the chain alive, so that no other can have its address.
    _chain: Arc<HttpChain>,
    /// Headers of requests.
    pub(super) request: Vec<HeaderName>,
    /// Headers of answers.
    pub(super) response: Vec<HeaderName>,
    /// Trailers of answers.
    pub(super) trailers: Vec<HeaderName>,
}

/// The plans of all chains that a worker met.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: HashMap<usize, Rc<Plan>>,
}

impl Plans {
    /// The plan of a chain.
    pub(super) fn of(&mut self, chain: &Arc<HttpChain>) -> Rc<Plan> {
        let address = Arc::as_ptr(chain).addr();
        if let Some(plan) = self.known.get(&address) {
            return Rc::clone(plan);
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let plan = Rc::new(Plan::new(chain));
        self.known.insert(address, Rc::clone(&plan));
        plan
    }
}

impl Plan {
    fn new(chain: &Arc<HttpChain>) -> Self {
        let mut plan = Self {
            _chain: Arc::clone(chain),
            request: Vec::new(),
            response: Vec::new(),
            trailers: Vec::new(),
        };
        for log in &chain.access_logs {
            plan.log(log);
        }
        for tag in chain.tracing.iter().flat_map(|tracing| &tracing.tags) {
            plan.format(&tag.value);
        }
        plan
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
        }
    }

    fn format(&mut self, format: &Format) {
        for part in &format.parts {
            let Part::Value { operator, .. } = part else {
                continue;
            };
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
                _ => {}
            }
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
