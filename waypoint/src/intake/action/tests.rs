//! What forwarding, redirects and direct answers become, and which are refused.

use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use route::route_action::{ClusterSpecifier, HostRewriteSpecifier};

use super::*;
use crate::model::text::Fraction;

fn to(specifier: ClusterSpecifier) -> route::RouteAction {
    route::RouteAction {
        cluster_specifier: Some(specifier),
        ..Default::default()
    }
}

fn plain_action() -> route::RouteAction {
    to(ClusterSpecifier::Cluster("c".into()))
}

fn compile(action: route::RouteAction) -> Result<Forward, String> {
    let compiled = forward(action, &Scope::default(), &mut Notes::default());
    compiled.map_err(|refused| refused.to_string())
}

fn seconds(seconds: i64) -> Option<google::Duration> {
    Some(google::Duration { seconds, nanos: 0 })
}

fn substitution(regex: &str, by: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute {
        pattern: Some(matcher::RegexMatcher {
            regex: regex.into(),
            engine_type: None,
        }),
        substitution: by.into(),
    }
}

#[test]
fn time_limits_are_envoys_where_none_are_given_and_none_where_they_are_zero() {
    let forward = compile(plain_action()).unwrap();
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert_eq!(forward.idle_timeout, None);
    assert_eq!(forward.max_grpc_timeout, None);
    let zero = route::RouteAction {
        timeout: seconds(0),
        idle_timeout: seconds(0),
        max_stream_duration: Some(route::route_action::MaxStreamDuration {
            max_stream_duration: seconds(0),
            grpc_timeout_header_max: seconds(0),
            grpc_timeout_header_offset: seconds(1),
        }),
        ..plain_action()
    };
    let forward = compile(zero).unwrap();
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.idle_timeout, Some(Duration::ZERO));
    assert_eq!(forward.max_grpc_timeout, None);
    let stream = forward.stream.unwrap();
    assert_eq!(stream.most, Some(Duration::ZERO));
    assert_eq!(stream.grpc_most, Some(Duration::ZERO));
    assert_eq!(stream.grpc_offset, Duration::from_secs(1));
}

