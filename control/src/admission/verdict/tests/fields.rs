//! Every field of every kind: a value of a wrong type is refused by the field's name, and a field that
//! nobody knows is named beside it. What is tried is made from one object of each kind that has all
//! the fields.

use super::*;
use crate::objects::routing::Routing;

/// An object of each kind, with every field that is read.
fn whole() -> Vec<(&'static str, &'static str, Value)> {
    let texts = json!({"a": {"exact": "x"}, "b": {"prefix": "x"}, "c": {"regex": "x"}});
    let destination = json!({"host": "web", "subset": "v1", "port": {"number": 80}});
    let operations = json!({"set": {"a": "1"}, "add": {"b": "2"}, "remove": ["c"]});
    let headers = json!({"request": operations, "response": operations});
    let l4 = |field: &str| {
        json!([{
            "match": [{field: ["a.test"], "port": 80, "sourceLabels": {"a": "b"}, "gateways": ["mesh"], "sourceNamespace": "shop"}],
            "route": [{"destination": destination, "weight": 1}],
        }])
    };
    let virtual_service = json!({
        "hosts": ["web"], "gateways": ["mesh"], "exportTo": ["."],
        "tls": l4("sniHosts"), "tcp": l4("destinationSubnets"),
        "http": [{
            "name": "a",
            "match": [{
                "name": "m", "uri": {"exact": "/"}, "scheme": {"exact": "http"}, "method": {"exact": "GET"}, "authority": {"exact": "web"},
                "headers": texts, "withoutHeaders": texts, "queryParams": texts, "port": 80, "sourceLabels": {"a": "b"},
                "gateways": ["mesh"], "ignoreUriCase": true, "sourceNamespace": "shop", "statPrefix": "s",
            }],
            "route": [{"destination": destination, "weight": 1, "headers": headers}],
            "rewrite": {"uri": "/", "authority": "a.test", "uriRegexRewrite": {"match": "a", "rewrite": "b"}},
            "timeout": "1s",
            "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx", "retryRemoteLocalities": true, "retryIgnorePreviousHosts": true, "backoff": "1s"},
            "fault": {
                "delay": {"fixedDelay": "1s", "percentage": {"value": 1.5}, "percent": 1},
                "abort": {"httpStatus": 503, "grpcStatus": "NOT_FOUND", "percentage": {"value": 1.5}},
            },
            "mirror": destination, "mirrors": [{"destination": destination, "percentage": {"value": 1.5}}],
            "mirrorPercent": 1, "mirrorPercentage": {"value": 1.5},
            "corsPolicy": {
                "allowOrigins": [{"exact": "a"}], "allowOrigin": ["a"], "allowMethods": ["GET"], "allowHeaders": ["a"],
                "exposeHeaders": ["a"], "maxAge": "1s", "allowCredentials": true, "unmatchedPreflights": "FORWARD",
            },
            "headers": headers,
            "redirect": {"uri": "/", "authority": "a.test", "port": 80, "derivePort": "FROM_REQUEST_PORT", "scheme": "http", "redirectCode": 301},
            "directResponse": {"status": 503, "body": {"string": "a", "bytes": "YQ=="}},
            "delegate": {"name": "a", "namespace": "b"},
        }],
    });
    let hash = json!({
        "httpHeaderName": "a", "httpCookie": {"name": "a", "path": "/", "ttl": "1s", "attributes": [{"name": "a", "value": "b"}]},
        "useSourceIp": true, "httpQueryParameterName": "a", "ringHash": {"minimumRingSize": 1}, "maglev": {"tableSize": 7}, "minimumRingSize": 1,
    });
    let balancer = json!({
        "simple": "RANDOM", "consistentHash": hash, "warmup": {"duration": "1s", "minimumPercent": 1.5, "aggression": 1.5}, "warmupDurationSecs": "1s",
        "localityLbSetting": {
            "distribute": [{"from": "a", "to": {"a": 100}}], "failover": [{"from": "a", "to": "b"}], "failoverPriority": ["a"], "enabled": true,
        },
    });
    let pool = json!({
        "tcp": {
            "maxConnections": 1, "connectTimeout": "1s", "maxConnectionDuration": "1s", "idleTimeout": "1s",
            "tcpKeepalive": {"probes": 1, "time": "1s", "interval": "1s"},
        },
        "http": {
            "http1MaxPendingRequests": 1, "http2MaxRequests": 1, "maxRequestsPerConnection": 1, "maxRetries": 1, "idleTimeout": "1s",
            "h2UpgradePolicy": "UPGRADE", "useClientProtocol": true, "maxConcurrentStreams": 1, "http2KeepAlive": {"interval": "1s", "timeout": "1s"},
        },
    });
    let outliers = json!({
        "splitExternalLocalOriginErrors": true, "consecutiveLocalOriginFailures": 1, "consecutiveGatewayErrors": 1, "consecutive5xxErrors": 1,
        "interval": "1s", "baseEjectionTime": "1s", "maxEjectionPercent": 1, "minHealthPercent": 1,
    });
    let tls = json!({
        "mode": "SIMPLE", "clientCertificate": "a", "privateKey": "a", "caCertificates": "a", "credentialName": "a",
        "subjectAltNames": ["a"], "sni": "a", "insecureSkipVerify": true,
    });
    let part = json!({"loadBalancer": balancer, "connectionPool": pool, "outlierDetection": outliers, "tls": tls});
    let mut policy = part.clone();
    let mut at_port = part;
    at_port["port"] = json!({"number": 80});
    policy["portLevelSettings"] = json!([at_port]);
    policy["proxyProtocol"] = json!({"version": "V2"});
    policy["retryBudget"] = json!({"percent": 1.5, "minRetryConcurrency": 1});
    policy["tunnel"] = json!({"protocol": "CONNECT", "targetHost": "a", "targetPort": 80});
    let rule = json!({
        "host": "web", "trafficPolicy": policy, "exportTo": ["."],
        "subsets": [{"name": "v1", "labels": {"a": "b"}, "trafficPolicy": policy}],
    });
    let endpoint = json!({
        "address": "192.0.2.1", "ports": {"http": 8080}, "labels": {"a": "b"}, "network": "n", "locality": "r/z", "weight": 1, "serviceAccount": "a",
    });
    let entry = json!({
        "hosts": ["e.test"], "addresses": ["192.0.2.9"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "protocol": "HTTP", "name": "http", "targetPort": 8080}],
        "endpoints": [endpoint], "exportTo": ["."], "subjectAltNames": ["a"], "workloadSelector": {"labels": {"a": "b"}},
    });
    let target = json!({"group": "", "kind": "Service", "name": "web"});
    let tokens = json!({
        "selector": {"matchLabels": {"a": "b"}}, "targetRef": target, "targetRefs": [target],
        "jwtRules": [{
            "issuer": "a", "audiences": ["a"], "jwksUri": "https://a.test", "jwks": "{}", "fromHeaders": [{"name": "a", "prefix": "b"}],
            "fromParams": ["a"], "fromCookies": ["a"], "outputPayloadToHeader": "a", "outputClaimToHeaders": [{"header": "a", "claim": "b"}],
            "forwardOriginalToken": true, "timeout": "1s", "spaceDelimitedClaims": ["a"],
        }],
    });
    let telemetry = json!({
        "selector": {"matchLabels": {}}, "targetRef": target, "targetRefs": [target],
        "accessLogging": [{"match": {"mode": "SERVER"}, "providers": [{"name": "envoy"}], "disabled": true, "filter": {"expression": "true"}}],
        "metrics": [{
            "providers": [{"name": "prometheus"}], "reportingInterval": "1s",
            "overrides": [{
                "match": {"metric": "REQUEST_COUNT", "customMetric": "a", "mode": "SERVER"}, "disabled": true,
                "tagOverrides": {"a": {"operation": "UPSERT", "value": "'a'"}},
            }],
        }],
        "tracing": [{
            "match": {"mode": "SERVER"}, "providers": [{"name": "otel"}], "randomSamplingPercentage": 1.5, "disableSpanReporting": true,
            "useRequestIdForTraceSampling": true, "enableIstioTags": true, "disableContextPropagation": true,
            "customTags": {"a": {"literal": {"value": "a"}, "environment": {"name": "a", "defaultValue": "b"}, "header": {"name": "a", "defaultValue": "b"}, "formatter": {"value": "a"}}},
        }],
    });
    let backend = json!({"group": "", "kind": "Service", "namespace": "shop", "name": "web", "port": 80, "weight": 1});
    let header = json!([{"name": "a", "value": "b"}]);
    let modifier = json!({"set": header, "add": header, "remove": ["a"]});
    let path =
        json!({"type": "ReplaceFullPath", "replaceFullPath": "/", "replacePrefixMatch": "/"});
    let filter = json!({
        "type": "URLRewrite", "requestHeaderModifier": modifier, "responseHeaderModifier": modifier,
        "requestMirror": {"backendRef": backend, "percent": 1.5, "fraction": {"numerator": 1.5, "denominator": 2.5}},
        "requestRedirect": {"scheme": "http", "hostname": "a.test", "path": path, "port": 80, "statusCode": 301},
        "urlRewrite": {"hostname": "a.test", "path": path},
        "cors": {"allowOrigins": ["a"], "allowCredentials": true, "allowMethods": ["GET"], "allowHeaders": ["a"], "exposeHeaders": ["a"], "maxAge": 1},
    });
    let mut filtered = backend.clone();
    filtered["filters"] = json!([filter]);
    let named = json!([{"type": "Exact", "name": "a", "value": "b"}]);
    let route = json!({
        "parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "web", "sectionName": "a", "port": 80}],
        "hostnames": ["a.test"],
        "rules": [{
            "name": "a", "matches": [{"path": {"type": "Exact", "value": "/"}, "headers": named, "queryParams": named, "method": "GET"}],
            "filters": [filter], "backendRefs": [filtered], "timeouts": {"request": "1s", "backendRequest": "1s"},
            "retry": {"codes": [503], "attempts": 1, "backoff": "1s"},
        }],
    });
    let grant = json!({
        "from": [{"group": GATEWAY, "kind": "HTTPRoute", "namespace": "shop"}], "to": [{"group": "", "kind": "Service", "name": "web"}],
    });
    vec![
        ("VirtualService", NETWORKING, virtual_service),
        ("DestinationRule", NETWORKING, rule),
        ("ServiceEntry", NETWORKING, entry),
        ("WorkloadEntry", NETWORKING, endpoint),
        ("RequestAuthentication", SECURITY, tokens),
        ("Telemetry", TELEMETRY, telemetry),
        ("HTTPRoute", GATEWAY, route.clone()),
        ("GRPCRoute", GATEWAY, route.clone()),
        ("TCPRoute", GATEWAY, route.clone()),
        ("TLSRoute", GATEWAY, route),
        ("ReferenceGrant", GATEWAY, grant),
    ]
}

