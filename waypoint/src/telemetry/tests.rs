//! A worker from a request's head to its end: what is kept, what the upstream is told, what is
//! counted and written.

use std::path::Path;

use http::HeaderName;

use super::testing::{connection, exchange, format, request};
use super::*;
use crate::model::format::{Format, GrpcForm, Operator};
use crate::model::http::{HttpFilter, Routes, StatsFilter};
use crate::model::listener::ChainKind;
use crate::model::log::{
    LogFormat, LogTarget, RouteTracing, TraceProtocol, TraceProvider, Tracing,
};
use crate::model::route::RouteAction;
use crate::model::testing::http_chain;
use crate::model::text::Fraction;

fn log(path: &Path, line: Format) -> AccessLog {
    AccessLog {
        to: LogTarget::File(path.to_owned()),
        format: LogFormat::Text(line),
        filter: None,
    }
}

fn provider() -> Option<Arc<TraceProvider>> {
    Some(Arc::new(TraceProvider {
        protocol: TraceProtocol::OtlpGrpc,
        cluster: "collector".into(),
        service: "waypoint".into(),
        authority: "collector".into(),
        path: "".into(),
        timeout: Duration::from_secs(1),
        batch: 0,
    }))
}

fn chain(access_logs: Vec<AccessLog>, traced: Option<Fraction>) -> Arc<HttpChain> {
    chain_to(access_logs, traced, provider())
}

fn chain_to(
    access_logs: Vec<AccessLog>,
    traced: Option<Fraction>,
    provider: Option<Arc<TraceProvider>>,
) -> Arc<HttpChain> {
    let tracing = traced.map(|random| {
        Arc::new(Tracing {
            provider,
            random,
            client: Fraction::NEVER,
            overall: Fraction::ALWAYS,
            tags: Vec::new(),
            path_limit: 256,
            upstream_spans: false,
            propagates: true,
        })
    });
    Arc::new(HttpChain {
        stat_prefix: "inbound".into(),
        filters: vec![HttpFilter::Stats(Arc::new(StatsFilter::default()))],
        access_logs,
        tracing,
        ..http_chain(Routes::Inline(Arc::default()))
    })
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = lines.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

#[test]
fn a_request_from_its_head_to_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let response = Operator::Response {
        key: HeaderName::from_static("x-version"),
        otherwise: None,
    };
    let line = format(&[
        Err(request("x-user")),
        Ok(" "),
        Err(response),
        Ok(" "),
        Err(Operator::GrpcStatus {
            form: GrpcForm::Number,
        }),
        Ok("\n"),
    ]);
    let telemetry = Telemetry::new(Current::default());
    let worker = telemetry.worker();
    let chain = chain(vec![log(&path, line)], None);
    let mut exchange = exchange();
    exchange.is_grpc = true;
    exchange.upstream.attempts = 3;
    worker.begin(
        &chain,
        &mut exchange,
        &headers(&[("x-user", "jason"), ("x-other", "1")]),
    );
    assert!(
        exchange
            .request
            .get(&HeaderName::from_static("x-other"))
            .is_none(),
        "nobody asked"
    );
    let answer = headers(&[("x-version", "v3"), ("grpc-status", "2")]);
    worker.answered(&chain, &mut exchange, &answer);
    worker.trailed(&chain, &mut exchange, &headers(&[("grpc-status", "0")]));
    worker.finish(&chain, &exchange);
    telemetry.flush(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "jason v3 0\n");
    let mut metrics = String::new();
    telemetry.encode(&mut metrics);
    let cluster = "envoy_cluster_name=\"inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local\"";
    for line in [
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"inbound\"} 1".to_owned(),
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"inbound\"} 1".to_owned(),
        format!("envoy_cluster_upstream_rq_total{{{cluster}}} 1"),
        format!("envoy_cluster_upstream_rq_retry{{{cluster}}} 2"),
        "culvert_access_log_dropped_total 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} isn't in {metrics}");
    }
    assert!(metrics.contains("istio_requests_total{reporter=\"destination\","));
    // Every line is a comment or a name, a label set and a number.
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && !name.is_empty(), "{line}");
    }
}