#[test]
fn a_request_goes_to_a_cluster_to_one_of_several_or_where_a_header_says() {
    let one = compile(plain_action()).unwrap();
    assert!(matches!(one.to, Destination::Cluster(name) if &*name == "c"));
    let header = compile(to(ClusterSpecifier::ClusterHeader("X-To".into()))).unwrap();
    assert!(matches!(header.to, Destination::Header(name) if name == "x-to"));
    let weight = |name: &str, weight| route::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight: Some(google::UInt32Value { value: weight }),
        ..Default::default()
    };
    let split = |clusters| {
        compile(to(ClusterSpecifier::WeightedClusters(
            route::WeightedCluster {
                clusters,
                ..Default::default()
            },
        )))
    };
    let several = split(vec![weight("a", 3), weight("b", 0)]).unwrap();
    let Destination::Weighted { clusters, total: 3 } = several.to else {
        panic!("{:?}", several.to);
    };
    assert_eq!(clusters.len(), 2);
    for (clusters, told) in [
        (
            vec![],
            "weighted_clusters.clusters: the weights add up to nothing",
        ),
        (
            vec![weight("a", 0)],
            "weighted_clusters.clusters: the weights add up to nothing",
        ),
        (
            vec![weight("a", u32::MAX), weight("b", 1)],
            "weighted_clusters.clusters: the weights add up to too much",
        ),
        (
            vec![weight("", 1)],
            "weighted_clusters.clusters[0].name: must not",
        ),
    ] {
        let refused = split(clusters).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn hosts_and_paths_are_rewritten_in_one_way() {
    let host = |specifier| {
        compile(route::RouteAction {
            host_rewrite_specifier: Some(specifier),
            ..plain_action()
        })
        .map(|forward| format!("{:?}", forward.host))
    };
    let endpoint = HostRewriteSpecifier::AutoHostRewrite(google::BoolValue { value: true });
    for (specifier, told) in [
        (
            HostRewriteSpecifier::HostRewriteLiteral("a".into()),
            "Literal(\"a\")",
        ),
        (endpoint, "Endpoint"),
        (
            HostRewriteSpecifier::HostRewriteHeader("X".into()),
            "Header(\"x\")",
        ),
        (
            HostRewriteSpecifier::HostRewritePathRegex(substitution("^/(.*)", "\\1")),
            "PathRegex(",
        ),
        (
            HostRewriteSpecifier::HostRewrite("b".into()),
            "Literal(\"b\")",
        ),
    ] {
        let found = host(specifier).unwrap();
        assert!(found.starts_with(told), "{found}");
    }
    for (specifier, told) in [
        (
            HostRewriteSpecifier::HostRewriteLiteral("a b".into()),
            "host_rewrite_literal: \"a b\"",
        ),
        (
            HostRewriteSpecifier::HostRewriteHeader("".into()),
            "host_rewrite_header: \"\"",
        ),
        (
            HostRewriteSpecifier::HostRewrite("%REQ(a)%".into()),
            "host_rewrite: hosts are",
        ),
    ] {
        let refused = host(specifier).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
    let both = route::RouteAction {
        prefix_rewrite: "/a".into(),
        regex_rewrite: Some(substitution("a", "b")),
        ..plain_action()
    };
    let refused = compile(both).unwrap_err();
    assert!(
        refused.starts_with("regex_rewrite: the path is rewritten"),
        "{refused}"
    );
}

#[test]
fn mirrors_are_the_routes_or_those_around_it() {
    let mirror = |cluster: &str| route::route_action::RequestMirrorPolicy {
        cluster: cluster.into(),
        ..Default::default()
    };
    let mut notes = Notes::default();
    let scope = Scope {
        mirrors: mirrors(vec![mirror("outer")], &mut notes).unwrap(),
        ..Scope::default()
    };
    let inherited = forward(plain_action(), &scope, &mut notes).unwrap().mirrors;
    assert_eq!(&*inherited[0].cluster, "outer");
    assert_eq!(inherited[0].fraction, Fraction::ALWAYS);
    assert!(inherited[0].shadow_suffix);
    let own = route::RouteAction {
        request_mirror_policies: vec![mirror("own")],
        ..plain_action()
    };
    let own = forward(own, &scope, &mut notes).unwrap().mirrors;
    assert_eq!((&*own[0].cluster, own.len()), ("own", 1));
    let refused = mirrors(vec![mirror("")], &mut notes)
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("request_mirror_policies[0].cluster: must not"),
        "{refused}"
    );
}

#[test]
fn what_would_change_where_requests_go_is_refused() {
    type Change = fn(&mut route::RouteAction);
    let cases: [(Change, &str); 7] = [
        (
            |action| action.cluster_specifier = None,
            "cluster: must be set",
        ),
        (
            |action| action.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new())),
            "cluster: must not be empty",
        ),
        (
            |action| {
                let plugin = ClusterSpecifier::ClusterSpecifierPlugin("p".into());
                action.cluster_specifier = Some(plugin);
            },
            "cluster_specifier_plugin: clusters",
        ),
        (
            |action| action.internal_redirect_policy = Some(Default::default()),
            "internal_redirect_policy: is not served: redirects",
        ),
        (
            |action| action.path_rewrite = "/%REQ(a)%".into(),
            "path_rewrite: is not served",
        ),
        (
            |action| action.cluster_not_found_response_code = 9,
            "cluster_not_found_response_code",
        ),
        (
            |action| {
                action.upgrade_configs = vec![route::route_action::UpgradeConfig {
                    upgrade_type: "CONNECT".into(),
                    connect_config: Some(Default::default()),
                    ..Default::default()
                }];
            },
            "upgrade_configs[0].connect_config: is not served: tunnels",
        ),
    ];
    for (change, told) in cases {
        let mut action = plain_action();
        change(&mut action);
        let refused = compile(action).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn upgrades_and_subsets_are_kept_by_name() {
    let text = |text: &str| google::Value {
        kind: Some(google::value::Kind::StringValue(text.into())),
    };
    let lb = google::Struct {
        fields: [("version".to_owned(), text("v1"))].into(),
    };
    let action = route::RouteAction {
        upgrade_configs: vec![route::route_action::UpgradeConfig {
            upgrade_type: "WebSocket".into(),
            enabled: Some(google::BoolValue { value: false }),
            connect_config: None,
        }],
        metadata_match: Some(core::Metadata {
            filter_metadata: [("envoy.lb".to_owned(), lb)].into(),
            ..Default::default()
        }),
        ..plain_action()
    };
    let forward = compile(action).unwrap();
    assert_eq!(*forward.upgrades, [("websocket".into(), false)]);
    assert_eq!(
        *forward.endpoint_metadata,
        [("version".into(), "v1".into())]
    );
}
