//! Numbers that other rooms count, shown with the metrics.

use prometheus_client::registry::Registry;

use super::metrics::{Number, Reading};
use crate::capture::Capture;

/// What the kernel programs captured, let pass and refused.
pub fn capture(registry: &mut Registry, capture: Capture) {
    Reading::register(
        registry,
        "culvert_capture_connections",
        "Connections that the kernel programs saw, by verdict and reason",
        move || {
            let counters = capture.counters().into_iter();
            let number = |counter: crate::capture::Counter| Number {
                labels: vec![("verdict", counter.verdict.to_owned()), ("reason", counter.reason.to_owned())],
                value: counter.value,
            };
            counters.map(number).collect()
        },
    );
}
