//! A captured configuration (`fixtures/istiod-waypoint.json`, for the objects beside it) in detail:
//! what each object of Istio's becomes in the engine's model. Long because it is one configuration.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where what it reads is not there"
)]

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::Listener as Envoy;
use http::{HeaderName, StatusCode};
use waypoint::intake::chain::ChainCache;
use waypoint::intake::listener;
use waypoint::intake::served::Notes;
use waypoint::model::format::{Operator, Part};
use waypoint::model::http::{ClientCert, HttpChain, HttpFilter, Routes, ServerHeader};
use waypoint::model::jwt::{KeySource, Requirement};
use waypoint::model::listener::{
    Chain, ChainKind, Choose, Dispatch, Guard, Listener, ListenerKind, Node, Protocol,
    TunnelListener,
};
use waypoint::model::log::{Compare, LogFilter, LogFormat, LogTarget};
use waypoint::model::policy::{Action, Condition};
use waypoint::model::route::{
    Destination, Forward, PathMatch, PathRewrite, Route, RouteAction, RouteTable,
};
use waypoint::model::text::{Fraction, HeaderKey, HeaderTest, Pattern};
use waypoint::model::tls::{SecretRef, TlsVersions};
use waypoint::source::json::Descriptors;

const HOST: &str = "reviews.bookinfo.svc.cluster.local";

fn listener(name: &str) -> Option<Listener> {
    let text = include_str!("fixtures/istiod-waypoint.json");
    let dump: serde_json::Value = serde_json::from_str(text).unwrap();
    let json = dump["envoy.config.listener.v3.Listener"][name].clone();
    let message: Envoy = Descriptors::get().message(json).unwrap();
    let mut notes = Notes::default();
    let compiled = listener::resource(message, &mut notes, &mut ChainCache::default()).unwrap();
    let counted: Vec<_> = notes.iter().collect();
    assert!(counted.is_empty(), "{name}: {counted:?}");
    compiled
}

fn tunnel() -> TunnelListener {
    match listener("connect_terminate").unwrap().kind {
        ListenerKind::Tunnel(tunnel) => tunnel,
        other => panic!("{other:?}"),
    }
}

fn dispatch() -> Dispatch {
    match listener("main_internal").unwrap().kind {
        ListenerKind::Internal(dispatch) => dispatch,
        other => panic!("{other:?}"),
    }
}

fn chain(name: &str) -> Arc<Chain> {
    let mut chains = dispatch().chains.into_iter();
    chains.find(|chain| &*chain.name == name).unwrap()
}

fn http(name: &str) -> Arc<HttpChain> {
    match &chain(name).kind {
        ChainKind::Http(http) => http.clone(),
        other => panic!("{other:?}"),
    }
}

fn reviews() -> Arc<HttpChain> {
    http(&format!("inbound-vip|9080|http|{HOST}"))
}

fn table() -> Arc<RouteTable> {
    match &reviews().routes {
        Routes::Inline(table) => table.clone(),
        Routes::Named(name) => panic!("{name}"),
    }
}

fn route(index: usize) -> Arc<Route> {
    table().hosts[0].routes[index].clone()
}

