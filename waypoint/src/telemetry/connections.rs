//! How many connections of clients are open, how many were turned away at the door, and how many came
//! to nothing there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counts, which who accepts keeps.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    refused: AtomicU64,
    handshakes_late: AtomicU64,
    handshakes_failed: AtomicU64,
}

impl Connections {
    /// One more is open.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One less is.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// One was turned away.
    pub fn turned_away(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The handshake of one, of TLS or of the tunnel in it, took too long, or failed.
    pub fn without_handshake(&self, late: bool) {
        let counter = match late {
            true => &self.handshakes_late,
            false => &self.handshakes_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many were turned away.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Appends all under Envoy's names.
    pub(super) fn encode(&self, out: &mut String) {
        for (name, kind, help, value) in [
            (
                "envoy_server_total_connections",
                "gauge",
                "Connections of clients that are open",
                u64::try_from(self.open()).unwrap_or(u64::MAX),
            ),
            (
                "envoy_listener_downstream_global_cx_overflow",
                "counter",
                "Connections that were turned away because there were as many as there may be",
                self.refused(),
            ),
            (
                "envoy_listener_downstream_cx_transport_socket_connect_timeout",
                "counter",
                "Connections whose handshake was not over in time",
                self.handshakes_late.load(Ordering::Relaxed),
            ),
            (
                "envoy_listener_ssl_connection_error",
                "counter",
                "Connections whose handshake failed",
                self.handshakes_failed.load(Ordering::Relaxed),
            ),
        ] {
            out.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            ));
        }
    }
}
