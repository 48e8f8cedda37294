//! What is counted of the configuration, for Prometheus: the connection to the control plane, what
//! it sent, what was refused, and what was met that isn't served.

use std::fmt::Write as _;

use mesh::xds::{Counters, Termination};

use crate::source::envoy::Envoy;
use crate::source::feed::Feed;

/// A counter that there is for each type of resources: its name, its meaning, how it is read.
type ByType = (&'static str, &'static str, fn(&Counters, &str) -> u64);

/// Appends it all.
pub(super) fn encode(feed: &Feed<Envoy>, out: &mut String) {
    if let Some(counters) = feed.counters() {
        control_plane(counters, out);
    }
    feed.look(|store| {
        let refused = store.refused().len();
        family(
            out,
            "culvert_waypoint_resources_refused",
            "gauge",
            "Resources whose last version is refused",
        );
        let _ = writeln!(out, "culvert_waypoint_resources_refused {refused}");
        family(
            out,
            "culvert_waypoint_not_served_total",
            "counter",
            "Fields and extensions in the configuration that are not served, by name",
        );
        for (name, times) in store.compiler().seen().iter() {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(
                out,
                "culvert_waypoint_not_served_total{{name=\"{name}\"}} {times}"
            );
        }
    });
}

fn control_plane(counters: &Counters, out: &mut String) {
    family(
        out,
        "culvert_xds_connected",
        "gauge",
        "1 while the control plane is connected",
    );
    let connected = u8::from(counters.connected());
    let _ = writeln!(out, "culvert_xds_connected {connected}");
    let name = "istio_xds_connection_terminations_total";
    family(
        out,
        name,
        "counter",
        "Connections to the control plane that ended, by how",
    );
    for how in Termination::ALL {
        let times = counters.terminations(how);
        let _ = writeln!(out, "{name}{{reason=\"{}\"}} {times}", how.as_str());
    }
    let by_type: [ByType; 3] = [
        (
            "istio_xds_message_total",
            "Responses from the control plane, by type",
            Counters::messages,
        ),
        (
            "istio_xds_message_bytes_total",
            "Bytes of resources received, by type",
            Counters::bytes,
        ),
        (
            "culvert_xds_rejected_total",
            "Resources refused, by type",
            Counters::rejected,
        ),
    ];
    for (name, help, count) in by_type {
        family(out, name, "counter", help);
        for url in counters.types() {
            let _ = writeln!(out, "{name}{{url=\"{url}\"}} {}", count(counters, url));
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::Current;
    use crate::source::kind::Kind;
    use crate::source::secret::Secrets;
    use crate::source::store::{Change, Store, Update};

    #[test]
    fn what_is_refused_and_what_is_not_served_is_counted() {
        let secrets = Secrets::default();
        let feed = Feed::new(Store::new(Envoy::default(), secrets, Current::default()));
        let cluster = crate::source::json::Descriptors::get()
            .any(serde_json::json!({
                "@type": Kind::Cluster.type_url(),
                "name": "a",
                "health_checks": [{"timeout": "1s", "interval": "1s"}],
            }))
            .unwrap();
        let update = |name: &str| Update {
            name: name.into(),
            version: "1".into(),
            bytes: cluster.value.clone().into(),
        };
        feed.apply(Change {
            kind: Kind::Cluster,
            updated: vec![update("a"), update("b")],
            removed: Vec::new(),
        });
        let mut page = String::new();
        encode(&feed, &mut page);
        for line in [
            "# TYPE culvert_waypoint_resources_refused gauge",
            "culvert_waypoint_resources_refused 1",
            "culvert_waypoint_not_served_total{name=\"Cluster.health_checks\"} 1",
        ] {
            assert!(page.lines().any(|has| has == line), "{line}\n{page}");
        }
        let counters = Counters::new([Kind::Cluster.type_url()]);
        control_plane(&counters, &mut page);
        let line = format!(
            "istio_xds_message_total{{url=\"{}\"}} 0",
            Kind::Cluster.type_url()
        );
        assert!(page.lines().any(|has| has == line), "{line}\n{page}");
    }
}
