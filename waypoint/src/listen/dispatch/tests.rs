//! Tables of chains and of connections they take.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::model::listener::{ChainKind, Detect, TcpChain};

fn chain(name: &str) -> Arc<Chain> {
    Arc::new(Chain {
        name: name.into(),
        tls: None,
        handshake_timeout: Duration::from_secs(1),
        guards: Vec::new(),
        stats: false,
        kind: ChainKind::Tcp(Arc::new(TcpChain {
            stat_prefix: name.into(),
            clusters: Vec::new(),
            total: 0,
            access_logs: Vec::new(),
            idle: None,
            max_duration: None,
            connect_attempts: 1,
            hash_source: false,
            tunnel: None,
        })),
    })
}

fn dispatch(choose: Choose, default: Option<&str>) -> Dispatch {
    Dispatch {
        chains: Vec::new(),
        choose,
        default: default.map(chain),
        detect: Detect::default(),
        detect_timeout: Duration::from_secs(1),
    }
}

fn facts(destination: &str) -> Facts<'_> {
    Facts {
        destination: destination.parse().ok(),
        authority: Some(destination),
        source: "10.9.9.9:4000".parse().unwrap(),
        protocol: None,
        tls: false,
        server_name: None,
        alpn: &[],
    }
}

fn name<'a>(dispatch: &'a Dispatch, facts: &Facts<'_>) -> Option<&'a str> {
    dispatch.chain(facts).map(|chain| &*chain.name)
}

/// As istiod builds it: address, port, then protocol where none is declared; host names at last.
fn istiod() -> Dispatch {
    let vip = |ports: Vec<(u16, Node)>| {
        Arc::new(Node::Port {
            ports: ports.into_iter().collect(),
            otherwise: None,
        })
    };
    let http = |protocol| (protocol, Node::Chain(chain("undeclared-http")));
    let undeclared = Node::Protocol {
        protocols: [Protocol::Http11, Protocol::Http2].map(http).into(),
        otherwise: Some(Box::new(Node::Chain(chain("undeclared-tcp")))),
    };
    let names = [("reviews.bookinfo:9080".into(), Node::Chain(chain("named")))];
    let root = Node::Address {
        ranges: vec![(
            "10.0.0.0/8".parse().unwrap(),
            vip(vec![(80, Node::Chain(chain("wide")))]),
        )],
        exact: HashMap::from([(
            "10.1.1.1".parse().unwrap(),
            vip(vec![(9080, Node::Chain(chain("http"))), (9000, undeclared)]),
        )]),
        otherwise: Some(Box::new(Node::Authority {
            authorities: names.into(),
            otherwise: None,
        })),
    };
    dispatch(Choose::Tree(root), None)
}

#[test]
fn the_tree_goes_by_address_port_protocol_and_name() {
    let tree = istiod();
    for (to, protocol, expected) in [
        ("10.1.1.1:9080", None, Some("http")),
        ("[::ffff:10.1.1.1]:9080", None, Some("http")),
        (
            "10.1.1.1:9000",
            Some(Protocol::Http11),
            Some("undeclared-http"),
        ),
        (
            "10.1.1.1:9000",
            Some(Protocol::Http2),
            Some("undeclared-http"),
        ),
        (
            "10.1.1.1:9000",
            Some(Protocol::Opaque),
            Some("undeclared-tcp"),
        ),
        ("10.1.1.1:9000", None, Some("undeclared-tcp")),
        // The exact address has no such port: the wider range is asked.
        ("10.1.1.1:80", None, Some("wide")),
        ("10.1.1.1:81", None, None),
        ("reviews.bookinfo:9080", None, Some("named")),
        ("reviews.bookinfo:9081", None, None),
        ("192.168.0.1:80", None, None),
    ] {
        let facts = Facts {
            protocol,
            ..facts(to)
        };
        assert_eq!(name(&tree, &facts), expected, "{to} {protocol:?}");
    }
}

#[test]
fn conditions_are_judged_one_after_the_other_without_a_way_back() {
    let with = |name: &str, change: fn(&mut ChainMatch)| {
        let mut conditions = ChainMatch::default();
        change(&mut conditions);
        (conditions, chain(name))
    };
    let conditions = dispatch(
        Choose::Conditions(vec![
            with("port", |on| on.port = Some(443)),
            with("port and name", |on| {
                on.port = Some(443);
                on.server_names = vec!["a.example".into(), "b.example".into()];
            }),
            with("wildcard", |on| {
                on.port = Some(443);
                on.server_names = vec!["*.example".into()];
            }),
            with("longer wildcard", |on| {
                on.port = Some(443);
                on.server_names = vec!["*.c.example".into()];
            }),
            with("dead end", |on| {
                on.port = Some(9000);
                on.transport = Some("tls".into());
            }),
            with("net", |on| {
                on.addresses = vec!["10.0.0.0/8".parse().unwrap()]
            }),
            with("longer net", |on| {
                on.addresses = vec!["10.1.0.0/16".parse().unwrap()];
                on.protocols = vec!["h2".into(), "h2c".into()];
            }),
            with("from", |on| {
                on.sources = vec!["10.9.0.0/16".parse().unwrap()];
            }),
        ]),
        Some("default"),
    );
    let asked = |to: &'static str, server_name: Option<&'static str>| Facts {
        server_name,
        tls: server_name.is_some(),
        ..facts(to)
    };
    for (facts, expected) in [
        (asked("1.1.1.1:443", None), "port"),
        (asked("1.1.1.1:443", Some("b.example")), "port and name"),
        (asked("1.1.1.1:443", Some("x.example")), "wildcard"),
        (asked("1.1.1.1:443", Some("x.c.example")), "longer wildcard"),
        (asked("1.1.1.1:443", Some("example")), "port"),
        // Port 9000 is more specific than none, and then there is no way back.
        (asked("1.1.1.1:9000", None), "default"),
        (asked("1.1.1.1:9000", Some("a.example")), "dead end"),
        (asked("10.2.0.1:80", None), "net"),
        // The longer net is chosen before its protocol is found wanting.
        (asked("10.1.0.1:80", None), "default"),
        (asked("1.1.1.1:80", None), "from"),
    ] {
        assert_eq!(name(&conditions, &facts), Some(expected), "{facts:?}");
    }
    let h2 = Facts {
        protocol: Some(Protocol::Http2),
        ..facts("10.1.0.1:80")
    };
    assert_eq!(name(&conditions, &h2), Some("longer net"));
}

#[test]
fn ports_with_a_declared_protocol_are_not_looked_at() {
    let mut dispatch = dispatch(Choose::Conditions(Vec::new()), None);
    dispatch.detect = Detect {
        http: true,
        not_http: vec![(80, 81), (9000, 9010)],
        tls: true,
        not_tls: vec![(0, 443), (444, 65_536)],
    };
    assert_eq!(dispatch.looks_for(80), (false, false));
    assert_eq!(dispatch.looks_for(81), (true, false));
    assert_eq!(dispatch.looks_for(9009), (false, false));
    assert_eq!(dispatch.looks_for(443), (true, true));
    assert_eq!(dispatch.looks_for(65_535), (true, false));
}
