//! What may not stand in a ServiceEntry: it is refused as a whole, by the field and the reason.
//! (istio/istio, `pkg/config/validation`, `ValidateServiceEntry`)

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Endpoint, Resolution, Spec, block};

/// What a name in DNS can have.
const MAX_HOST: usize = 255;
/// What can be spoken on a port; no word: TCP.
const PROTOCOLS: [&str; 14] = [
    "tcp",
    "udp",
    "tls",
    "http",
    "http_proxy",
    "http2",
    "https",
    "grpc",
    "grpc-web",
    "mongo",
    "redis",
    "mysql",
    "hbone",
    "doublehbone",
];

/// Says what is wrong, by its field.
pub(super) fn check(spec: &Spec) -> Result<(), String> {
    hosts(spec)?;
    addresses(spec)?;
    ports(spec)?;
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        return Err(
            "endpoints: only one of endpoints and workloadSelector may be there".to_owned(),
        );
    }
    endpoints(spec)?;
    let namespace = |to: &&String| !matches!(to.as_str(), "." | "*" | "~") && !is_label(to);
    match spec.export_to.iter().find(namespace) {
        Some(to) => Err(format!(
            "exportTo: {to:?} is neither a namespace nor \".\", \"*\" or \"~\""
        )),
        None => Ok(()),
    }
}

fn hosts(spec: &Spec) -> Result<(), String> {
    if spec.hosts.is_empty() {
        return Err("hosts: at least one is needed".to_owned());
    }
    for host in &spec.hosts {
        if !is_name(host.strip_prefix("*.").unwrap_or(host)) {
            return Err(format!("hosts: {host:?} is not a name in DNS"));
        }
        if spec.resolution == Resolution::DynamicDns && !host.starts_with("*.") {
            return Err(format!(
                "hosts: resolution DYNAMIC_DNS resolves what the request asks for and needs a wildcard, and {host:?} is none"
            ));
        }
    }
    Ok(())
}

fn addresses(spec: &Spec) -> Result<(), String> {
    for text in &spec.addresses {
        let Some(found) = block(text) else {
            return Err(format!(
                "addresses: {text:?} is neither an address nor a CIDR block"
            ));
        };
        if spec.resolution.by_name() && found.prefix_len() < found.max_prefix_len() {
            return Err(format!(
                "addresses: {text:?} is a CIDR block, which is for resolution NONE and STATIC"
            ));
        }
    }
    if spec.resolution == Resolution::DynamicDns && !spec.addresses.is_empty() {
        return Err("addresses: resolution DYNAMIC_DNS takes none".to_owned());
    }
    Ok(())
}

fn ports(spec: &Spec) -> Result<(), String> {
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let (number, target) = (port.number, port.target_port);
        let wrong = if !is_port(number) {
            format!("number {number} is no port")
        } else if target != 0 && !is_port(target) {
            format!("targetPort {target} is no port")
        } else if !port.protocol.is_empty()
            && !PROTOCOLS.contains(&port.protocol.to_ascii_lowercase().as_str())
        {
            format!("protocol {:?} is not known", port.protocol)
        } else if !numbers.insert(number) {
            format!("number {number} is another port's too")
        } else if !port.name.is_empty() && !names.insert(&port.name) {
            format!("name {:?} is another port's too", port.name)
        } else {
            continue;
        };
        return Err(format!("ports[{index}]: {wrong}"));
    }
    Ok(())
}

fn endpoints(spec: &Spec) -> Result<(), String> {
    if spec.endpoints.is_empty() {
        return Ok(());
    }
    match spec.resolution {
        Resolution::None => {
            return Err(
                "endpoints: resolution NONE goes where the caller wants, and has none".to_owned(),
            );
        }
        Resolution::DynamicDns => {
            return Err(
                "endpoints: resolution DYNAMIC_DNS goes where the request asks for, and has none"
                    .to_owned(),
            );
        }
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            return Err("endpoints: resolution DNS_ROUND_ROBIN has one at most".to_owned());
        }
        _ => {}
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        self::endpoint(spec, endpoint).map_err(|wrong| format!("endpoints[{index}]: {wrong}"))?;
    }
    Ok(())
}

fn endpoint(spec: &Spec, endpoint: &Endpoint) -> Result<(), String> {
    let address = &endpoint.address;
    if address.parse::<IpAddr>().is_err() {
        if spec.resolution == Resolution::Static {
            return Err(format!(
                "resolution STATIC needs addresses, and {address:?} is none"
            ));
        }
        if !is_name(address) {
            return Err(format!(
                "address: {address:?} is neither an address nor a name in DNS"
            ));
        }
    }
    for (name, number) in &endpoint.ports {
        if spec.ports.iter().all(|port| port.name != *name) {
            return Err(format!("ports: the entry has no port {name:?}"));
        }
        if !is_port(*number) {
            return Err(format!("ports: {name} {number} is no port"));
        }
    }
    Ok(())
}

