//! Domains and routes: tables from Envoy's own answers, and the index against a plain-spoken model
//! that looks at every domain of every host.

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::model::route::RouteAction;
use crate::model::text::{Pattern, TextMatch};

fn direct(matches: RouteMatch, name: &str) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        matches,
        action: RouteAction::Direct {
            status: http::StatusCode::OK,
            body: bytes::Bytes::new(),
        },
        headers: Default::default(),
        filters: Default::default(),
        operation: None,
        tracing: None,
    })
}

fn table(hosts: &[&[&str]]) -> RouteTable {
    let mut table = RouteTable::default();
    for (at, domains) in hosts.iter().enumerate() {
        table.hosts.push(Arc::new(VirtualHost {
            name: domains[0].into(),
            routes: vec![direct(RouteMatch::default(), domains[0])],
            ..VirtualHost::default()
        }));
        index(&mut table, domains.iter().map(|domain| (at, *domain))).unwrap();
    }
    table
}

fn with_head<T>(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    then: impl FnOnce(Ask<'_>) -> T,
) -> T {
    let head = Head {
        method,
        scheme: "http",
        authority: "any",
        path,
        headers,
    };
    then(Ask {
        head: &head,
        metadata: &Metadata::default(),
        caller: None,
        random: 0,
    })
}

fn takes(matches: &RouteMatch, path: &str) -> bool {
    with_head(&Method::GET, path, &HeaderMap::new(), |ask| {
        route_matches(matches, ask)
    })
}

fn by_path(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        ..RouteMatch::default()
    }
}

#[test]
fn the_most_specific_domain_wins() {
    let mut table = table(&[
        &["*"],
        &["*.example.com"],
        &["*.a.example.com", "a.*"],
        &["www.example.com", "WWW.a.example.com"],
        &["www.*"],
        &["[::1]:80"],
    ]);
    let name = |table: &RouteTable, authority: &str| {
        host(table, authority).map(|host| host.name.to_string())
    };
    for (authority, expected) in [
        ("www.example.com", "www.example.com"),
        ("WWW.EXAMPLE.COM", "www.example.com"),
        ("www.a.example.com", "www.example.com"),
        ("x.example.com", "*.example.com"),
        ("x.a.example.com", "*.a.example.com"),
        (".example.com", "*"),
        ("www.org", "www.*"),
        ("www.", "*"),
        ("a.org", "*.a.example.com"),
        ("www.example.com:80", "www.*"),
        ("[::1]:80", "[::1]:80"),
        ("", "*"),
    ] {
        assert_eq!(
            name(&table, authority).as_deref(),
            Some(expected),
            "{authority}"
        );
    }
    table.ignore_port = true;
    assert_eq!(
        name(&table, "www.example.com:80").as_deref(),
        Some("www.example.com")
    );
    table.any = None;
    assert_eq!(name(&table, "nobody"), None);
}

