//! Chains of network filters, and what is kept of them between two pushes.

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use prost::{Message, Name};

use super::*;
use crate::proto::stats::PluginConfig;

fn filter<T: Message + Name>(name: &str, message: &T) -> envoy::Filter {
    envoy::Filter {
        name: name.into(),
        config_type: Some(envoy::filter::ConfigType::TypedConfig(Any {
            type_url: T::type_url(),
            value: message.encode_to_vec(),
        })),
    }
}

fn unknown(kind: &str) -> envoy::Filter {
    envoy::Filter {
        name: "f".into(),
        config_type: Some(envoy::filter::ConfigType::TypedConfig(Any {
            type_url: format!("type.googleapis.com/{kind}"),
            value: Vec::new(),
        })),
    }
}

fn tcp(cluster: &str) -> envoy::Filter {
    let proxy = TcpProxy {
        stat_prefix: "s".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    filter("tcp", &proxy)
}

fn of(filters: Vec<envoy::Filter>) -> envoy::FilterChain {
    envoy::FilterChain {
        name: "c".into(),
        filters,
        ..Default::default()
    }
}

fn told(filters: Vec<envoy::Filter>) -> String {
    compile(of(filters), &mut Notes::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn filters_before_the_last_are_policy_and_metrics() {
    let rbac = filter("rbac", &Rbac::default());
    let stats = filter("stats", &PluginConfig::default());
    let chain = compile(of(vec![rbac, stats, tcp("up")]), &mut Notes::default()).unwrap();
    assert_eq!((chain.guards.len(), chain.stats), (1, true));
    assert_eq!(chain.handshake_timeout, HANDSHAKE);
    assert!(matches!(chain.kind, ChainKind::Tcp(tcp) if &*tcp.clusters[0].0 == "up"));
}

#[test]
fn filters_that_only_count_are_counted_and_all_others_refused() {
    let mongo = unknown("envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy");
    let mut notes = Notes::default();
    compile(of(vec![mongo, tcp("up")]), &mut notes).unwrap();
    assert_eq!(notes.iter().count(), 1);
    for kind in [
        "envoy.extensions.filters.network.ext_proc.v3.NetworkExternalProcessor",
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "envoy.extensions.filters.network.wasm.v3.Wasm",
        "nobody.knows.It",
    ] {
        let refused = told(vec![unknown(kind), tcp("up")]);
        let way = format!("filters[\"f\"].typed_config: the filter {kind} is not served");
        assert!(refused.starts_with(&way), "{refused}");
    }
}

#[test]
fn services_are_asked_about_connections_in_the_order_of_the_filters() {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz;

    let grpc = core::grpc_service::EnvoyGrpc {
        cluster_name: "authz".to_owned(),
        ..Default::default()
    };
    let asked = ExtAuthz {
        grpc_service: Some(core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }),
        failure_mode_allow: true,
        ..Default::default()
    };
    let filters = vec![
        filter("rbac", &Rbac::default()),
        filter("authz", &asked),
        tcp("up"),
    ];
    let chain = compile(of(filters), &mut Notes::default()).unwrap();
    let [Guard::Rbac(_), Guard::ExtAuthz(service)] = chain.guards.as_slice() else {
        panic!("{:?}", chain.guards);
    };
    assert_eq!((&*service.cluster, service.fail_open), ("authz", true));
    let blind = ExtAuthz {
        include_peer_certificate: true,
        ..asked
    };
    let refused = told(vec![filter("authz", &blind), tcp("up")]);
    assert!(refused.contains("include_peer_certificate"), "{refused}");
    let nobody = told(vec![filter("authz", &ExtAuthz::default()), tcp("up")]);
    assert!(nobody.contains("grpc_service: must be set"), "{nobody}");
}

#[test]
fn a_chain_ends_once() {
    assert!(told(vec![]).starts_with("filters: ends in neither"));
    assert!(told(vec![filter("rbac", &Rbac::default())]).starts_with("filters: ends in neither"));
    assert!(told(vec![tcp("a"), tcp("b")]).starts_with("filters[1]: stands behind"));
    assert!(told(vec![envoy::Filter::default()]).contains("typed_config: must be set"));
    let nowhere = told(vec![tcp("")]);
    assert!(
        nowhere.starts_with("filters[\"tcp\"].typed_config.cluster: must not"),
        "{nowhere}"
    );
}

fn push(cache: &mut ChainCache, listener: &str, clusters: &[&str]) -> Vec<Arc<Chain>> {
    let mut compiling = cache.begin(listener);
    let chains = clusters.iter().map(|cluster| {
        let chain = of(vec![tcp(cluster)]);
        compiling.chain(&chain, &mut Notes::default()).unwrap()
    });
    let chains = chains.collect();
    compiling.end();
    chains
}

#[test]
fn chains_are_compiled_when_they_change_and_forgotten_when_they_go() {
    let mut cache = ChainCache::default();
    let first = push(&mut cache, "l", &["a", "b"]);
    let second = push(&mut cache, "l", &["b", "c"]);
    assert!(Arc::ptr_eq(&first[1], &second[0]));
    assert_eq!(cache.len(), 2);
    let third = push(&mut cache, "l", &["a"]);
    assert!(!Arc::ptr_eq(&first[0], &third[0]), "it was forgotten");
    push(&mut cache, "other", &["a", "b"]);
    assert_eq!(cache.len(), 3);
    cache.forget("other");
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_refused_listener_leaves_what_is_in_force() {
    let mut cache = ChainCache::default();
    let before = push(&mut cache, "l", &["a"]);
    let mut compiling = cache.begin("l");
    compiling
        .chain(&of(vec![tcp("b")]), &mut Notes::default())
        .unwrap();
    drop(compiling);
    let after = push(&mut cache, "l", &["a"]);
    assert!(Arc::ptr_eq(&before[0], &after[0]));
}

#[test]
fn a_refused_chain_keeps_its_last_good_version_for_as_long_as_it_is_refused() {
    let mut cache = ChainCache::default();
    let good = push(&mut cache, "l", &["a"]);
    let bad = || of(vec![unknown("nobody.knows.It"), tcp("b")]);
    for _ in 0..2 {
        let mut compiling = cache.begin("l");
        let refused = compiling.chain(&bad(), &mut Notes::default()).unwrap_err();
        assert!(Arc::ptr_eq(&good[0], &compiling.instead(bad(), refused)));
        let told = compiling.end();
        assert!(told[0].reason.contains("nobody.knows.It"), "{told:?}");
    }
    let better = push(&mut cache, "l", &["b"]);
    assert!(!Arc::ptr_eq(&good[0], &better[0]));
    // Its old version is gone with it: what comes after it falls back on the newest.
    let mut compiling = cache.begin("l");
    let last = compiling.instead(bad(), Refused::new("bad"));
    assert!(Arc::ptr_eq(&better[0], &last));
}

#[test]
fn a_chain_without_a_good_version_lets_nobody_pass() {
    let mut cache = ChainCache::default();
    push(&mut cache, "other", &["a"]);
    let mut compiling = cache.begin("l");
    let closed = compiling.instead(of(vec![tcp("b")]), Refused::new("bad"));
    assert!(matches!(closed.kind, ChainKind::Closed));
    assert_eq!(&*closed.name, "c");
    // Chains without a name have no version that could be told from others.
    let nameless = envoy::FilterChain::default();
    push(&mut cache, "l", &["a"]);
    let closed = cache.begin("l").instead(nameless, Refused::new("bad"));
    assert!(matches!(closed.kind, ChainKind::Closed));
}
