//! The few of Envoy's own counters that Istio's dashboards and people's alerts look at: requests of
//! clients by listener prefix and requests to clusters, each with the class of the status.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::exchange::Exchange;
use super::metrics::{Counter, Family, label};
use crate::model::cluster::Cluster;

/// Clusters that a worker knows at a time. Beyond, it forgets them all and finds them again.
const KNOWN: usize = 4096;

/// The families, which all workers share.
#[derive(Debug)]
pub(super) struct Families {
    downstream: Family<Counter>,
    downstream_class: Family<Counter>,
    timeouts: [Family<Counter>; 3],
    upstream: Family<Counter>,
    upstream_class: Family<Counter>,
    retries: Family<Counter>,
    connections: Family<Counter>,
}

/// Requests under one name: all of them, and by the class of their status.
#[derive(Debug)]
pub(super) struct Requests {
    all: Option<Arc<Counter>>,
    classes: [Option<Arc<Counter>>; 5],
    /// In the order of [`TIMEOUTS`].
    timeouts: [Option<Arc<Counter>>; 3],
    retries: Option<Arc<Counter>>,
}

/// Limits of time that requests came to: a counter's name, what it says, and the details of an answer
/// that it counts.
const TIMEOUTS: [(&str, &str, &str); 3] = [
    (
        "envoy_http_downstream_rq_header_timeout",
        "Requests whose head did not come in time",
        "request_header_timeout",
    ),
    (
        "envoy_http_downstream_rq_timeout",
        "Requests that did not come in time as a whole",
        "request_overall_timeout",
    ),
    (
        "envoy_http_downstream_rq_idle_timeout",
        "Requests that ended because nothing moved",
        "stream_idle_timeout",
    ),
];

/// The clusters that a worker met.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    known: HashMap<usize, (Weak<Cluster>, Rc<Requests>)>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            downstream: Family::new("envoy_http_downstream_rq_total", "Requests of clients"),
            downstream_class: Family::new(
                "envoy_http_downstream_rq_xx",
                "Requests of clients by the class of the answer's status",
            ),
            timeouts: TIMEOUTS.map(|(name, help, _)| Family::new(name, help)),
            upstream: Family::new("envoy_cluster_upstream_rq_total", "Requests to a cluster"),
            upstream_class: Family::new(
                "envoy_cluster_upstream_rq_xx",
                "Requests to a cluster by the class of the answer's status",
            ),
            retries: Family::new(
                "envoy_cluster_upstream_rq_retry",
                "Attempts after the first",
            ),
            connections: Family::new(
                "envoy_tcp_downstream_cx_total",
                "Opaque connections of clients",
            ),
        }
    }
}

impl Families {
    /// Appends all series.
    pub(super) fn encode(&self, out: &mut String) {
        self.downstream.encode(out);
        self.downstream_class.encode(out);
        for family in &self.timeouts {
            family.encode(out);
        }
        self.upstream.encode(out);
        self.upstream_class.encode(out);
        self.retries.encode(out);
        self.connections.encode(out);
    }

    /// The counters of requests that come in under a prefix.
    pub(super) fn of_prefix(&self, prefix: &str) -> Requests {
        let name = "envoy_http_conn_manager_prefix";
        Requests {
            all: self.downstream.of(&set(&[(name, prefix)])),
            classes: classes(&self.downstream_class, name, prefix),
            timeouts: self
                .timeouts
                .each_ref()
                .map(|family| family.of(&set(&[(name, prefix)]))),
            retries: None,
        }
    }

    /// An opaque connection came in under a prefix.
    pub(super) fn connected(&self, prefix: &str) {
        if let Some(counter) = self.connections.of(&set(&[("envoy_tcp_prefix", prefix)])) {
            counter.add(1);
        }
    }

    fn of_cluster(&self, cluster: &Cluster) -> Requests {
        let name = "envoy_cluster_name";
        let value = match &*cluster.stat_name {
            "" => &*cluster.name,
            stat_name => stat_name,
        };
        Requests {
            all: self.upstream.of(&set(&[(name, value)])),
            classes: classes(&self.upstream_class, name, value),
            timeouts: [None, None, None],
            retries: self.retries.of(&set(&[(name, value)])),
        }
    }
}

impl Clusters {
    /// The counters of requests to a cluster.
    pub(super) fn of(&mut self, cluster: &Arc<Cluster>, families: &Families) -> Rc<Requests> {
        let address = Arc::as_ptr(cluster).addr();
        if let Some((_, known)) = self.known.get(&address) {
            return Rc::clone(known);
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let new = Rc::new(families.of_cluster(cluster));
        let known = (Arc::downgrade(cluster), Rc::clone(&new));
        self.known.insert(address, known);
        new
    }
}

impl Requests {
    /// Counts an exchange that is over.
    pub(super) fn count(&self, exchange: &Exchange) {
        let add = |counter: &Option<Arc<Counter>>, more: u64| {
            if let Some(counter) = counter {
                counter.add(more);
            }
        };
        add(&self.all, 1);
        let class = exchange.status.map_or(0, |status| status.as_u16() / 100);
        if let Some(counter) = usize::from(class)
            .checked_sub(1)
            .and_then(|at| self.classes.get(at))
        {
            add(counter, 1);
        }
        // Those come with 408, or with 504 where the request was there as a whole.
        if matches!(class, 4 | 5)
            && let Some(at) = TIMEOUTS
                .iter()
                .position(|(.., details)| *details == exchange.details)
        {
            add(&self.timeouts[at], 1);
        }
        let retries = exchange.upstream.attempts.saturating_sub(1);
        if retries > 0 {
            add(&self.retries, retries.into());
        }
    }
}

fn classes(family: &Family<Counter>, name: &str, value: &str) -> [Option<Arc<Counter>>; 5] {
    let class =
        |class: &str| family.of(&set(&[("envoy_response_code_class", class), (name, value)]));
    ["1", "2", "3", "4", "5"].map(class)
}

fn set(labels: &[(&str, &str)]) -> Arc<str> {
    let mut text = String::new();
    for (name, value) in labels {
        label(&mut text, name, value);
    }
    text.into()
}
