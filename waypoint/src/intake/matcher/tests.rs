//! Trees and conditions: what they become, their order, and which are refused.

use envoy_types::pb::google::protobuf as google;
use prost::{Message, Name};
use xds::matcher::matcher_tree::{MatchMap, TreeType};
use xds::matcher::{MatcherTree, MatcherType, OnMatch, on_match};

use super::*;
use crate::model::listener::{ChainKind, TcpChain};

fn chains() -> Chains {
    let chain = |name: &str| {
        let tcp = TcpChain {
            stat_prefix: name.into(),
            clusters: vec![("c".into(), 1)],
            total: 1,
            access_logs: Vec::new(),
            idle: None,
            max_duration: None,
            connect_attempts: 1,
            hash_source: false,
            tunnel: None,
        };
        let chain = Chain {
            name: name.into(),
            tls: None,
            handshake_timeout: std::time::Duration::from_secs(1),
            guards: Vec::new(),
            stats: false,
            kind: ChainKind::Tcp(Arc::new(tcp)),
        };
        (Arc::from(name), Arc::new(chain))
    };
    [chain("a"), chain("b")].into()
}

fn any<T: Message + Name>(message: &T) -> google::Any {
    google::Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

fn extension(config: google::Any) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: "n".into(),
        typed_config: Some(config),
    }
}

fn input(name: &str) -> TypedExtensionConfig {
    extension(google::Any {
        type_url: format!("type.googleapis.com/{INPUTS}{name}"),
        value: Vec::new(),
    })
}

fn to(chain: &str) -> OnMatch {
    let name = StringValue {
        value: chain.into(),
    };
    OnMatch {
        keep_matching: false,
        on_match: Some(on_match::OnMatch::Action(extension(any(&name)))),
    }
}

fn deeper(matcher: xds::Matcher) -> OnMatch {
    OnMatch {
        keep_matching: false,
        on_match: Some(on_match::OnMatch::Matcher(Box::new(matcher))),
    }
}

fn map<const N: usize>(input: TypedExtensionConfig, entries: [(&str, OnMatch); N]) -> xds::Matcher {
    let map = entries.map(|(key, found)| (key.to_owned(), found)).into();
    matcher(input, TreeType::ExactMatchMap(MatchMap { map }))
}

fn matcher(input: TypedExtensionConfig, tree: TreeType) -> xds::Matcher {
    xds::Matcher {
        on_no_match: None,
        matcher_type: Some(MatcherType::MatcherTree(MatcherTree {
            input: Some(input),
            tree_type: Some(tree),
        })),
    }
}

fn addresses<const N: usize>(entries: [(&[(&str, u32)], OnMatch); N]) -> xds::Matcher {
    let range = |(address, length): &(&str, u32)| CidrRange {
        address_prefix: (*address).into(),
        prefix_len: Some(google::UInt32Value { value: *length }),
    };
    let entries = entries.map(|(ranges, found)| IpRangeMatcher {
        ranges: ranges.iter().map(range).collect(),
        on_match: Some(found),
        exclusive: false,
    });
    let custom = IpMatcher {
        range_matchers: entries.into(),
    };
    matcher(
        input("DestinationIPInput"),
        TreeType::CustomMatch(extension(any(&custom))),
    )
}

fn compile(matcher: xds::Matcher) -> Result<Node, String> {
    tree(matcher, &chains(), 0, &mut Notes::default()).map_err(|refused| refused.to_string())
}

