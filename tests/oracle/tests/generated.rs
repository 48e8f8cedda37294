//! Route tables and requests made at random from a small vocabulary, so that they meet each other
//! often: whatever Envoy does with a request, ours must do. The seed is committed, so every run has
//! the same cases; a failure prints its table.

use std::path::Path;

use anyhow::{Result, ensure};
use oracle::differ::Accepted;
use oracle::run::{Court, Way};
use oracle::subject::Kind;
use oracle::theme::Theme;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

/// Another seed, other cases.
const SEED: [u8; 32] = *b"culvert's oracle, issue 4: seed.";
/// Route tables, each a virtual host.
const TABLES: usize = 120;
/// Requests to each.
const REQUESTS: usize = 12;

/// Paths that are matched and asked for.
const PATHS: &[&str] = &[
    "/", "/a", "/a/", "/a/b", "/ab", "/A", "/a/b/c", "/b", "/b/1", "/b/12/x", "/aa", "/a//b",
    "/a%20b", "/a.b",
];
const REGEXES: &[&str] = &[
    "/a.*",
    "/[ab]",
    "/b/[0-9]+(/.*)?",
    ".*b",
    "(?i)/a/B",
    "/a|/b",
    "/a(/b)?",
];
const VALUES: &[&str] = &["", "x", "X", "xy", "yx", "1", "10", "-3", "x,y"];

fn string_match() -> impl Strategy<Value = Value> {
    let plain = select(&["exact", "prefix", "suffix", "contains"][..]);
    // An empty value is refused for all but `exact`.
    let value = select(&["x", "X", "xy", "y", "1"][..]);
    prop_oneof![
        (plain, value, any::<bool>()).prop_map(|(kind, value, ignore_case)| {
            let mut matcher = json!({"ignore_case": ignore_case});
            matcher[kind] = value.into();
            matcher
        }),
        select(&["x.*", "[0-9]+", "x|y", ".*", "(x|X)y?"][..])
            .prop_map(|regex| json!({"safe_regex": {"regex": regex}})),
    ]
}

fn header() -> impl Strategy<Value = Value> {
    let how = prop_oneof![
        4 => string_match().prop_map(|m| json!({"string_match": m})),
        1 => any::<bool>().prop_map(|present| json!({"present_match": present})),
        1 => (-5..5_i64, 5..20_i64).prop_map(|(start, end)| json!({"range_match": {"start": start.to_string(), "end": end.to_string()}})),
    ];
    let name = select(&["x-a", "x-b", ":method", "X-A"][..]);
    (how, name, any::<bool>(), any::<bool>()).prop_map(|(mut matcher, name, invert, empty)| {
        matcher["name"] = name.into();
        matcher["invert_match"] = invert.into();
        matcher["treat_missing_header_as_empty"] = empty.into();
        matcher
    })
}

fn query() -> impl Strategy<Value = Value> {
    let how = prop_oneof![
        string_match().prop_map(|m| json!({"string_match": m})),
        Just(json!({"present_match": true})),
    ];
    (how, select(&["q", "r"][..])).prop_map(|(mut matcher, name)| {
        matcher["name"] = name.into();
        matcher
    })
}

fn path() -> impl Strategy<Value = Map<String, Value>> {
    let one = |kind: &str, value: Value| Map::from_iter([(kind.to_owned(), value)]);
    let case = any::<bool>();
    let literal = (select(&["path", "prefix"][..]), select(PATHS), case);
    // A separated prefix may not end with a slash, nor have a query.
    let separated = (
        select(&["/a", "/a/b", "/b", "/A", "/ab"][..]),
        any::<bool>(),
    );
    prop_oneof![
        5 => literal.prop_map(move |(kind, path, case)| {
            let mut matcher = one(kind, path.into());
            matcher.insert("case_sensitive".into(), case.into());
            matcher
        }),
        2 => separated.prop_map(move |(path, case)| {
            let mut matcher = one("path_separated_prefix", path.into());
            matcher.insert("case_sensitive".into(), case.into());
            matcher
        }),
        2 => select(REGEXES).prop_map(move |regex| one("safe_regex", json!({"regex": regex}))),
    ]
}

