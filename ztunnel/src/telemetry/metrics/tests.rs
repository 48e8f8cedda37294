//! The page that Prometheus reads.

use super::*;
use crate::telemetry::labels::{Ends, Flag, Security};
use crate::testing::{identity, pod, service};

fn page(registry: &Registry) -> String {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
    page
}

fn labels() -> Labels {
    let (source, destination, service) = (
        pod("sleep", "10.0.0.1"),
        pod("web", "10.0.0.2"),
        service("shop", "10.96.0.1"),
    );
    Labels::new(Ends {
        reporter: Reporter::Source,
        source: Some(&source),
        source_identity: Some(&identity("sleep")),
        destination: Some(&destination),
        destination_identity: Some(&identity("web")),
        service: Some(&service),
        security: Security::MutualTls,
    })
}

#[test]
fn a_connection_is_counted_under_istios_names() {
    let (metrics, registry) = Metrics::new();
    let opened = metrics.opened(Reporter::Source, labels());
    metrics.closed(opened, 84, 175);
    let page = page(&registry);
    for expected in [
        "istio_tcp_connections_opened_total{reporter=\"source\",source_workload=\"sleep\",",
        "source_principal=\"spiffe://cluster.local/ns/default/sa/sleep\"",
        "source_canonical_service=\"sleep\",source_canonical_revision=\"v1\"",
        "destination_service=\"shop.default.svc.cluster.local\",destination_service_name=\"shop\",\
         destination_service_namespace=\"default\",request_protocol=\"tcp\",response_flags=\"-\",\
         connection_security_policy=\"mutual_tls\"} 1",
        "source_region=\"unknown\"",
        "istio_tcp_connections_closed_total{",
        "culvert_connections{reporter=\"source\"} 0",
        "# EOF\n",
    ] {
        assert!(page.contains(expected), "{expected}\nis not in\n{page}");
    }
    let value = |name: &str| {
        page.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(value("istio_tcp_sent_bytes_total{"), "84");
    assert_eq!(value("istio_tcp_received_bytes_total{"), "175");
}

#[test]
fn a_failure_is_counted_with_its_flag() {
    let (metrics, registry) = Metrics::new();
    let opened = metrics.opened(Reporter::Source, labels());
    metrics.failed(opened, labels().ended(Flag::Denied), 0, 0);
    metrics.tls_refused(Reporter::Destination, TlsRefusal::OtherTrustDomain);
    let page = page(&registry);
    let closed = page
        .lines()
        .find(|line| line.starts_with("istio_tcp_connections_closed_total{"))
        .unwrap();
    assert!(closed.contains("response_flags=\"DENY\""), "{closed}");
    assert!(
        page.contains(
            "culvert_tls_refusals_total{reporter=\"destination\",reason=\"other_trust_domain\"} 1"
        ),
        "{page}"
    );
}
