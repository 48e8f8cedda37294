//! The label sets of the dashboards, what Telemetry objects change in them, and that handles are
//! found again.

use super::super::testing::{connection, exchange, format, request, workload};
use super::*;
use crate::model::format::Format;
use crate::model::snapshot::Peers;
use crate::telemetry::flags::Flags;

fn waypoint() -> StatsFilter {
    StatsFilter {
        reporter_waypoint: true,
        ..StatsFilter::default()
    }
}

fn encoded(families: &Families) -> String {
    let mut out = String::new();
    families.encode(&mut out);
    out
}

/// The line of a series.
fn line(text: &str, start: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("{start} isn't in {text}"))
        .to_owned()
}

const LABELS: &str = "reporter=\"waypoint\",source_workload=\"productpage-v1\",\
    source_canonical_service=\"productpage\",source_canonical_revision=\"v1\",\
    source_workload_namespace=\"bookinfo\",\
    source_principal=\"spiffe://cluster.local/ns/bookinfo/sa/productpage\",\
    source_app=\"productpage\",source_version=\"v1\",source_cluster=\"c1\",\
    destination_workload=\"reviews-v3\",destination_workload_namespace=\"bookinfo\",\
    destination_principal=\"spiffe://cluster.local/ns/bookinfo/sa/waypoint\",\
    destination_app=\"reviews\",destination_version=\"v3\",\
    destination_service=\"reviews.bookinfo.svc.cluster.local\",\
    destination_canonical_service=\"reviews\",destination_canonical_revision=\"v3\",\
    destination_service_name=\"reviews\",destination_service_namespace=\"bookinfo\",\
    destination_cluster=\"c1\",";

#[test]
fn a_request_is_counted_with_every_label() {
    let (families, mut cache) = (Families::default(), Cache::default());
    let (filter, exchange, peers) = (Arc::new(waypoint()), exchange(), Current::default());
    for _ in 0..3 {
        cache
            .of(&families, &filter, &exchange, &peers)
            .count(&exchange);
    }
    let text = encoded(&families);
    let rest = "request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"\",\
        response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
    let expected = format!("istio_requests_total{{{LABELS}{rest}}} 3");
    assert_eq!(line(&text, "istio_requests_total{"), expected);
    for (metric, value) in [
        ("istio_request_duration_milliseconds_sum{", " 36"),
        ("istio_request_bytes_sum{", " 15"),
        ("istio_response_bytes_sum{", " 1137"),
        ("istio_response_bytes_count{", " 3"),
    ] {
        assert!(line(&text, metric).ends_with(value), "{metric}");
    }
    assert!(!text.contains("messages_total{"), "only gRPC has messages");
}

/// What Istio's public dashboards (mesh, service, workload, performance; manifests/addons/dashboards of
/// istio/istio, September 2026) ask of a waypoint: series, and the labels that they choose or group by.
/// Durations in seconds are asked for beside those in milliseconds, for proxies that have only these.
const DASHBOARDS: &[(&[&str], &[&str])] = &[
    (
        &["istio_requests_total"],
        &[
            "reporter",
            "response_code",
            "connection_security_policy",
            "destination_cluster",
            "destination_principal",
            "destination_service",
            "destination_workload",
            "destination_workload_namespace",
            "source_cluster",
            "source_workload",
            "source_workload_namespace",
        ],
    ),
    (
        &[
            "istio_request_duration_milliseconds_bucket",
            "istio_request_bytes_bucket",
            "istio_response_bytes_bucket",
        ],
        &[
            "le",
            "reporter",
            "connection_security_policy",
            "destination_service",
            "destination_workload",
            "destination_workload_namespace",
            "source_workload",
            "source_workload_namespace",
        ],
    ),
    (
        &["istio_request_bytes_sum", "istio_response_bytes_sum"],
        &["reporter", "source_workload", "source_workload_namespace"],
    ),
    (
        &[
            "istio_tcp_sent_bytes_total",
            "istio_tcp_received_bytes_total",
        ],
        &[
            "reporter",
            "connection_security_policy",
            "destination_cluster",
            "destination_service",
            "destination_workload",
            "destination_workload_namespace",
            "source_cluster",
            "source_workload",
            "source_workload_namespace",
        ],
    ),
];

#[test]
fn istios_dashboards_find_every_series_and_label() {
    let (families, mut cache) = (Families::default(), Cache::default());
    let (filter, peers) = (Arc::new(waypoint()), Current::default());
    let exchange = exchange();
    let found = cache.of(&families, &filter, &exchange, &peers);
    found.count(&exchange);
    let connection = connection();
    families.opened(&connection, &peers);
    families.moved(&connection, &peers, 3, 4);
    let text = encoded(&families);
    for (series, labels) in DASHBOARDS {
        for name in *series {
            let line = line(&text, &format!("{name}{{"));
            assert!(line.contains("reporter=\"waypoint\""), "{line}");
            for label in *labels {
                let value = line.split_once(&format!("{label}=\""));
                // An empty label is no label to Prometheus.
                let value = value.and_then(|(_, rest)| rest.chars().next());
                assert!(value.is_some_and(|first| first != '"'), "{label} of {line}");
            }
        }
    }
}