fn action() -> impl Strategy<Value = Value> {
    let cluster = select(&["$a", "$b", "$c"][..]);
    let rewrite = prop_oneof![
        3 => Just(json!({})),
        1 => select(&["/", "/new", "/new/"][..]).prop_map(|p| json!({"prefix_rewrite": p})),
        1 => select(&["/\\1", "/-\\0-", "/x"][..]).prop_map(|s| json!({"regex_rewrite": {"pattern": {"regex": "/([ab])"}, "substitution": s}})),
        1 => Just(json!({"host_rewrite_literal": "new.host"})),
        1 => Just(json!({"host_rewrite_header": "x-b"})),
    ];
    let redirect = prop_oneof![
        Just(json!({"path_redirect": "/moved"})),
        Just(json!({"path_redirect": "/moved?with=query"})),
        Just(json!({"prefix_rewrite": "/moved"})),
        Just(json!({"https_redirect": true})),
        Just(json!({"host_redirect": "other", "strip_query": true})),
        Just(json!({"port_redirect": 8080, "response_code": "FOUND"})),
        Just(json!({"regex_rewrite": {"pattern": {"regex": "/(.)"}, "substitution": "/\\1\\1"}})),
    ];
    prop_oneof![
        6 => (cluster, rewrite).prop_map(|(cluster, mut route)| {
            route["cluster"] = cluster.into();
            json!({"route": route})
        }),
        1 => redirect.prop_map(|redirect| json!({"redirect": redirect})),
        1 => select(&[200_u16, 404, 418, 503][..]).prop_map(|status| json!({"direct_response": {"status": status, "body": {"inline_string": "direct"}}})),
    ]
}

/// At most one change of a header for each direction, and no answer that names the caller's headers:
/// where ours differs there, `cases/mutations.yaml` says so case by case.
fn mutations() -> impl Strategy<Value = Value> {
    let how = select(
        &[
            "APPEND_IF_EXISTS_OR_ADD",
            "ADD_IF_ABSENT",
            "OVERWRITE_IF_EXISTS_OR_ADD",
            "OVERWRITE_IF_EXISTS",
        ][..],
    );
    let set = move |values: &'static [&'static str]| {
        let change = (select(&["x-a", "x-new"][..]), select(values), how.clone());
        vec(change.prop_map(|(key, value, how)| json!({"header": {"key": key, "value": value}, "append_action": how})), 0..2)
    };
    let request = set(&["added", "%REQ(x-b)%", "%REQ(:path)%", "a%%b"]);
    let answer = set(&["added", "a%%b"]);
    let remove = select(&["x-a", "x-from"][..]);
    (request, answer, option::of(remove)).prop_map(|(request, answer, remove)| {
        json!({
            "request_headers_to_add": request,
            "response_headers_to_add": answer,
            "request_headers_to_remove": remove.into_iter().collect::<Vec<_>>(),
        })
    })
}

fn route() -> impl Strategy<Value = Value> {
    let headers = vec(header(), 0..2);
    let queries = prop_oneof![3 => Just(Vec::new()), 1 => vec(query(), 1..3)];
    (path(), headers, queries, action(), mutations()).prop_map(
        |(mut matcher, headers, queries, action, mutations)| {
            matcher.insert("headers".into(), headers.into());
            matcher.insert("query_parameters".into(), queries.into());
            let mut route = json!({"match": matcher});
            for part in [action, mutations] {
                if let (Some(route), Value::Object(part)) = (route.as_object_mut(), part) {
                    route.extend(part);
                }
            }
            route
        },
    )
}

