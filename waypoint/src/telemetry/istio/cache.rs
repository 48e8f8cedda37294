//! Handles found again: a table of fixed size, in which each kind of request has one place. What
//! another kind needs the place for is forgotten and found anew, so that the table never grows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use http::StatusCode;
use mesh::workload::Workload;

use super::{Families, Handles, changing};
use crate::model::cluster::Cluster;
use crate::model::endpoint::Endpoint;
use crate::model::http::StatsFilter;
use crate::model::snapshot::Current;
use crate::telemetry::exchange::Exchange;
use crate::telemetry::flags::Flags;

/// Places, a power of two.
const PLACES: usize = 1024;

/// The handles that a worker knows.
#[derive(Debug)]
pub(in crate::telemetry) struct Cache {
    places: Vec<Option<Box<Place>>>,
    /// Reused for labels that change from request to request.
    scratch: String,
}

/// One kind of request and its handles. Things are known by their addresses, which no other can
/// have as long as something weak still points there.
#[derive(Debug)]
struct Place {
    filter: Weak<StatsFilter>,
    source: Option<Weak<Workload>>,
    cluster: Option<Weak<Cluster>>,
    endpoint: Option<Weak<Endpoint>>,
    status: Option<StatusCode>,
    grpc_status: Option<u32>,
    is_grpc: bool,
    flags: Flags,
    principal: Box<str>,
    changing: Box<str>,
    handles: Handles,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            places: std::iter::repeat_with(|| None).take(PLACES).collect(),
            scratch: String::new(),
        }
    }
}

impl Cache {
    /// The handles of an exchange.
    pub(in crate::telemetry) fn of(
        &mut self,
        families: &Families,
        filter: &Arc<StatsFilter>,
        exchange: &Exchange,
        peers: &Current,
    ) -> &Handles {
        self.scratch.clear();
        changing(filter, exchange, &mut self.scratch);
        let at = place(filter, exchange, &self.scratch);
        let found = &mut self.places[at];
        if !found
            .as_ref()
            .is_some_and(|place| place.is_of(filter, exchange, &self.scratch))
        {
            *found = None;
        }
        &found
            .get_or_insert_with(|| {
                let handles = families.resolve(filter, exchange, peers);
                Box::new(Place::new(filter, exchange, &self.scratch, handles))
            })
            .handles
    }
}

impl Place {
    fn new(
        filter: &Arc<StatsFilter>,
        exchange: &Exchange,
        changing: &str,
        handles: Handles,
    ) -> Self {
        let upstream = &exchange.upstream;
        Self {
            filter: Arc::downgrade(filter),
            source: exchange.downstream.workload.as_ref().map(Arc::downgrade),
            cluster: upstream.cluster.as_ref().map(Arc::downgrade),
            endpoint: upstream.endpoint.as_ref().map(Arc::downgrade),
            status: exchange.status,
            grpc_status: exchange.grpc_status,
            is_grpc: exchange.is_grpc,
            flags: exchange.flags,
            principal: exchange.downstream.principal().unwrap_or_default().into(),
            changing: changing.into(),
            handles,
        }
    }

    fn is_of(&self, filter: &Arc<StatsFilter>, exchange: &Exchange, changing: &str) -> bool {
        let upstream = &exchange.upstream;
        Weak::as_ptr(&self.filter) == Arc::as_ptr(filter)
            && self.status == exchange.status
            && self.grpc_status == exchange.grpc_status
            && self.is_grpc == exchange.is_grpc
            && self.flags == exchange.flags
            && same(self.source.as_ref(), exchange.downstream.workload.as_ref())
            && same(self.cluster.as_ref(), upstream.cluster.as_ref())
            && same(self.endpoint.as_ref(), upstream.endpoint.as_ref())
            && *self.principal == *exchange.downstream.principal().unwrap_or_default()
            && *self.changing == *changing
    }
}

fn same<T>(known: Option<&Weak<T>>, now: Option<&Arc<T>>) -> bool {
    known.map(Weak::as_ptr) == now.map(Arc::as_ptr)
}

/// The place of an exchange's kind.
fn place(filter: &Arc<StatsFilter>, exchange: &Exchange, changing: &str) -> usize {
    let address = |pointer: Option<usize>| pointer.unwrap_or_default();
    let upstream = &exchange.upstream;
    let source = exchange.downstream.workload.as_ref();
    let mut hasher = DefaultHasher::new();
    (
        Arc::as_ptr(filter).addr(),
        address(source.map(|source| Arc::as_ptr(source).addr())),
        address(
            upstream
                .cluster
                .as_ref()
                .map(|cluster| Arc::as_ptr(cluster).addr()),
        ),
        address(
            upstream
                .endpoint
                .as_ref()
                .map(|endpoint| Arc::as_ptr(endpoint).addr()),
        ),
        exchange.status.map_or(0, |status| status.as_u16()),
        exchange.grpc_status,
        exchange.flags,
        changing,
    )
        .hash(&mut hasher);
    // Only the lowest bits count.
    (hasher.finish() as usize) & (PLACES - 1)
}