#[test]
fn ports_are_told_from_addresses() {
    for (authority, host) in [
        ("a:80", "a"),
        ("a", "a"),
        ("a:", "a:"),
        ("a:b", "a:b"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
    ] {
        assert_eq!(without_port(authority), host);
    }
}

#[test]
fn a_domain_belongs_to_one_host() {
    for (first, second) in [("a", "A"), ("*.b", "*.b"), ("c.*", "c.*"), ("*", "*")] {
        let mut table = RouteTable::default();
        let error = index(&mut table, [(0, first), (1, second)]).unwrap_err();
        assert_eq!(error, BadDomain::Twice(second.into()));
    }
    assert_eq!(
        index(&mut RouteTable::default(), [(0, "")]),
        Err(BadDomain::Empty)
    );
}

#[test]
fn paths() {
    let text =
        |pattern, ignore_case| by_path(PathMatch::Text(TextMatch::new(pattern, ignore_case)));
    let exact = text(Pattern::Exact("/Reviews".into()), false);
    let prefix = text(Pattern::Prefix("/rev".into()), true);
    let regex = by_path(PathMatch::Text(TextMatch::regex("/r[0-9]+").unwrap()));
    let segments = by_path(PathMatch::Segments("/a".into(), false));
    let any_case = by_path(PathMatch::Segments("/a".into(), true));
    for (test, path, expected) in [
        (&exact, "/Reviews", true),
        (&exact, "/Reviews?x=1", true),
        (&exact, "/reviews", false),
        (&exact, "/Reviews/", false),
        (&prefix, "/REViews", true),
        (&prefix, "/re?v", false),
        (&regex, "/r12?x", true),
        (&regex, "/r12/x", false),
        (&segments, "/a", true),
        (&segments, "/a/b", true),
        (&segments, "/a?b", true),
        (&segments, "/ab", false),
        (&segments, "/A", false),
        (&any_case, "/A/b", true),
    ] {
        assert_eq!(takes(test, path), expected, "{test:?} {path}");
    }
}

#[test]
fn a_plain_connect_has_no_path_but_its_own_route() {
    let connect = by_path(PathMatch::Connect);
    let takes = |matches: &RouteMatch, method: Method, path: &str| {
        with_head(&method, path, &HeaderMap::new(), |ask| {
            route_matches(matches, ask)
        })
    };
    assert!(takes(&connect, Method::CONNECT, ""));
    assert!(takes(&connect, Method::CONNECT, "/websocket"));
    assert!(!takes(&connect, Method::GET, "/"));
    assert!(!takes(&by_path(PathMatch::Any), Method::CONNECT, ""));
}

#[test]
fn queries_are_tested_as_they_stand_by_their_first_value() {
    let query = |value: Option<TextMatch>, present| RouteMatch {
        query: vec![QueryMatch {
            name: "q".into(),
            value,
            present,
        }]
        .into(),
        ..RouteMatch::default()
    };
    let exact = |text: &str| query(Some(TextMatch::exact(text)), None);
    let (there, absent) = (query(None, Some(true)), query(None, Some(false)));
    for (test, path, expected) in [
        (exact("a b"), "/?q=a%20b", false),
        (exact("a%20b"), "/?q=a%20b", true),
        (exact(""), "/?q", true),
        (exact("a"), "/?q=b&q=a", false),
        (exact("a"), "/?%71=a", false),
        (exact("a"), "/?&q=a", true),
        (exact("a=b"), "/?q=a=b", true),
        (there.clone(), "/?q", true),
        (there.clone(), "/?Q=a", false),
        (there, "/", false),
        (absent.clone(), "/", true),
        (absent, "/?q=", false),
        (query(None, None), "/?q=a", true),
    ] {
        assert_eq!(takes(&test, path), expected, "{test:?} {path}");
    }
}

#[test]
fn a_share_of_requests_falls_as_their_number_says() {
    assert!(falls(Fraction(250_000), 249_999));
    assert!(!falls(Fraction(250_000), 250_000));
    assert!(!falls(Fraction::NEVER, 0));
    assert!(falls(Fraction::ALWAYS, u64::MAX));
    assert!(falls(Fraction(1), 3_000_000));
}

#[test]
fn a_host_only_for_tls_says_so_unless_the_client_came_by_it() {
    let mut table = table(&[&["*"]]);
    let host = VirtualHost {
        require_tls: true,
        routes: table.hosts[0].routes.clone(),
        ..VirtualHost::default()
    };
    table.hosts[0] = Arc::new(host);
    let found = |headers: &HeaderMap| {
        with_head(&Method::GET, "/", headers, |ask| match find(&table, ask) {
            Found::Route(_) => "route",
            Found::RequireTls(_) => "tls",
            Found::Nothing => "nothing",
        })
    };
    let mut headers = HeaderMap::new();
    assert_eq!(found(&headers), "tls");
    headers.insert("x-forwarded-proto", "https".parse().unwrap());
    assert_eq!(found(&headers), "route");
}

/// The host as the documentation says it: every domain is looked at, the best kind wins, among
/// wildcards the longest.
fn plainly(domains: &[String], authority: &str) -> Option<usize> {
    let authority = authority.to_lowercase();
    let rank = |domain: &str| -> Option<(u8, usize)> {
        if domain == authority {
            return Some((3, 0));
        }
        if domain == "*" {
            return Some((0, 0));
        }
        let longer = authority.len() >= domain.len();
        if let Some(end) = domain.strip_prefix('*') {
            return (longer && authority.ends_with(end)).then_some((2, end.len()));
        }
        let start = domain.strip_suffix('*')?;
        (longer && authority.starts_with(start)).then_some((1, start.len()))
    };
    let ranked = domains.iter().enumerate();
    let ranked = ranked.filter_map(|(at, domain)| Some((rank(domain)?, at)));
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, at)| at)
}