fn forward(route: &Route) -> &Forward {
    match &route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn to(subset: &str) -> String {
    format!("inbound-vip|9080|http/{subset}|{HOST}")
}

#[test]
fn tunnels_end_only_for_the_meshs_own_clients() {
    let tunnel = tunnel();
    assert_eq!(tunnel.addresses, ["0.0.0.0:15008".parse().unwrap()]);
    assert_eq!(&*tunnel.to, "main_internal");
    assert_eq!(tunnel.tls.certificate, SecretRef::Workload);
    assert_eq!(tunnel.tls.roots, Some(SecretRef::Workload));
    assert!(tunnel.tls.require_client);
    assert_eq!(tunnel.tls.versions, TlsVersions::Tls13);
    assert_eq!(tunnel.tls.alpn, ["h2".into()]);
    let [name] = tunnel.tls.names.as_slice() else {
        panic!("{:?}", tunnel.tls.names);
    };
    assert!(
        matches!(&name.pattern, Pattern::Prefix(prefix) if &**prefix == "spiffe://cluster.local/")
    );
    let pings = (Duration::from_secs(10), Duration::from_secs(20));
    assert_eq!(tunnel.keepalive, Some(pings));
    assert!(tunnel.forward_client_cert);
    let [log] = tunnel.access_logs.as_slice() else {
        panic!("{:?}", tunnel.access_logs);
    };
    assert!(matches!(
        log.filter,
        Some(LogFilter::Status(Compare::AtLeast, 400))
    ));
}

#[test]
fn a_connection_finds_its_chain_by_address_port_and_protocol() {
    let dispatch = dispatch();
    assert_eq!(dispatch.chains.len(), 6);
    assert!(dispatch.default.is_none());
    assert!(dispatch.detect.http && !dispatch.detect.tls);
    assert_eq!(dispatch.detect.not_http, [(9080, 9081), (9090, 9091)]);
    let Choose::Tree(Node::Address {
        ranges,
        exact,
        otherwise: None,
    }) = &dispatch.choose
    else {
        panic!("{:?}", dispatch.choose);
    };
    assert!(ranges.is_empty());
    let at = exact.get(&"10.96.223.133".parse().unwrap()).unwrap();
    let Node::Port {
        ports,
        otherwise: None,
    } = &**at
    else {
        panic!("{at:?}");
    };
    let named = |node: &Node| match node {
        Node::Chain(chain) => chain.name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        named(&ports[&9080]),
        format!("inbound-vip|9080|http|{HOST}")
    );
    assert_eq!(named(&ports[&9090]), format!("inbound-vip|9090|tcp|{HOST}"));
    let Node::Protocol {
        protocols,
        otherwise: Some(opaque),
    } = &ports[&7070]
    else {
        panic!("{:?}", ports[&7070]);
    };
    for protocol in [Protocol::Http11, Protocol::Http2] {
        assert_eq!(
            named(&protocols[&protocol]),
            format!("inbound-vip|7070|http|{HOST}")
        );
    }
    assert_eq!(protocols.len(), 2);
    assert_eq!(named(opaque), format!("inbound-vip|7070|tcp|{HOST}"));
}

#[test]
fn http_is_as_istio_sets_it() {
    let http = reviews();
    assert_eq!(&*http.stat_prefix, "inbound_0.0.0.0_9080;");
    assert_eq!(http.upgrades, ["websocket".into()]);
    assert_eq!(
        http.server,
        ServerHeader::Overwrite(http::HeaderValue::from_static("istio-envoy"))
    );
    assert!(!http.forwarded.use_remote_address);
    assert_eq!(http.forwarded.client_cert, ClientCert::Sanitize);
    assert!(http.paths.normalize && !http.paths.merge_slashes);
    assert!(http.proxy_100_continue && http.request_id.generate);
    assert_eq!(http.limits.stream_idle, None);
    assert_eq!(http.limits.idle, Some(Duration::from_secs(3600)));
    assert_eq!(http.limits.max_header_bytes, 60 * 1024);
    let [log] = http.access_logs.as_slice() else {
        panic!("{:?}", http.access_logs);
    };
    assert_eq!(log.to, LogTarget::Stdout);
    let LogFormat::Text(line) = &log.format else {
        panic!("{:?}", log.format);
    };
    let first = Part::Value {
        operator: Operator::StartTime { format: None },
        limit: None,
    };
    assert_eq!(line.parts[..2], [Part::Literal("[".into()), first]);
    let tracing = http.tracing.as_ref().unwrap();
    assert!(tracing.provider.is_none());
    assert_eq!(
        (tracing.random, tracing.client),
        (Fraction(10_000), Fraction::ALWAYS)
    );
    let app = tracing
        .tags
        .iter()
        .find(|tag| &*tag.name == "istio.source_app")
        .unwrap();
    let state = Operator::FilterState {
        key: "downstream_peer_obj".into(),
        field: Some("app".into()),
    };
    assert!(matches!(&app.value.parts[..], [Part::Value { operator, .. }] if *operator == state));
}

#[test]
fn filters_stand_in_istiods_order() {
    let http = reviews();
    let kinds = http.filters.iter().map(|one| match one {
        HttpFilter::Jwt(_) => "jwt",
        HttpFilter::Rbac(_) => "rbac",
        HttpFilter::Fault(_) => "fault",
        HttpFilter::Cors => "cors",
        HttpFilter::Session(_) => "session",
        HttpFilter::GrpcStats => "grpc",
        HttpFilter::Stats(_) => "stats",
        HttpFilter::PeerMetadata => "peers",
        other => panic!("{other:?}"),
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(
        kinds,
        ["jwt", "rbac", "grpc", "fault", "cors", "peers", "stats"]
    );
}

#[test]
fn a_token_may_be_missing_but_not_be_wrong() {
    let http = reviews();
    let HttpFilter::Jwt(jwt) = &http.filters[0] else {
        panic!("{:?}", http.filters[0]);
    };
    assert!(jwt.bypass_cors_preflight);
    let [provider] = jwt.providers.as_slice() else {
        panic!("{:?}", jwt.providers);
    };
    assert_eq!((&*provider.name, &*provider.issuer), ("origins-0", "me"));
    assert_eq!(provider.payload_key.as_deref(), Some("payload"));
    assert_eq!(
        provider.space_delimited,
        ["permission".into(), "scope".into()]
    );
    assert!(provider.clear_route_cache && !provider.forward);
    assert_eq!(provider.clock_skew, Duration::from_secs(60));
    assert!(matches!(&provider.keys, KeySource::Inline(set) if set.keys.is_empty()));
    let [rule] = jwt.rules.as_slice() else {
        panic!("{:?}", jwt.rules);
    };
    let Requirement::Any(any) = &rule.requires else {
        panic!("{:?}", rule.requires);
    };
    assert!(matches!(&any[0], Requirement::Provider(0, audiences) if audiences.is_empty()));
    assert!(matches!(any[1], Requirement::AllowMissing));
}

#[test]
fn a_policy_keeps_each_of_its_conditions() {
    let http = reviews();
    let HttpFilter::Rbac(rbac) = &http.filters[1] else {
        panic!("{:?}", http.filters[1]);
    };
    assert!(rbac.shadow.is_none());
    assert_eq!(&*rbac.shadow_prefix, "istio_dry_run_allow_");
    let rules = rbac.rules.as_ref().unwrap();
    assert_eq!(rules.action, Action::Allow);
    let [policy] = rules.policies.as_slice() else {
        panic!("{:?}", rules.policies);
    };
    assert_eq!(&*policy.name, "ns[bookinfo]-policy[viewer]-rule[0]");
    let two = |conditions: &[Condition]| match conditions {
        [Condition::All(all)] => match all.as_slice() {
            [Condition::AnyOf(first), Condition::AnyOf(second)] => {
                (first[0].clone(), second[0].clone())
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let (Condition::Header(method), Condition::Path(path)) = two(&policy.permissions) else {
        panic!("{:?}", policy.permissions);
    };
    assert_eq!(method.key, HeaderKey::Method);
    assert!(path.matches("/reviews") && !path.matches("/x"));
    let (Condition::Peer(peer), Condition::Header(header)) = two(&policy.principals) else {
        panic!("{:?}", policy.principals);
    };
    assert!(peer.matches("spiffe://cluster.local/ns/default/sa/sleep"));
    assert_eq!(header.key, HeaderKey::Name(HeaderName::from_static("x")));
    assert!(matches!(&header.test, HeaderTest::Text(text) if text.matches("y")));
}

#[test]
fn an_allow_policy_that_says_nothing_of_connections_lets_none_in() {
    let chain = chain(&format!("inbound-vip|9090|tcp|{HOST}"));
    assert!(chain.stats && chain.tls.is_none());
    let [Guard::Rbac(rbac)] = chain.guards.as_slice() else {
        panic!("{:?}", chain.guards);
    };
    let rules = rbac.rules.as_ref().unwrap();
    assert_eq!((rules.action, rules.policies.len()), (Action::Allow, 0));
    let ChainKind::Tcp(tcp) = &chain.kind else {
        panic!("{:?}", chain.kind);
    };
    assert_eq!(tcp.clusters, [(chain.name.clone(), 1)]);
    assert_eq!(tcp.idle, Some(Duration::from_secs(3600)));
    assert_eq!(tcp.connect_attempts, 1);
}

#[test]
fn the_cookie_of_jason_leads_to_v2_and_some_of_his_requests_wait() {
    let table = table();
    assert_eq!(table.any, Some(0));
    let route = route(0);
    let [cookie] = route.matches.headers.as_slice() else {
        panic!("{:?}", route.matches.headers);
    };
    assert!(matches!(&cookie.test, HeaderTest::Text(text) if text.matches("a=b;user=jason")));
    let forward = forward(&route);
    assert!(matches!(&forward.to, Destination::Cluster(name) if **name == *to("v2")));
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.max_grpc_timeout, Some(Duration::ZERO));
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!(retry.retries, 2);
    assert_eq!(retry.per_try_timeout, Some(Duration::from_secs(1)));
    assert!(retry.avoid_previous_hosts && retry.host_attempts == 5);
    assert!(retry.on.connect_failure && retry.on.grpc_unavailable);
    assert!(retry.on.retriable_status_codes && !retry.on.server_error);
    let fault = route.filters.fault.as_ref().unwrap();
    assert_eq!(
        fault.delay,
        Some((Duration::from_secs(1), Fraction(10_000)))
    );
    assert_eq!(fault.abort, None);
    assert_eq!(route.operation.as_deref(), Some(&*format!("{HOST}:9080/*")));
}

#[test]
fn the_old_path_is_rewritten_mirrored_and_open_to_one_origin() {
    let route = route(1);
    let PathMatch::Text(path) = &route.matches.path else {
        panic!("{:?}", route.matches.path);
    };
    assert!(path.matches("/older") && !path.matches("/new"));
    let forward = forward(&route);
    assert!(matches!(&forward.path, PathRewrite::Prefix(prefix) if &**prefix == "/new"));
    let [mirror] = forward.mirrors.as_slice() else {
        panic!("{:?}", forward.mirrors);
    };
    assert_eq!(*mirror.cluster, *to("v2"));
    assert_eq!(mirror.fraction, Fraction::ALWAYS);
    assert!(!mirror.shadow_suffix);
    let cors = route.filters.cors.as_ref().unwrap();
    assert!(cors.origins[0].matches("https://a.example"));
    assert_eq!(&*cors.methods, "GET");
    assert!(cors.forward_unmatched && cors.enabled == Fraction::ALWAYS);
}

#[test]
fn all_others_are_split_nine_to_one_within_three_seconds() {
    let route = route(2);
    let forward = forward(&route);
    let Destination::Weighted { clusters, total } = &forward.to else {
        panic!("{:?}", forward.to);
    };
    let shares = clusters
        .iter()
        .map(|one| (one.cluster.to_string(), one.weight));
    let shares: Vec<_> = shares.collect();
    assert_eq!(shares, [(to("v1"), 90), (to("v2"), 10)]);
    assert_eq!(*total, 100);
    assert_eq!(forward.timeout, Some(Duration::from_secs(3)));
    assert_eq!(forward.not_found, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn what_is_for_pods_goes_where_it_was_going() {
    let http = http("direct-http");
    let Routes::Inline(table) = &http.routes else {
        panic!("{:?}", http.routes);
    };
    let route = &table.hosts[0].routes[0];
    assert_eq!(&*route.name, "default");
    assert!(matches!(&forward(route).to, Destination::Cluster(name) if &**name == "encap"));
    let tcp = chain("direct-tcp");
    assert!(matches!(&tcp.kind, ChainKind::Tcp(tcp) if &*tcp.clusters[0].0 == "encap"));
}
