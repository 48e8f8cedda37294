//! What tables, hosts and matches become, and which are refused.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as google;
use prost::Message as _;
use route::route_match::PathSpecifier;

use super::*;

fn direct(path: PathSpecifier) -> route::Route {
    route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(path),
            ..Default::default()
        }),
        action: Some(route::route::Action::DirectResponse(
            route::DirectResponseAction {
                status: 200,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn host(name: &str, domains: &[&str]) -> route::VirtualHost {
    route::VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes: vec![direct(PathSpecifier::Prefix("/".into()))],
        ..Default::default()
    }
}

fn of(virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: "t".into(),
        virtual_hosts,
        ..Default::default()
    }
}

fn compile(table: route::RouteConfiguration) -> Result<RouteTable, String> {
    let (name, bytes) = (table.name.clone(), table.encode_to_vec());
    resource(&name, &bytes, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn domains_are_found_exact_first_then_the_longest() {
    let table = compile(of(vec![
        host("a", &["A.com", "*.com"]),
        host("b", &["*.b.com", "www.*", "www.b.*"]),
        host("c", &["*"]),
    ]))
    .unwrap();
    assert_eq!(table.exact.get("a.com"), Some(&0));
    assert_eq!(table.suffixes, [(".b.com".into(), 1), (".com".into(), 0)]);
    assert_eq!(table.prefixes, [("www.b.".into(), 1), ("www.".into(), 1)]);
    assert_eq!(table.any, Some(2));
}

#[test]
fn a_domain_stands_once_in_a_table() {
    for domains in ["a.com", "*.com", "a.*", "*"] {
        let upper = domains.to_ascii_uppercase();
        let refused = compile(of(vec![host("a", &[domains]), host("b", &[&upper])])).unwrap_err();
        let told = format!(
            "RouteConfiguration \"t\": virtual_hosts[1].domains: {upper:?} stands in this table twice"
        );
        assert_eq!(refused, told);
    }
}

#[test]
fn bad_hosts_and_routes_are_refused_with_their_way() {
    type Change = fn(&mut route::VirtualHost);
    let cases: [(Change, &str); 10] = [
        (|host| host.domains.clear(), "domains: must not be empty"),
        (|host| host.name.clear(), "name: must not be empty"),
        (
            |host| host.require_tls = 1,
            "require_tls: TLS is required of all",
        ),
        (
            |host| host.matcher = Some(Default::default()),
            "matcher: is not served",
        ),
        (
            |host| host.routes[0].action = None,
            "routes[0].route: must be set",
        ),
        (
            |host| host.routes[0].r#match = None,
            "routes[0].match: must be set",
        ),
        (
            |host| host.routes[0].r#match = Some(Default::default()),
            "routes[0].match.path_specifier: must be set",
        ),
        (
            |host| {
                host.routes[0].action = Some(route::route::Action::FilterAction(Default::default()))
            },
            "routes[0].filter_action: no filter",
        ),
        (
            |host| host.request_headers_to_remove = vec![":path".into()],
            "request_headers_to_remove: \":path\" may not",
        ),
        (
            |host| {
                host.typed_per_filter_config = [(
                    "x".to_owned(),
                    google::Any {
                        type_url: "a/b.C".into(),
                        value: Vec::new(),
                    },
                )]
                .into();
            },
            "typed_per_filter_config[\"x\"]: b.C is of a filter that isn't served",
        ),
    ];
    for (change, told) in cases {
        let mut host = host("a", &["*"]);
        change(&mut host);
        let refused = compile(of(vec![host])).unwrap_err();
        let way = format!("RouteConfiguration \"t\": virtual_hosts[0].{told}");
        assert!(refused.starts_with(&way), "{refused}");
    }
}

#[test]
fn what_a_table_says_holds_for_its_hosts() {
    let mut table = of(vec![host("a", &["*"])]);
    table.ignore_port_in_host_matching = true;
    table.most_specific_header_mutations_wins = true;
    table.internal_only_headers = vec!["X-Internal".into()];
    table.max_direct_response_body_size_bytes = Some(google::UInt32Value { value: 1 });
    let compiled = compile(table.clone()).unwrap();
    assert!(compiled.ignore_port && compiled.most_specific_wins);
    assert_eq!(compiled.internal_only[0], "x-internal");
    let body = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString("long".into())),
        ..Default::default()
    };
    table.virtual_hosts[0].routes[0].action = Some(route::route::Action::DirectResponse(
        route::DirectResponseAction {
            status: 200,
            body: Some(body),
            body_format: None,
        },
    ));
    let refused = compile(table).unwrap_err();
    assert!(
        refused.contains("direct_response.body: is 4 bytes long"),
        "{refused}"
    );
    for change in [
        |table: &mut route::RouteConfiguration| table.vhds = Some(Default::default()),
        |table: &mut route::RouteConfiguration| table.vhost_header = "x".into(),
        |table: &mut route::RouteConfiguration| {
            table.ignore_path_parameters_in_path_matching = true;
        },
    ] {
        let mut table = of(Vec::new());
        change(&mut table);
        assert!(compile(table).unwrap_err().contains("is not served"));
    }
}