fn named(node: &Node) -> &str {
    match node {
        Node::Chain(chain) => &chain.name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_whole_or_ranges_the_longest_first() {
    let mut root = addresses([
        (&[("10.0.0.0", 8), ("10.0.0.1", 32)], to("a")),
        (&[("10.1.0.0", 16), ("10.0.0.1", 32), ("::1", 128)], to("b")),
    ]);
    root.on_no_match = Some(Box::new(to("b")));
    let Node::Address {
        ranges,
        exact,
        otherwise: Some(otherwise),
    } = compile(root).unwrap()
    else {
        panic!("it is by address");
    };
    let lengths: Vec<_> = ranges
        .iter()
        .map(|(range, node)| (range.to_string(), named(node)))
        .collect();
    assert_eq!(
        lengths,
        [("10.1.0.0/16".into(), "b"), ("10.0.0.0/8".into(), "a")]
    );
    assert_eq!(named(&exact[&"10.0.0.1".parse::<IpAddr>().unwrap()]), "a");
    assert_eq!(named(&exact[&"::1".parse::<IpAddr>().unwrap()]), "b");
    assert_eq!(named(&otherwise), "b");
}

#[test]
fn ports_protocols_and_authorities_are_looked_up() {
    let protocols = map(
        input("ApplicationProtocolInput"),
        [
            ("'http/1.0'", to("a")),
            ("'http/1.1'", to("a")),
            ("'h2c'", to("a")),
            ("'istio'", to("b")),
        ],
    );
    let ports = map(input("DestinationPortInput"), [("80", deeper(protocols))]);
    let Node::Port {
        ports,
        otherwise: None,
    } = compile(ports).unwrap()
    else {
        panic!("it is by port");
    };
    let Node::Protocol {
        protocols,
        otherwise: None,
    } = &ports[&80]
    else {
        panic!("{ports:?}");
    };
    let mut known: Vec<_> = protocols
        .keys()
        .map(|protocol| format!("{protocol:?}"))
        .collect();
    known.sort();
    assert_eq!(known, ["Http10", "Http11", "Http2"]);
    let state = FilterStateInput {
        key: AUTHORITY.into(),
        field: String::new(),
    };
    let authorities = map(extension(any(&state)), [("a.example:80", to("a"))]);
    let Node::Authority { authorities, .. } = compile(authorities).unwrap() else {
        panic!("it is by authority");
    };
    assert_eq!(named(&authorities["a.example:80"]), "a");
}

#[test]
fn with_nothing_to_look_at_what_comes_otherwise_comes_always() {
    let always = xds::Matcher {
        on_no_match: Some(Box::new(to("a"))),
        matcher_type: None,
    };
    assert_eq!(named(&compile(always).unwrap()), "a");
    assert!(
        compile(xds::Matcher::default())
            .unwrap_err()
            .contains("must be set")
    );
}

#[test]
fn trees_that_lead_astray_are_refused() {
    let port = || input("DestinationPortInput");
    let keeps = OnMatch {
        keep_matching: true,
        ..to("a")
    };
    let mine = FilterStateInput {
        key: "mine".into(),
        field: String::new(),
    };
    let list = xds::Matcher {
        on_no_match: None,
        matcher_type: Some(MatcherType::MatcherList(Default::default())),
    };
    let deep = (0..20).fold(map(port(), [("1", to("a"))]), |inner, _| {
        map(port(), [("1", deeper(inner))])
    });
    assert!(compile(deep).unwrap_err().contains("more than 16 deep"));
    let custom = extension(any(&IpMatcher::default()));
    for (tree, told) in [
        (
            map(port(), [("80", to("c"))]),
            "matcher_tree.exact_match_map[\"80\"].action: there is no chain \"c\"",
        ),
        (
            map(port(), [("http", to("a"))]),
            "matcher_tree.exact_match_map[\"http\"]: \"http\" is not a port",
        ),
        (
            map(port(), [("80", keeps)]),
            "matcher_tree.exact_match_map[\"80\"].keep_matching: is not",
        ),
        (
            map(port(), [("80", OnMatch::default())]),
            "matcher_tree.exact_match_map[\"80\"].action: must",
        ),
        (
            map(input("DestinationIPInput"), [("a", to("a"))]),
            "matcher_tree.exact_match_map[\"a\"]: \"a\" is no IP",
        ),
        (
            map(input("ApplicationProtocolInput"), [("h2", to("a"))]),
            "matcher_tree.exact_match_map[\"h2\"]: \"h2\"",
        ),
        (
            map(input("SourceIPInput"), [("a", to("a"))]),
            "matcher_tree.input: SourceIPInput isn't",
        ),
        (
            map(extension(any(&mine)), [("a", to("a"))]),
            "matcher_tree.input.typed_config.key: \"mine\"",
        ),
        (
            matcher(port(), TreeType::CustomMatch(custom)),
            "matcher_tree.input: DestinationPortInput isn't",
        ),
        (
            matcher(port(), TreeType::PrefixMatchMap(MatchMap::default())),
            "matcher_tree.prefix_match_map: texts",
        ),
        (
            addresses([(&[("10.0.0.0", 33)], to("a"))]),
            "matcher_tree.custom_match.typed_config.range_matchers[0].ranges[0].prefix_len",
        ),
        (list, "matcher_list: chains are"),
    ] {
        let refused = compile(tree).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

fn conditions_of(message: envoy::FilterChainMatch) -> Result<Vec<ChainMatch>, String> {
    conditions(message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn conditions_come_apart_and_in_order() {
    let range = |address: &str, length| envoy_types::pb::envoy::config::core::v3::CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(google::UInt32Value { value: length }),
    };
    let message = envoy::FilterChainMatch {
        prefix_ranges: vec![range("10.0.0.0", 8), range("10.0.0.1", 32)],
        server_names: vec!["*.Example.com".into(), "a.example.com".into()],
        transport_protocol: "tls".into(),
        ..Default::default()
    };
    let mut apart = conditions_of(message).unwrap();
    apart.extend(conditions_of(envoy::FilterChainMatch::default()).unwrap());
    apart.extend(
        conditions_of(envoy::FilterChainMatch {
            destination_port: Some(google::UInt32Value { value: 443 }),
            ..Default::default()
        })
        .unwrap(),
    );
    apart.sort_by_cached_key(specificity);
    let told: Vec<_> = apart
        .iter()
        .map(|one| {
            let address = one
                .addresses
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let name = one
                .server_names
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            format!("{:?} {address} {name}", one.port)
        })
        .collect();
    assert_eq!(
        told,
        [
            "Some(443)  ",
            "None 10.0.0.1/32 a.example.com",
            "None 10.0.0.1/32 *.example.com",
            "None 10.0.0.0/8 a.example.com",
            "None 10.0.0.0/8 *.example.com",
            "None  ",
        ]
    );
}

#[test]
fn conditions_that_are_not_served_are_refused() {
    for (message, told) in [
        (
            envoy::FilterChainMatch {
                source_type: 1,
                ..Default::default()
            },
            "source_type: is not served",
        ),
        (
            envoy::FilterChainMatch {
                server_names: vec!["a*.com".into()],
                ..Default::default()
            },
            "server_names[0]: \"a*.com\" is not a name",
        ),
        (
            envoy::FilterChainMatch {
                source_ports: vec![65_536],
                ..Default::default()
            },
            "source_ports[0]: 65536 is no port",
        ),
    ] {
        let refused = conditions_of(message).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}
