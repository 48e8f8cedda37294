//! Opaque connections: to a cluster chosen by weight, byte for byte.

mod flow;

use std::time::{Instant, SystemTime};

use std::rc::Rc;
use std::sync::Arc;

use crate::connection::Downstream;
use crate::listen::Denied;
use crate::model::listener::ChainKind;
use crate::model::log::AccessLog;
use crate::telemetry::{self, Flags};
use crate::worker::{Connection, Local};

pub use flow::serve;

/// What logs say of requests and connections whose filter chain can't be served.
pub const NOT_SERVED: &str = "filter_chain_not_served";

/// Notes a connection that may not pass; it is reset by being dropped.
pub(crate) fn denied(connection: &Connection, denied: Denied) {
    ended(connection, denied);
}

/// Notes a connection whose filter chain can't be served; it is reset by being dropped.
pub fn not_served(connection: &Connection) {
    let denied = Denied {
        flags: Flags::NO_FILTER_CONFIG,
        details: NOT_SERVED.into(),
        verdict: "",
    };
    ended(connection, denied);
}

fn ended(connection: &Connection, denied: Denied) {
    let down = connection.down.clone();
    let (details, verdict) = (&denied.details, denied.verdict);
    tracing::debug!(remote = %down.remote, chain = %connection.chain.name, %details, verdict, "connection denied");
    let mut record = telemetry::Connection::new(down, Instant::now(), SystemTime::now());
    record.flags |= denied.flags;
    record.details = denied.details;
    record.verdict = verdict;
    record.end = Some(record.start);
    let tcp = match &connection.chain.kind {
        ChainKind::Tcp(tcp) => Some(&**tcp),
        ChainKind::Http(_) | ChainKind::Closed => None,
    };
    let telemetry = &connection.local.telemetry;
    telemetry.closed(&connection.chain, tcp, &record);
}

/// Notes a connection that no chain takes.
pub fn refused(local: &Rc<Local>, listener: &str, logs: &[AccessLog], down: Downstream) {
    tracing::debug!(listener, remote = %down.remote, to = %down.local, "no filter chain found");
    let now = Instant::now();
    let mut record = telemetry::Connection::new(Arc::new(down), now, SystemTime::now());
    record.flags |= Flags::NO_ROUTE;
    record.details = "filter_chain_not_found".into();
    record.end = Some(now);
    local.telemetry.log_connection(logs, &record);
}
