//! Listeners with sockets, and those inside; what they look at; which are refused.

use envoy::filter::ConfigType;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::google::protobuf as google;
use prost::{Message as _, Name as _};

use super::*;
use crate::model::listener::ChainKind;

fn tcp(cluster: &str, tunnel: Option<&str>) -> envoy::Filter {
    let proxy = TcpProxy {
        stat_prefix: "s".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        tunneling_config: tunnel.map(|hostname| tcp_proxy::TunnelingConfig {
            hostname: hostname.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    envoy::Filter {
        name: "tcp".into(),
        config_type: Some(ConfigType::TypedConfig(google::Any {
            type_url: TcpProxy::type_url(),
            value: proxy.encode_to_vec(),
        })),
    }
}

fn address(ip: &str, port: u32) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    }
}

fn chain(name: &str, port: u32) -> envoy::FilterChain {
    envoy::FilterChain {
        name: name.into(),
        filters: vec![tcp("up", None)],
        filter_chain_match: Some(envoy::FilterChainMatch {
            destination_port: Some(google::UInt32Value { value: port }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ordinary() -> envoy::Listener {
    envoy::Listener {
        name: "l".into(),
        address: Some(address("127.0.0.1", 80)),
        filter_chains: vec![chain("a", 80)],
        ..Default::default()
    }
}

fn compile(listener: envoy::Listener) -> Result<Option<Listener>, String> {
    let compiled = resource(listener, &mut Notes::default(), &mut ChainCache::default());
    compiled.map_err(|refused| refused.to_string())
}

fn socket(listener: envoy::Listener) -> SocketListener {
    match compile(listener).unwrap().unwrap().kind {
        ListenerKind::Socket(socket) => socket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_listener_with_an_address_has_sockets() {
    let mut listener = ordinary();
    listener.additional_addresses = vec![envoy::AdditionalAddress {
        address: Some(address("::1", 80)),
        ..Default::default()
    }];
    listener.default_filter_chain = Some(envoy::FilterChain {
        filter_chain_match: None,
        ..chain("d", 0)
    });
    listener.listener_filters_timeout = Some(google::Duration {
        seconds: 1,
        nanos: 0,
    });
    let socket = socket(listener);
    assert_eq!(
        socket.addresses,
        ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]
    );
    assert!(!socket.proxy_protocol);
    assert_eq!(&*socket.dispatch.default.unwrap().name, "d");
    assert_eq!(socket.dispatch.detect_timeout, Duration::from_secs(1));
    let Choose::Conditions(conditions) = socket.dispatch.choose else {
        panic!("it has no tree");
    };
    assert_eq!(conditions[0].0.port, Some(80));
}

#[test]
fn an_internal_listener_takes_streams_or_opens_tunnels() {
    let internal = |filter| envoy::Listener {
        name: "i".into(),
        filter_chains: vec![envoy::FilterChain {
            filters: vec![filter],
            ..Default::default()
        }],
        listener_specifier: Some(envoy::listener::ListenerSpecifier::InternalListener(
            Default::default(),
        )),
        ..Default::default()
    };
    let inside = compile(internal(tcp("up", None))).unwrap().unwrap();
    assert!(matches!(inside.kind, ListenerKind::Internal(_)));
    assert!(
        compile(internal(tcp("up", Some("%DOWNSTREAM_LOCAL_ADDRESS%"))))
            .unwrap()
            .is_none()
    );
    let odd = compile(internal(tcp("up", Some("evil.example:80")))).unwrap_err();
    let told = "Listener \"i\": filter_chains[0].filters[0].typed_config.tunneling_config.hostname: \
                \"evil.example:80\" is none of the tunnels";
    assert!(odd.starts_with(told), "{odd}");
}

fn look_at(
    kind: &str,
    off: Option<envoy::ListenerFilterChainMatchPredicate>,
) -> Result<SocketListener, String> {
    let mut listener = ordinary();
    listener.listener_filters = vec![envoy::ListenerFilter {
        name: "f".into(),
        filter_disabled: off,
        config_type: Some(envoy::listener_filter::ConfigType::TypedConfig(
            google::Any {
                type_url: format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}"),
                value: Vec::new(),
            },
        )),
    }];
    compile(listener).map(|listener| match listener.unwrap().kind {
        ListenerKind::Socket(socket) => socket,
        other => panic!("{other:?}"),
    })
}

#[test]
fn listener_filters_say_what_is_looked_at() {
    use envoy::listener_filter_chain_match_predicate::Rule;

    let http = look_at("http_inspector.v3.HttpInspector", None)
        .unwrap()
        .dispatch
        .detect;
    assert!(http.http && http.not_http.is_empty() && !http.tls);
    let tls = look_at("tls_inspector.v3.TlsInspector", None)
        .unwrap()
        .dispatch
        .detect;
    assert!(tls.tls && !tls.http);
    let off = envoy::ListenerFilterChainMatchPredicate {
        rule: Some(Rule::AnyMatch(true)),
    };
    let off = look_at("http_inspector.v3.HttpInspector", Some(off))
        .unwrap()
        .dispatch
        .detect;
    assert!(!off.http);
    assert!(
        look_at("proxy_protocol.v3.ProxyProtocol", None)
            .unwrap()
            .proxy_protocol
    );
    let detect = look_at("original_dst.v3.OriginalDst", None)
        .unwrap()
        .dispatch
        .detect;
    assert_eq!(detect, Detect::default());
    let odd = look_at("odd.v3.Odd", None).unwrap_err();
    let told = "Listener \"l\": listener_filters[0].typed_config: the listener filter odd.v3.Odd";
    assert!(odd.starts_with(told), "{odd}");
}

#[test]
fn listeners_that_would_take_what_they_must_not_are_refused() {
    type Change = fn(&mut envoy::Listener);
    let cases: [(Change, &str); 8] = [
        (
            |listener| listener.filter_chains.clear(),
            "filter_chains: has none",
        ),
        (
            |listener| listener.address = None,
            "address.address: must be set",
        ),
        (
            |listener| listener.address = Some(address("a.example", 80)),
            "address.address: \"a.example\"",
        ),
        (
            |listener| listener.address = Some(address("::", 65_536)),
            "address.port_value: 65536",
        ),
        (
            |listener| listener.bind_to_port = Some(google::BoolValue { value: false }),
            "bind_to_port: a listener",
        ),
        (
            |listener| listener.use_original_dst = Some(google::BoolValue { value: true }),
            "use_original_dst: is not served",
        ),
        (
            |listener| listener.filter_chains.push(chain("b", 80)),
            "filter_chains: the chains \"a\" and \"b\" have the same conditions",
        ),
        (
            |listener| {
                listener.filter_chains[0].name.clear();
                listener.filter_chain_matcher = Some(Default::default());
            },
            "filter_chains[0]: has no name",
        ),
    ];
    for (change, told) in cases {
        let mut listener = ordinary();
        change(&mut listener);
        let refused = compile(listener).unwrap_err();
        assert!(
            refused.starts_with(&format!("Listener \"l\": {told}")),
            "{refused}"
        );
    }
    let nameless = envoy::Listener {
        name: String::new(),
        ..ordinary()
    };
    assert!(
        compile(nameless)
            .unwrap_err()
            .contains("name: must not be empty")
    );
}

#[test]
fn a_bad_chain_is_named_and_the_others_are_served() {
    let mut listener = ordinary();
    listener.filter_chains.push(chain("b", 81));
    listener.filter_chains[0].filters.clear();
    let compiled = compile(listener).unwrap().unwrap();
    let told = r#"Listener "l": filter_chains["a"].filters: ends in neither HTTP nor TCP"#;
    assert_eq!(*compiled.refused, [told.to_owned()]);
    let ListenerKind::Socket(socket) = &compiled.kind else {
        panic!("{:?}", compiled.kind);
    };
    let kinds = socket.dispatch.chains.iter().map(|chain| &chain.kind);
    let closed: Vec<_> = kinds
        .map(|kind| matches!(kind, ChainKind::Closed))
        .collect();
    assert_eq!(closed, [true, false]);
    // Who a chain takes is no matter of the chain alone.
    let mut listener = ordinary();
    let conditions = listener.filter_chains[0]
        .filter_chain_match
        .as_mut()
        .unwrap();
    conditions.address_suffix = "1.1".to_owned();
    let refused = compile(listener).unwrap_err();
    assert!(
        refused.contains("filter_chains[\"a\"].filter_chain_match.address_suffix"),
        "{refused}"
    );
}

/// The end of tunnels as the real istiod sends it, and what must not be made of it.
mod end_of_tunnels {
    use envoy_types::pb::envoy::config::listener::v3::Listener as Envoy;

    use super::*;
    use crate::source::json::Descriptors;

    fn terminate(change: impl Fn(&mut serde_json::Value)) -> Result<Option<Listener>, String> {
        let dump = include_str!("../../../tests/fixtures/istiod-waypoint.json");
        let dump: serde_json::Value = serde_json::from_str(dump).unwrap();
        let mut json = dump["envoy.config.listener.v3.Listener"]["connect_terminate"].clone();
        change(&mut json["filter_chains"][0]);
        compile(Descriptors::get().message::<Envoy>(json).unwrap())
    }

    #[test]
    fn it_is_recognised_and_needs_a_certificate() {
        let kind = terminate(|_| {}).unwrap().unwrap().kind;
        assert!(matches!(kind, ListenerKind::Tunnel(_)));
        let tls = |chain: &mut serde_json::Value| chain["transport_socket"].take();
        let refused = terminate(|chain| drop(tls(chain))).unwrap_err();
        assert!(
            refused.contains("transport_socket: must be set"),
            "{refused}"
        );
        let refused = terminate(|chain| {
            chain["transport_socket"]["typed_config"]["require_client_certificate"] = false.into();
        });
        assert!(refused.unwrap_err().contains("show a certificate"));
    }

    #[test]
    fn a_filter_that_decides_there_is_refused() {
        let refused = terminate(|chain| {
            let filters = &mut chain["filters"][0]["typed_config"]["http_filters"];
            let rbac = serde_json::json!({
                "name": "rbac",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                },
            });
            filters.as_array_mut().unwrap().insert(0, rbac);
        });
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("RBAC isn't served at the end of tunnels"),
            "{refused}"
        );
    }
}