fn is_port(number: u32) -> bool {
    (1..=u32::from(u16::MAX)).contains(&number)
}

fn is_name(text: &str) -> bool {
    let fits = |label: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && label.chars().all(allowed)
    };
    text.len() <= MAX_HOST && text.split('.').all(fits)
}

/// As namespaces are called.
fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn wrong(spec: &Value) -> Option<String> {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "e", "namespace": "n"}, "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        super::super::ServiceEntry::read(&object, &mut Vec::new()).err()
    }

    #[test]
    fn what_is_wrong_is_said_by_field_and_reason() {
        let with =
            |port: Value| json!({"hosts": ["a"], "ports": [{"number": 80, "name": "p"}, port]});
        let of = |resolution: &str, endpoints: Value| {
            json!({
                "hosts": ["a"], "ports": [{"number": 80, "name": "p"}],
                "resolution": resolution, "endpoints": endpoints,
            })
        };
        for (spec, said) in [
            (json!({}), "hosts: at least one"),
            (json!({"hosts": ["a..b"]}), "hosts: \"a..b\""),
            (json!({"hosts": ["*"]}), "hosts: \"*\""),
            (
                json!({"hosts": ["a.test"], "resolution": "DYNAMIC_DNS"}),
                "hosts: resolution DYNAMIC_DNS",
            ),
            (json!({"hosts": [7]}), "hosts[0]: invalid type"),
            (
                json!({"hosts": ["a"], "addresses": ["1.2.3"]}),
                "addresses: \"1.2.3\"",
            ),
            (
                json!({"hosts": ["a"], "resolution": "DNS", "addresses": ["10.0.0.0/8"]}),
                "addresses: \"10.0.0.0/8\" is a CIDR block",
            ),
            (
                json!({"hosts": ["*.a"], "resolution": "DYNAMIC_DNS", "addresses": ["10.0.0.1"]}),
                "addresses: resolution",
            ),
            (with(json!({"number": 70000})), "ports[1]: number 70000"),
            (with(json!({"name": "q"})), "ports[1]: number 0"),
            (
                with(json!({"number": 81, "targetPort": 65536})),
                "ports[1]: targetPort 65536",
            ),
            (
                with(json!({"number": 81, "protocol": "GOPHER"})),
                "ports[1]: protocol \"GOPHER\"",
            ),
            (
                with(json!({"number": 80})),
                "ports[1]: number 80 is another",
            ),
            (
                with(json!({"number": 81, "name": "p"})),
                "ports[1]: name \"p\"",
            ),
            (of("NONE", json!([{"address": "1.1.1.1"}])), "endpoints: "),
            (
                of(
                    "DNS_ROUND_ROBIN",
                    json!([{"address": "b"}, {"address": "c"}]),
                ),
                "endpoints: ",
            ),
            (
                of("STATIC", json!([{"address": "b.test"}])),
                "endpoints[0]: resolution STATIC",
            ),
            (
                of("DNS", json!([{"address": "b"}, {"address": "unix:///s"}])),
                "endpoints[1]: address: \"unix:///s\"",
            ),
            (
                of("DNS", json!([{"address": "b", "ports": {"q": 1}}])),
                "endpoints[0]: ports: the entry has no port \"q\"",
            ),
            (
                of("DNS", json!([{"address": "b", "ports": {"p": 0}}])),
                "endpoints[0]: ports: p 0",
            ),
            (
                json!({"hosts": ["a"], "resolution": "DNS", "endpoints": [{}], "workloadSelector": {}}),
                "endpoints: only one",
            ),
            (
                json!({"hosts": ["a"], "resolution": "GUESS"}),
                "resolution: unknown variant `GUESS`",
            ),
            (
                json!({"hosts": ["a"], "exportTo": [".", "Shop"]}),
                "exportTo: \"Shop\"",
            ),
        ] {
            let problem = wrong(&spec).unwrap_or_default();
            assert!(problem.contains(said), "{spec}: {problem:?} not {said:?}");
        }
    }

    #[test]
    fn what_the_api_allows_is_taken() {
        for spec in [
            json!({"hosts": ["a"]}),
            json!({"hosts": ["*.a.test"], "resolution": "DYNAMIC_DNS", "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]}),
            json!({"hosts": ["a"], "addresses": ["10.0.0.0/8", "::1"], "exportTo": ["*", ".", "~", "shop-2"]}),
            json!({
                "hosts": ["a", "b.test"], "resolution": "DNS",
                "ports": [{"number": 80, "name": "http", "protocol": "http"}, {"number": 81, "name": "g", "protocol": "GRPC-Web", "targetPort": 1}],
                "endpoints": [{"address": "1.1.1.1", "ports": {"http": 9}}, {"address": "b_1.test"}],
            }),
        ] {
            assert_eq!(wrong(&spec), None, "{spec}");
        }
    }
}