/// Where each value is: as a pointer (RFC 6901), and as it is said.
pub(super) fn places(value: &Value, pointer: &str, said: &str, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if said.is_empty() { "" } else { "." };
                let place = (format!("{pointer}/{name}"), format!("{said}{dot}{name}"));
                all.push(place.clone());
                places(value, &place.0, &place.1, all);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                let place = (format!("{pointer}/{index}"), format!("{said}[{index}]"));
                all.push(place.clone());
                places(value, &place.0, &place.1, all);
            }
        }
        _ => {}
    }
}

fn read(kind: &str, group: &str, spec: &Value) -> Routing {
    let found = KINDS
        .into_iter()
        .find(|known| known.name() == kind)
        .unwrap();
    let object = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": "it", "namespace": "shop"}, "spec": spec,
    });
    Routing::read(found, &serde_json::from_value(object).unwrap()).unwrap()
}

/// A value that is none of this field's.
fn wrong(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(_) => vec![json!("perhaps"), json!({}), json!(7)],
        Value::Number(number) if number.is_f64() => vec![json!("many"), json!([])],
        Value::Number(_) => vec![json!("many"), json!(1e20), json!({})],
        Value::String(_) => vec![json!({"odd": 1}), json!([{}]), json!(true)],
        Value::Array(_) => vec![json!("odd"), json!(7), json!({"odd": 1})],
        Value::Object(_) => vec![json!("odd"), json!(7)],
        Value::Null => Vec::new(),
    }
}