/// A request without its authority, which is the table's.
fn request() -> impl Strategy<Value = (String, Value)> {
    let method = select(&["GET", "POST", "DELETE"][..]);
    let parameters = vec((select(&["q", "r"][..]), select(VALUES)), 0..3);
    let headers = vec((select(&["x-a", "x-b"][..]), select(VALUES)), 0..4);
    (method, select(PATHS), parameters, headers).prop_map(|(method, path, parameters, headers)| {
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let query = if parameters.is_empty() { "" } else { "?" };
        let mut all: Map<String, Value> = Map::new();
        for (name, value) in headers {
            let values = all.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(values) = values {
                values.push(value.into());
            }
        }
        let target = format!("{path}{query}{}", parameters.join("&"));
        (
            format!("{method} http://AUTHORITY{target}"),
            Value::Object(all),
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_tables_are_served_as_envoy_serves_them() -> Result<()> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &SEED),
    );
    let (mut hosts, mut cases) = (Vec::new(), Vec::new());
    for table in 0..TABLES {
        let made = (vec(route(), 1..6), vec(request(), REQUESTS));
        let made = made.new_tree(&mut runner).map_err(anyhow::Error::msg)?;
        let (mut routes, requests) = made.current();
        // What no other route takes is served in every second table, and nowhere in the others.
        if table % 2 == 0 {
            routes.push(json!({"match": {"prefix": "/"}, "route": {"cluster": "$a"}}));
        }
        let authority = format!("t{table}.test");
        hosts.push(json!({"name": authority, "domains": [authority], "routes": routes}));
        for (ask, headers) in requests {
            cases.push(json!({
                "name": format!("{ask} {headers} to table {table}"),
                "ask": ask.replace("AUTHORITY", &authority),
                "headers": headers,
                "expect": {},
            }));
        }
    }
    let mut theme: Theme = serde_json::from_value(json!({
        "about": "generated",
        "clusters": {"a": {}, "b": {"kind": "http2"}, "c": {}},
        "virtual_hosts": hosts,
        "cases": cases,
    }))?;
    theme.name = "generated".to_owned();
    theme.port = 20_000;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let accepted = Accepted::read(&here.join("accepted-differences.yaml"))?;
    let scratch = tempfile::tempdir()?;
    let kinds = [Kind::Envoy, Kind::Waypoint];
    let court = Court::open(
        std::slice::from_ref(&theme),
        &kinds,
        Way::Plain,
        scratch.path(),
    )
    .await?;
    let verdicts = court.hear(&theme, &accepted).await?;
    let wrong: Vec<_> = verdicts.iter().filter(|v| !v.wrong.is_empty()).collect();
    for verdict in wrong.iter().take(20) {
        println!("{}", verdict.title);
        verdict.wrong.iter().for_each(|w| println!("    {w}"));
        let table = hosts.iter().find(|host| {
            let name = host["name"].as_str().unwrap_or_default();
            verdict
                .title
                .contains(&format!("to table {} ", &name[1..name.len() - 5]))
        });
        println!("    {}", table.map(Value::to_string).unwrap_or_default());
    }
    let unsteady = verdicts.iter().filter(|v| v.is_unsteady_of_ours()).count();
    println!("{unsteady} were right only when they were heard again");
    println!(
        "{} of {} generated requests agree",
        verdicts.len() - wrong.len(),
        verdicts.len()
    );
    // Tables that nothing matches would agree too.
    let reached = |shown: &String| !shown.contains("hops []");
    let reached = verdicts.iter().filter(|v| v.shown.iter().all(reached));
    let reached = reached.count();
    println!("{reached} of them reach a backend");
    ensure!(reached > verdicts.len() / 3, "too few reach a backend");
    ensure!(verdicts.len() == TABLES * REQUESTS * 2);
    ensure!(wrong.is_empty(), "{} requests differ", wrong.len());
    ensure!(unsteady <= 2, "{unsteady} requests differ now and then");
    Ok(())
}
