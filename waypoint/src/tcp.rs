//! Opaque connections: to a cluster chosen by weight, byte for byte.

mod flow;

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use std::rc::Rc;
use std::sync::Arc;

use crate::connection::Downstream;
use crate::model::listener::ChainKind;
use crate::model::log::AccessLog;
use crate::telemetry::{self, Flags};
use crate::worker::{Connection, Local};

pub use flow::serve;

/// What logs say of requests and connections whose filter chain can't be served.
pub const NOT_SERVED: &str = "filter_chain_not_served";

/// Notes a connection that may not pass; it is reset by being dropped.
pub fn denied(connection: &Connection, flags: Flags, details: Cow<'static, str>) {
    ended(connection, flags, details);
}

/// Notes a connection whose filter chain can't be served; it is reset by being dropped.
pub fn not_served(connection: &Connection) {
    ended(connection, Flags::NO_FILTER_CONFIG, NOT_SERVED.into());
}

fn ended(connection: &Connection, flags: Flags, details: Cow<'static, str>) {
    let down = connection.down.clone();
    tracing::debug!(remote = %down.remote, chain = %connection.chain.name, %details, "connection denied");
    let mut record = telemetry::Connection::new(down, Instant::now(), SystemTime::now());
    record.flags |= flags;
    record.details = details;
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