#[test]
fn a_value_of_a_wrong_type_is_refused_by_the_name_of_its_field() {
    let mut tried = 0;
    for (kind, group, spec) in whole() {
        let mut all = Vec::new();
        places(&spec, "", "", &mut all);
        for (pointer, said) in all {
            // A word for HTTP, service and method for gRPC: looked at when it is put to use.
            if pointer.ends_with("/method") && kind.ends_with("Route") {
                continue;
            }
            for odd in wrong(spec.pointer(&pointer).unwrap()) {
                let mut changed = spec.clone();
                *changed.pointer_mut(&pointer).unwrap() = odd.clone();
                let problem = read(kind, group, &changed).spec.err();
                let named = problem
                    .as_deref()
                    .is_some_and(|problem| problem.contains(&format!("{said}: ")));
                assert!(named, "{kind} {said} = {odd}: {problem:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1500, "{tried}");
}

/// Fields whose names inside are anybody's.
const MAPS: [&str; 10] = [
    "abels",
    "match[0].headers",
    "withoutHeaders",
    "queryParams",
    ".set",
    ".add",
    ".to",
    "ports",
    "customTags",
    "tagOverrides",
];

#[test]
fn a_field_that_nobody_knows_is_named_and_the_rest_holds() {
    let mut tried = 0;
    for (kind, group, spec) in whole() {
        let before = read(kind, group, &spec);
        assert_eq!(before.passed_over, Vec::<String>::new(), "{kind}");
        let mut all = vec![(String::new(), String::new())];
        places(&spec, "", "", &mut all);
        for (pointer, said) in all {
            let is_map = MAPS.iter().any(|name| said.ends_with(name));
            if is_map || !spec.pointer(&pointer).unwrap().is_object() {
                continue;
            }
            let mut changed = spec.clone();
            changed.pointer_mut(&pointer).unwrap()["misspelt"] = json!({"deep": 1});
            let found = read(kind, group, &changed);
            let dot = if said.is_empty() { "" } else { "." };
            assert_eq!(
                found.passed_over,
                [format!("{said}{dot}misspelt")],
                "{kind}"
            );
            assert_eq!(found.spec, before.spec, "{kind} {said}");
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn what_is_passed_over_is_said_to_who_applies_it_and_in_the_status() {
    let spec = json!({"hosts": ["web"], "http": [{"timeuot": "1s", "route": [{"destination": {"host": "web"}}]}]});
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "it", "namespace": "shop"}, "spec": spec,
    });
    let review = |object: &Value| {
        let review = json!({"request": {"uid": "u", "object": object}});
        crate::admission::reviewed(&Mesh::default(), review)["response"].clone()
    };
    let said = review(&object);
    let warning = "spec.http[0].timeuot is not known to Culvert and passed over: is it misspelt?";
    assert_eq!(
        (&said["allowed"], &said["warnings"]),
        (&json!(true), &json!([warning]))
    );

    let mut index = Index::new(Mesh::default());
    let mut status = |object: &Value| {
        let read = Routing::read(
            Kind::VirtualService,
            &serde_json::from_value(object.clone()).unwrap(),
        );
        index.apply(Change::Applied(Object::Routing(Box::new(read.unwrap()))));
        index.recompute();
        let mut wishes = index.take_wishes().into_iter();
        wishes
            .next()
            .map(|wish| (wish.verdict.accepted, wish.verdict.message))
    };
    let message =
        "in force at waypoints; passed over, because it is not known here: http[0].timeuot";
    assert_eq!(status(&object), Some((true, message.to_owned())));
    object["spec"]["http"][0] = json!({"route": [{"destination": {"host": "web"}}]});
    assert_eq!(review(&object)["warnings"], json!([]));
    assert_eq!(
        status(&object),
        Some((true, "in force at waypoints".to_owned()))
    );
    assert_eq!(status(&object), None, "nothing new to say");
}