proptest! {
    #[test]
    fn the_index_finds_what_looking_at_every_domain_finds(
        domains in proptest::collection::hash_set("(\\*[ab.]{1,4}|[ab.]{1,4}\\*|[ab.]{1,5}|\\*)", 0..12),
        authority in "[abAB.]{0,6}",
    ) {
        let domains: Vec<String> = domains.into_iter().collect();
        let mut table = RouteTable::default();
        for domain in &domains {
            table.hosts.push(Arc::new(VirtualHost { name: domain.as_str().into(), ..VirtualHost::default() }));
        }
        index(&mut table, domains.iter().enumerate().map(|(at, domain)| (at, domain.as_str()))).unwrap();
        let found = host(&table, &authority).map(|host| host.name.to_string());
        let expected = plainly(&domains, &authority).map(|at| domains[at].clone());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_first_route_whose_prefix_fits_is_taken(
        prefixes in proptest::collection::vec("/[ab]{0,3}", 0..8),
        path in "/[ab]{0,4}",
    ) {
        let mut table = table(&[&["*"]]);
        let route = |prefix: &String| direct(by_path(PathMatch::Text(TextMatch::prefix(prefix))), prefix);
        table.hosts[0] = Arc::new(VirtualHost {
            routes: prefixes.iter().map(route).collect(),
            ..VirtualHost::default()
        });
        let found = with_head(&Method::GET, &path, &HeaderMap::new(), |ask| match find(&table, ask) {
            Found::Route(picked) => Some(picked.route.name.to_string()),
            _ => None,
        });
        prop_assert_eq!(found, prefixes.into_iter().find(|prefix| path.starts_with(prefix.as_str())));
    }
}

#[test]
fn a_label_counts_only_where_the_caller_proved_to_be_that_workload() {
    use mesh::proto::workload as pb;
    use mesh::workload::{Workload, labels};

    let exact = |text: &str| TextMatch::new(Pattern::Exact(text.into()), false);
    let web = RouteMatch {
        path: PathMatch::Any,
        caller: vec![CallerMatch::Label("app".into(), exact("web"))].into(),
        ..RouteMatch::default()
    };
    let me = "spiffe://cluster.local/ns/shop/sa/web";
    let principal = RouteMatch {
        path: PathMatch::Any,
        caller: vec![CallerMatch::Principal(exact(me))].into(),
        ..RouteMatch::default()
    };
    let workload = Workload::try_from(pb::Workload {
        uid: "u".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "web".to_owned(),
        extensions: vec![labels::extension([("app", "web")])],
        ..pb::Workload::default()
    });
    let workload = Arc::new(workload.unwrap());
    let caller = |identity: &str| Downstream {
        peer: Some(Arc::new(crate::connection::PeerCertificate {
            identity: identity.parse().ok(),
            uris: vec![identity.into()],
            ..Default::default()
        })),
        workload: Some(workload.clone()),
        ..crate::http::testing::downstream()
    };
    let takes = |matches: &RouteMatch, caller: Option<&Downstream>| {
        with_head(&Method::GET, "/", &HeaderMap::new(), |ask| {
            route_matches(matches, Ask { caller, ..ask })
        })
    };
    let (itself, other) = (
        caller(me),
        caller("spiffe://cluster.local/ns/shop/sa/other"),
    );
    assert!(takes(&web, Some(&itself)) && takes(&principal, Some(&itself)));
    assert!(!takes(&web, Some(&other)) && !takes(&principal, Some(&other)));
    assert!(!takes(&web, None) && !takes(&principal, None));
}