#[test]
fn what_differs_is_counted_apart_and_what_doesnt_is_found_again() {
    let (families, mut cache) = (Families::default(), Cache::default());
    let (filter, peers) = (Arc::new(waypoint()), Current::default());
    let first = exchange();
    let mut grpc = exchange();
    (grpc.is_grpc, grpc.grpc_status, grpc.messages_sent) = (true, Some(14), 4);
    let mut failed = exchange();
    failed.flags = Flags::NO_HEALTHY_UPSTREAM;
    failed.status = Some(http::StatusCode::SERVICE_UNAVAILABLE);
    failed.upstream.endpoint = None;
    failed.upstream.remote = None;
    for exchange in [&first, &grpc, &failed, &first] {
        cache
            .of(&families, &filter, exchange, &peers)
            .count(exchange);
    }
    let text = encoded(&families);
    let count = |part: &str| {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"));
        let line = lines.find(|line| line.contains(part)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        count("request_protocol=\"http\",response_code=\"200\""),
        "2"
    );
    assert_eq!(
        count("request_protocol=\"grpc\",response_code=\"200\",grpc_response_status=\"14\""),
        "1"
    );
    assert_eq!(
        count("response_code=\"503\",grpc_response_status=\"\",response_flags=\"UH\""),
        "1"
    );
    assert_eq!(count("destination_workload=\"unknown\""), "1");
    assert!(line(&text, "istio_response_messages_total{").ends_with(" 4"));
}

#[test]
fn telemetry_objects_drop_metrics_and_change_labels() {
    let value = |format: Format| Some(format);
    let filter = Arc::new(StatsFilter {
        dropped: vec!["istio_request_bytes".into(), "response_bytes".into()],
        labels: vec![
            ("".into(), "source_principal".into(), None),
            (
                "".into(),
                "path".into(),
                value(format(&[Err(request(":path"))])),
            ),
            (
                "requests_total".into(),
                "source_app".into(),
                value(Format::literal("mine")),
            ),
            (
                "requests_total".into(),
                "fixed".into(),
                value(Format::literal("x")),
            ),
        ],
        reporter_waypoint: true,
    });
    let (families, mut cache, peers) = (Families::default(), Cache::default(), Current::default());
    let (one, mut other) = (exchange(), exchange());
    other.path = crate::telemetry::Text::Owned("/other".into());
    for exchange in [&one, &other, &other] {
        cache
            .of(&families, &filter, exchange, &peers)
            .count(exchange);
    }
    let text = encoded(&families);
    assert!(!text.contains("istio_request_bytes") && !text.contains("istio_response_bytes"));
    assert!(!text.contains("source_principal"));
    let mut requests = text
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"));
    let of_other = requests
        .find(|line| line.contains("path=\"/other\""))
        .unwrap();
    assert!(
        of_other.ends_with(" 2") && of_other.contains("source_app=\"mine\""),
        "{of_other}"
    );
    assert!(of_other.contains("fixed=\"x\""));
    let duration = line(&text, "istio_request_duration_milliseconds_count{");
    assert!(duration.contains("source_app=\"productpage\"") && !duration.contains("fixed"));
    let all = StatsFilter {
        dropped: vec!["*".into()],
        ..waypoint()
    };
    let families = Families::default();
    families.resolve(&all, &one, &peers).count(&one);
    assert_eq!(encoded(&families), "");
}

#[test]
fn an_endpoint_without_metadata_is_known_by_its_address() {
    let peers = Current::default();
    let by_address = [(
        "10.1.0.9".parse().unwrap(),
        Arc::new(workload("ratings", "v2")),
    )];
    peers.publish_peers(Peers {
        by_address: by_address.into(),
    });
    let mut exchange = exchange();
    exchange.upstream.endpoint = None;
    let (families, mut cache) = (Families::default(), Cache::default());
    cache
        .of(&families, &Arc::new(waypoint()), &exchange, &peers)
        .count(&exchange);
    let text = encoded(&families);
    assert!(line(&text, "istio_requests_total{").contains("destination_workload=\"ratings-v2\""));
}

#[test]
fn connections_are_counted_by_steps() {
    let (families, connection, peers) = (Families::default(), connection(), Current::default());
    families.opened(&connection, &peers);
    families.moved(&connection, &peers, 10, 20);
    families.moved(&connection, &peers, 1, 2);
    families.closed(&connection, &peers);
    let text = encoded(&families);
    let rest =
        "request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
    for (metric, value) in [
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 1),
        ("istio_tcp_received_bytes_total", 11),
        ("istio_tcp_sent_bytes_total", 22),
    ] {
        let expected = format!("{metric}{{{LABELS}{rest}}} {value}");
        assert_eq!(line(&text, &format!("{metric}{{")), expected);
    }
}
