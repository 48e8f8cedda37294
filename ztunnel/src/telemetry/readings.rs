//! Numbers that other rooms count, read when somebody asks for the metrics.

use std::fmt;
use std::sync::Arc;

use mesh::certificate::{Certificates, Held};
use mesh::hbone::Pool;
use mesh::xds::{Counters, Termination};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::capture::Capture;

/// One number with its label, if it has one.
type Number = (Option<(&'static str, &'static str)>, u64);

/// A counter of the subscription that there is for each type of resources: its name, its meaning,
/// and how it is read.
type ByType = (&'static str, &'static str, fn(&Counters, &str) -> u64);

/// A metric whose values are read elsewhere.
struct Reading<F> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: F,
}

/// What the kernel programs captured, let pass and refused.
pub fn capture(registry: &mut Registry, capture: Capture) {
    registry.register_collector(Box::new(KernelCounters(capture)));
}

/// The subscription to the control plane.
pub fn xds(registry: &mut Registry, counters: &Arc<Counters>) {
    let read = Arc::clone(counters);
    gauge(
        registry,
        "culvert_xds_connected",
        "1 while the control plane is connected",
        move || vec![(None, u64::from(read.connected()))],
    );
    let read = Arc::clone(counters);
    let name = "istio_xds_connection_terminations";
    counter(
        registry,
        name,
        "Connections to the control plane that ended, by how",
        move || {
            Termination::ALL
                .map(|how| (Some(("reason", how.as_str())), read.terminations(how)))
                .to_vec()
        },
    );
    let by_type: [ByType; 3] = [
        (
            "istio_xds_message",
            "Responses from the control plane, by type",
            Counters::messages,
        ),
        (
            "istio_xds_message_bytes",
            "Bytes of resources received, by type",
            Counters::bytes,
        ),
        (
            "culvert_xds_rejected",
            "Resources refused because they were malformed, by type",
            Counters::rejected,
        ),
    ];
    for (name, help, count) in by_type {
        let read = Arc::clone(counters);
        counter(registry, name, help, move || {
            read.types()
                .map(|url| (Some(("url", url)), count(&read, url)))
                .collect()
        });
    }
}

/// Certificates of this node's pods, by state.
pub fn certificates(registry: &mut Registry, certificates: Certificates) {
    let help = "Certificates of this node's pods, by state";
    gauge(registry, "culvert_certificates", help, move || {
        let mut states = [("available", 0), ("requested", 0), ("failed", 0)];
        for (_, held) in certificates.held() {
            let state = match held {
                Held::Certificate(_) => 0,
                Held::Requested => 1,
                Held::Failed(_) => 2,
            };
            states[state].1 += 1;
        }
        states
            .map(|(state, count)| (Some(("state", state)), count))
            .to_vec()
    });
}

/// Tunnels to other nodes that may take new streams.
pub fn tunnels(registry: &mut Registry, pool: Pool) {
    let help = "Tunnels that may take new streams";
    gauge(registry, "culvert_tunnels", help, move || {
        vec![(None, pool.connections() as u64)]
    });
}

fn counter<F>(registry: &mut Registry, name: &'static str, help: &'static str, read: F)
where
    F: Fn() -> Vec<Number> + Send + Sync + 'static,
{
    registry.register_collector(Box::new(Reading {
        name,
        help,
        kind: MetricType::Counter,
        read,
    }));
}

fn gauge<F>(registry: &mut Registry, name: &'static str, help: &'static str, read: F)
where
    F: Fn() -> Vec<Number> + Send + Sync + 'static,
{
    registry.register_collector(Box::new(Reading {
        name,
        help,
        kind: MetricType::Gauge,
        read,
    }));
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({})", self.name)
    }
}

impl<F: Fn() -> Vec<Number> + Send + Sync + 'static> Collector for Reading<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (label, value) in (self.read)() {
            match label {
                Some(label) => encode(&mut metric.encode_family(&[label])?, self.kind, value)?,
                None => encode(&mut metric, self.kind, value)?,
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Gauge => metric.encode_gauge(&value),
        _ => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
    }
}

/// The kernel programs' counters, which have two labels.
struct KernelCounters(Capture);

impl fmt::Debug for KernelCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelCounters")
    }
}

impl Collector for KernelCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let name = "culvert_capture_connections";
        let help = "Connections that the kernel programs saw, by verdict and reason";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for counter in self.0.counters() {
            let labels = [("verdict", counter.verdict), ("reason", counter.reason)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&counter.value, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mesh::xds::Kind;

    use super::*;

    #[test]
    fn numbers_of_other_rooms_are_read_when_asked_for() {
        let mut registry = Registry::default();
        let types = Kind::ALL.map(Kind::type_url);
        xds(&mut registry, &Arc::new(Counters::new(types)));
        counter(&mut registry, "culvert_answers", "Answers", || {
            vec![(Some(("kind", "good")), 3)]
        });
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for expected in [
            "# TYPE culvert_xds_connected gauge",
            "culvert_xds_connected 0",
            "istio_xds_connection_terminations_total{reason=\"ConnectionError\"} 0",
            "istio_xds_message_total{url=\"type.googleapis.com/istio.workload.Address\"} 0",
            "culvert_answers_total{kind=\"good\"} 3",
        ] {
            assert!(page.contains(expected), "{expected}\nis not in\n{page}");
        }
    }
}
