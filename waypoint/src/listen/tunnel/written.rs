//! What is written down of a tunnel's CONNECT, as of any other request, in the logs of the listener
//! that ends tunnels. Where it has none, nothing is kept and no byte is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use http::{Method, StatusCode, Version};
use mesh::hbone;
use mesh::tap::Tapped;

use super::Tunnel;
use crate::connection::Downstream;
use crate::listen::io::{Meter, Wire};
use crate::model::listener::{Listener, ListenerKind};
use crate::model::snapshot::Snapshot;
use crate::telemetry::{Exchange, Flags, Marks, Text};

/// A CONNECT that is written down when it is over.
pub(super) struct Written {
    listener: Arc<Listener>,
    exchange: Exchange,
    meter: Arc<Meter>,
}

impl Tunnel {
    /// The record of a CONNECT that begins, where a log wants it.
    pub(super) fn written(
        &self,
        snapshot: &Snapshot,
        request: &hbone::Request,
        down: &Downstream,
    ) -> Option<Box<Written>> {
        let listener = snapshot.listeners.get(&self.name)?;
        let ListenerKind::Tunnel(tunnel) = &listener.kind else {
            return None;
        };
        if tunnel.access_logs.is_empty() {
            return None;
        }
        let marks = Marks::new(Instant::now(), SystemTime::now());
        // Of the tunnel itself: what goes on inside has a name of its own.
        let down = Arc::new(Downstream {
            local: self.here,
            ..down.clone()
        });
        let mut exchange = Exchange::new(down, marks, Method::CONNECT, Version::HTTP_2);
        exchange.authority = Text::Owned(request.authority().into());
        let telemetry = &self.local.telemetry;
        telemetry.keep(&tunnel.access_logs, &mut exchange, request.headers());
        let cluster = snapshot.clusters.get(&tunnel.to);
        exchange.upstream.cluster = cluster.map(|entry| entry.cluster.clone());
        Some(Box::new(Written {
            listener: Arc::clone(listener),
            exchange,
            meter: Arc::default(),
        }))
    }

    /// The request was refused.
    pub(super) fn refused(&self, written: Option<Box<Written>>, status: StatusCode, flags: Flags) {
        if let Some(mut written) = written {
            written.exchange.flags |= flags;
            written.exchange.details = "filter_chain_not_found".into();
            self.finish(*written, status);
        }
    }

    /// The stream that it opened is over.
    pub(super) fn ended(&self, written: Option<Box<Written>>) {
        if let Some(mut written) = written {
            written.exchange.details = "via_upstream".into();
            written.exchange.received = written.meter.received.load(Relaxed);
            written.exchange.sent = written.meter.sent.load(Relaxed);
            self.finish(*written, StatusCode::OK);
        }
    }

    fn finish(&self, written: Written, status: StatusCode) {
        let Written {
            listener,
            mut exchange,
            ..
        } = written;
        exchange.status = Some(status);
        exchange.marks.end = Some(Instant::now());
        if let ListenerKind::Tunnel(tunnel) = &listener.kind {
            let telemetry = &self.local.telemetry;
            telemetry.log_exchange(&tunnel.access_logs, &exchange);
        }
    }
}

impl Written {
    /// The stream's bytes, counted.
    pub(super) fn wire(&self, stream: hbone::Io) -> Wire {
        Wire::Metered(Box::new(Tapped::new(stream, Arc::clone(&self.meter))))
    }
}