#[test]
fn traces_begin_or_go_on_and_are_told() {
    let telemetry = Telemetry::default();
    let worker = telemetry.worker();
    let collects_nothing = chain_to(Vec::new(), Some(Fraction::ALWAYS), None);
    for untraced in [chain(Vec::new(), None), collects_nothing] {
        let mut plain = exchange();
        worker.begin(&untraced, &mut plain, &HeaderMap::new());
        let mut out = HeaderMap::new();
        worker.inject(&plain, &mut out);
        assert!(out.is_empty());
    }

    for (share, flag) in [(Fraction::ALWAYS, "-01"), (Fraction::NEVER, "-00")] {
        let chain = chain(Vec::new(), Some(share));
        let mut fresh = exchange();
        worker.begin(&chain, &mut fresh, &HeaderMap::new());
        let mut out = HeaderMap::new();
        worker.inject(&fresh, &mut out);
        assert!(out["traceparent"].to_str().unwrap().ends_with(flag));

        // What the caller decided counts, in the form that the caller speaks.
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let asked = headers(&[("b3", &format!("{trace}-b7ad6b7169203331-1"))]);
        let mut goes_on = exchange();
        worker.begin(&chain, &mut goes_on, &asked);
        let mut out = HeaderMap::new();
        worker.inject(&goes_on, &mut out);
        let told = out["b3"].to_str().unwrap();
        assert!(
            told.starts_with(trace) && told.ends_with("-1-b7ad6b7169203331"),
            "{told}"
        );
        assert!(!out.contains_key("traceparent"));
    }
}

#[test]
fn the_next_hop_is_not_told_of_a_trace_where_nobody_may_be() {
    let telemetry = Telemetry::default();
    let worker = telemetry.worker();
    let chain = chain(Vec::new(), Some(Fraction::ALWAYS));
    let mut silent = Arc::into_inner(chain).unwrap();
    let tracing = silent.tracing.take().and_then(Arc::into_inner).unwrap();
    silent.tracing = Some(Arc::new(Tracing {
        propagates: false,
        upstream_spans: true,
        ..tracing
    }));
    let silent = Arc::new(silent);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for asked in [headers(&[]), headers(&[("traceparent", parent)])] {
        let mut of = exchange();
        worker.begin(&silent, &mut of, &asked);
        assert!(of.span.as_ref().unwrap().sampled);
        // What the client said goes on as it came.
        let mut out = asked.clone();
        worker.inject(&of, &mut out);
        worker.attempt(&silent, &mut of, &mut out);
        assert!(of.attempt.is_some());
        assert_eq!(out, asked);
    }
}

#[test]
fn a_routes_shares_count_unless_the_trace_was_decided_elsewhere() {
    let telemetry = Telemetry::default();
    let worker = telemetry.worker();
    let chain = chain(Vec::new(), Some(Fraction::NEVER));
    let direct = RouteAction::Direct {
        status: StatusCode::OK,
        body: "".into(),
    };
    let mut route = Arc::into_inner(crate::http::testing::all(direct)).unwrap();
    route.tracing = Some(Box::new(RouteTracing {
        random: Fraction::ALWAYS,
        client: Fraction::NEVER,
        overall: Fraction::ALWAYS,
        tags: Vec::new(),
    }));
    let route = Arc::new(route);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    for (asked, sampled) in [
        (headers(&[]), true),
        (headers(&[("traceparent", &format!("{parent}-00"))]), false),
        (headers(&[("traceparent", &format!("{parent}-01"))]), true),
    ] {
        let mut of = exchange();
        worker.begin(&chain, &mut of, &asked);
        of.route = Some(route.clone());
        worker.routed(&mut of, &asked);
        assert_eq!(of.span.unwrap().sampled, sampled, "{asked:?}");
    }
}

#[test]
fn a_connection_is_counted_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tcp.log");
    let tcp = TcpChain {
        stat_prefix: "tcp".into(),
        clusters: Vec::new(),
        total: 0,
        access_logs: vec![log(
            &path,
            format(&[Err(Operator::ResponseFlags), Ok("\n")]),
        )],
        idle: None,
        max_duration: None,
        connect_attempts: 1,
        hash_source: false,
        tunnel: None,
    };
    let tcp = Arc::new(tcp);
    let chain = Chain {
        name: "inbound-vip|80|tcp|x".into(),
        tls: None,
        handshake_timeout: Duration::from_secs(1),
        guards: Vec::new(),
        stats: true,
        kind: ChainKind::Tcp(Arc::clone(&tcp)),
    };
    let telemetry = Telemetry::default();
    let worker = telemetry.worker();
    let mut connection = connection();
    worker.opened(&chain, &connection);
    worker.moved(&chain, &connection, 3, 4);
    worker.moved(&chain, &connection, 0, 0);
    connection.flags = Flags::UPSTREAM_CLOSED;
    worker.closed(&chain, Some(&tcp), &connection);
    worker.log_connection(&tcp.access_logs, &connection);
    telemetry.flush(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "UC\nUC\n");
    let mut metrics = String::new();
    telemetry.encode(&mut metrics);
    let ends = |start: &str, value: &str| {
        let mut lines = metrics.lines();
        lines.any(|line| line.starts_with(start) && line.ends_with(value))
    };
    assert!(ends("istio_tcp_connections_opened_total{", " 1"));
    assert!(ends("istio_tcp_connections_closed_total{", " 1"));
    assert!(ends("istio_tcp_sent_bytes_total{", " 4"));
    assert!(ends("envoy_tcp_downstream_cx_total{", " 1"));
}
