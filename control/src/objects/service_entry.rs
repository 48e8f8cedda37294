//! ServiceEntry, networking.istio.io/v1: services that Kubernetes does not know.
//!
//! Each host of an entry is a service of its own. What its labels, annotations and status add (which
//! waypoint, which addresses were given to its hosts) is read along with the specification, because
//! a change of any of them changes what proxies are told.

mod check;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::place::TRAFFIC_DISTRIBUTION;
use super::pod::{self, Tunnel};
use super::{Labels, authorization_policy};

/// Set to false: no address is given to hosts that have none.
const AUTO_ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

/// An entry as it is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEntry {
    /// Its labels.
    pub labels: Labels,
    /// `networking.istio.io/traffic-distribution`.
    pub distribution: Option<String>,
    /// How its own endpoints are reached.
    pub tunnel: Tunnel,
    /// Its specification.
    pub spec: Spec,
    /// `status.addresses`: addresses that a control plane gave to hosts.
    pub given: BTreeMap<String, Vec<IpAddr>>,
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Its names.
    pub hosts: Vec<String>,
    /// Addresses or CIDR blocks.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Whether its endpoints are part of the mesh.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Pods of its namespace that are its endpoints instead.
    pub workload_selector: Option<WorkloadSelector>,
    /// In which namespaces it is known; none: in all.
    pub export_to: Vec<String>,
    /// Names that the endpoints' certificates must have.
    pub subject_alt_names: Vec<String>,
}

/// `spec.ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its number.
    pub number: u32,
    /// What is spoken.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// The endpoints' port; 0: the same.
    pub target_port: u32,
}

/// `spec.endpoints[]`: a WorkloadEntry without a name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// An address or a name.
    pub address: String,
    /// Its own numbers of the entry's ports, by their names.
    pub ports: BTreeMap<String, u32>,
    /// Its labels.
    pub labels: Labels,
    /// The network that it is in.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Its share; 0: 1.
    pub weight: u32,
    /// As whom it runs.
    pub service_account: String,
}

/// `spec.workloadSelector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WorkloadSelector {
    /// Labels that a pod must have, all of them.
    pub labels: Labels,
}

/// `spec.location`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside.
    #[default]
    MeshExternal,
    /// Part of the mesh.
    MeshInternal,
}

/// `spec.resolution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// To where the caller wanted to go.
    #[default]
    None,
    /// To the addresses that are listed.
    Static,
    /// By DNS, all addresses of the answer.
    Dns,
    /// By DNS, the first address of the answer.
    DnsRoundRobin,
    /// By DNS, the name that the request asks for.
    DynamicDns,
}

impl Resolution {
    /// Whether names are resolved.
    #[must_use]
    pub fn by_name(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin | Self::DynamicDns)
    }
}

impl ServiceEntry {
    /// Reads an entry, or says what in it is wrong.
    pub fn read(object: &DynamicObject, passed_over: &mut Vec<String>) -> Result<Self, String> {
        let spec: Spec = authorization_policy::spec_noting(object, passed_over)?;
        check::check(&spec)?;
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        let tunnel = pod::tunnel(&labels, &annotations);
        Ok(Self {
            labels,
            distribution: annotations.get(TRAFFIC_DISTRIBUTION).cloned(),
            tunnel,
            spec,
            given: given(object),
        })
    }

    /// Whether a host shall be given an address because it has none.
    #[must_use]
    pub fn wants_address(&self, host: &str) -> bool {
        let declined = self
            .labels
            .get(AUTO_ALLOCATE)
            .is_some_and(|value| value.eq_ignore_ascii_case("false"));
        // A wildcard's address leads to a waypoint that sees the name, or nowhere.
        let single = !host.starts_with('*') || self.spec.resolution == Resolution::DynamicDns;
        !declined
            && single
            && self.spec.addresses.is_empty()
            && self.spec.resolution != Resolution::None
    }
}

impl Spec {
    /// Its addresses and blocks.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter_map(|text| block(text))
    }
}

impl Endpoint {
    /// Its number of a port.
    #[must_use]
    pub fn port(&self, port: &Port) -> u16 {
        let own = self.ports.get(&port.name).copied();
        let number = own.unwrap_or(if port.target_port > 0 {
            port.target_port
        } else {
            port.number
        });
        u16::try_from(number).unwrap_or_default()
    }

    /// Region, zone, subzone.
    #[must_use]
    pub fn place(&self) -> (String, String, String) {
        let mut parts = self.locality.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }
}

fn block(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}

fn given(object: &DynamicObject) -> BTreeMap<String, Vec<IpAddr>> {
    let listed = object.data.pointer("/status/addresses");
    let mut given: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for one in listed.and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| one.get(field).and_then(Value::as_str);
        if let (Some(host), Some(Ok(address))) = (text("host"), text("value").map(str::parse)) {
            given.entry(host.to_owned()).or_default().push(address);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<ServiceEntry, String> {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "e", "namespace": "n"},
            "spec": spec,
            "status": {"addresses": [{"host": "a.test", "value": "240.240.0.1"}, {"host": "a.test", "value": "odd"}]},
        });
        ServiceEntry::read(&serde_json::from_value(object).unwrap(), &mut Vec::new())
    }

    #[test]
    fn a_host_wants_an_address_where_one_would_lead_somewhere() {
        let wants = |spec: Value, host: &str| read(spec).unwrap().wants_address(host);
        assert!(wants(
            json!({"hosts": ["a.test"], "resolution": "DNS"}),
            "a.test"
        ));
        assert!(!wants(json!({"hosts": ["a.test"]}), "a.test"));
        assert!(!wants(
            json!({"hosts": ["*.test"], "resolution": "DNS"}),
            "*.test"
        ));
        assert!(wants(
            json!({"hosts": ["*.test"], "resolution": "DYNAMIC_DNS"}),
            "*.test"
        ));
        let own = json!({"hosts": ["a.test"], "resolution": "DNS", "addresses": ["10.0.0.1"]});
        assert!(!wants(own, "a.test"));
    }

    #[test]
    fn addresses_that_were_given_and_an_endpoints_own_ports_are_read() {
        let entry = read(json!({
            "hosts": ["a.test"], "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "targetPort": 8080}, {"number": 81, "name": "b"}],
            "endpoints": [{"address": "1.1.1.1", "ports": {"http": 9}, "locality": "r/z"}],
        }))
        .unwrap();
        assert_eq!(
            entry.given["a.test"],
            ["240.240.0.1".parse::<IpAddr>().unwrap()]
        );
        let endpoint = &entry.spec.endpoints[0];
        let ports: Vec<u16> = entry
            .spec
            .ports
            .iter()
            .map(|port| endpoint.port(port))
            .collect();
        assert_eq!(ports, [9, 81]);
        assert_eq!(
            endpoint.place(),
            ("r".to_owned(), "z".to_owned(), String::new())
        );
    }
}
