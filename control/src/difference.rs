//! What two control planes tell a node proxy of the same cluster, compared field by field.
//!
//! Connects to each as a node proxy does, takes one snapshot of everything, brings both into one
//! form (orders that mean nothing are sorted), and lists what differs. Differences that are meant
//! are listed in a file, each with its reason: one that is not in the file is an error, and so is
//! an entry that nothing needs any more. `cargo run -p control --example wds-diff -- --help`.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::resource::ResourceType;
use crate::xds::store::{Collection, Store};
use fields::{policy, service, workload};

/// How long a control plane has to send everything.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest response that is taken.
const RESPONSE_LIMIT: usize = 256 << 20;

/// How to reach a control plane.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `https://host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// Its root certificate, PEM.
    pub root: String,
    /// A token of the node proxies' ServiceAccount with audience `istio-ca`.
    pub token: String,
    /// The xDS node name to use.
    pub node: String,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It can't be reached.
    #[error("{address} can't be reached: is the root certificate its own?")]
    Connect {
        /// Where it should be.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// It refused or broke off.
    #[error("{address} ended the stream")]
    Stream {
        /// Where it is.
        address: String,
        /// What it said.
        #[source]
        source: Box<tonic::Status>,
    },
    /// It sent nothing for too long.
    #[error("{0} sent no snapshot within {PATIENCE:?}")]
    Slow(String),
    /// A resource does not parse.
    #[error("{name} does not parse")]
    Malformed {
        /// The resource.
        name: String,
        /// The cause.
        #[source]
        source: prost::DecodeError,
    },
}

/// Fields by name, for each resource by type and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `workload UID`, `service NAMESPACE/HOSTNAME` or `policy NAMESPACE/NAME` → its fields.
    pub resources: BTreeMap<String, BTreeMap<String, Value>>,
}

/// One difference. A resource that one side lacks differs in the field `exists`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The resource.
    pub resource: String,
    /// The field.
    pub field: String,
    /// What the first says.
    pub left: Value,
    /// What the second says.
    pub right: Value,
}

/// A difference that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The beginning of the resource's name, such as `workload ` for all workloads.
    pub resource: String,
    /// The field.
    pub field: String,
    /// Why it is meant.
    pub reason: String,
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Differences that nobody accepted.
    pub unexpected: Vec<Difference>,
    /// How many were accepted.
    pub accepted: usize,
    /// Entries of the accepted list that nothing needed.
    pub unneeded: Vec<Accepted>,
}

/// Takes one snapshot of everything.
pub async fn fetch(peer: &Peer) -> Result<Snapshot, FetchError> {
    let snapshot = tokio::time::timeout(PATIENCE, fetch_all(peer)).await;
    snapshot.map_err(|_| FetchError::Slow(peer.address.clone()))?
}

async fn fetch_all(peer: &Peer) -> Result<Snapshot, FetchError> {
    let connect = |source| FetchError::Connect {
        address: peer.address.clone(),
        source,
    };
    let broken = |source| FetchError::Stream {
        address: peer.address.clone(),
        source: Box::new(source),
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&peer.root))
        .domain_name(&peer.server_name);
    let endpoint =
        Endpoint::from_shared(peer.address.clone()).and_then(|endpoint| endpoint.tls_config(tls));
    let channel = endpoint
        .map_err(connect)?
        .connect()
        .await
        .map_err(connect)?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_LIMIT);
    let (requests, stream) = mpsc::channel(8);
    for kind in ResourceType::ALL {
        let request = DeltaDiscoveryRequest {
            node: Some(Node {
                id: peer.node.clone(),
                ..Node::default()
            }),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        // The channel has room for both, and its receiver is below.
        let _ = requests.send(request).await;
    }
    let mut request = tonic::Request::new(ReceiverStream::new(stream));
    let authorization = format!("Bearer {}", peer.token);
    let authorization = authorization
        .parse()
        .map_err(|_| broken(tonic::Status::unauthenticated("the token is not text")))?;
    request
        .metadata_mut()
        .insert("authorization", authorization);
    let mut responses = client
        .delta_aggregated_resources(request)
        .await
        .map_err(broken)?
        .into_inner();
    let (mut snapshot, mut lacking) = (Snapshot::default(), BTreeSet::from(ResourceType::ALL));
    while !lacking.is_empty() {
        let response = responses.message().await.map_err(broken)?;
        let response = response
            .ok_or_else(|| broken(tonic::Status::unavailable("it closed before all was sent")))?;
        if let Some(kind) = ResourceType::from_url(&response.type_url) {
            lacking.remove(&kind);
            snapshot.take(kind, response)?;
        }
    }
    Ok(snapshot)
}

impl Snapshot {
    /// What a node proxy that subscribes to everything would be sent.
    pub fn of(store: &Store) -> Result<Self, FetchError> {
        let mut snapshot = Self::default();
        for kind in ResourceType::ALL {
            for resource in store
                .collection(kind)
                .into_iter()
                .flat_map(Collection::iter)
            {
                snapshot.add(kind, &resource.name, &resource.value)?;
            }
        }
        Ok(snapshot)
    }

    fn take(
        &mut self,
        kind: ResourceType,
        response: DeltaDiscoveryResponse,
    ) -> Result<(), FetchError> {
        for resource in response.resources {
            let value = resource.resource.map(|any| any.value).unwrap_or_default();
            self.add(kind, &resource.name, &value)?;
        }
        Ok(())
    }

    fn add(&mut self, kind: ResourceType, name: &str, value: &[u8]) -> Result<(), FetchError> {
        let malformed = |source| FetchError::Malformed {
            name: name.to_owned(),
            source,
        };
        let (prefix, fields) = match kind {
            ResourceType::Authorization => (
                "policy",
                policy(&Authorization::decode(value).map_err(malformed)?),
            ),
            // Waypoints' resources are compared elsewhere, by Envoy's own descriptors.
            ResourceType::Cluster
            | ResourceType::Endpoints
            | ResourceType::Listener
            | ResourceType::Workload
            | ResourceType::Route
            | ResourceType::Secret
            | ResourceType::Extension => return Ok(()),
            ResourceType::Address => match Address::decode(value).map_err(malformed)?.r#type {
                Some(address::Type::Workload(found)) => ("workload", workload(&found)),
                Some(address::Type::Service(found)) => ("service", service(&found)),
                None => ("empty", Value::Null),
            },
        };
        let fields = fields.as_object().cloned().unwrap_or_default();
        self.resources
            .insert(format!("{prefix} {name}"), fields.into_iter().collect());
        Ok(())
    }
}

/// Compares two snapshots. `accepted` are the differences that are meant.
#[must_use]
pub fn compare(left: &Snapshot, right: &Snapshot, accepted: &[Accepted]) -> Comparison {
    let mut comparison = Comparison::default();
    let mut needed = BTreeSet::new();
    for difference in differences(left, right) {
        let entry = accepted.iter().position(|entry| {
            difference.resource.starts_with(&entry.resource) && difference.field == entry.field
        });
        match entry {
            Some(entry) => {
                comparison.accepted += 1;
                needed.insert(entry);
            }
            None => comparison.unexpected.push(difference),
        }
    }
    let unneeded = accepted
        .iter()
        .enumerate()
        .filter(|(number, _)| !needed.contains(number));
    comparison.unneeded = unneeded.map(|(_, entry)| entry.clone()).collect();
    comparison
}

fn differences(left: &Snapshot, right: &Snapshot) -> Vec<Difference> {
    let mut found = Vec::new();
    let names: BTreeSet<&String> = left
        .resources
        .keys()
        .chain(right.resources.keys())
        .collect();
    for name in names {
        let difference = |field: &str, left: Value, right: Value| Difference {
            resource: name.clone(),
            field: field.to_owned(),
            left,
            right,
        };
        let (Some(a), Some(b)) = (left.resources.get(name), right.resources.get(name)) else {
            let exists = |snapshot: &Snapshot| json!(snapshot.resources.contains_key(name));
            found.push(difference("exists", exists(left), exists(right)));
            continue;
        };
        let fields: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for field in fields {
            let (a, b) = (
                a.get(field).cloned().unwrap_or_default(),
                b.get(field).cloned().unwrap_or_default(),
            );
            if a != b {
                found.push(difference(field, a, b));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use mesh::proto::security::Match;

    use super::*;

    fn snapshot(resources: &[(&str, Value)]) -> Snapshot {
        let fields = |value: &Value| value.as_object().unwrap().clone().into_iter().collect();
        Snapshot {
            resources: resources
                .iter()
                .map(|(name, value)| ((*name).to_owned(), fields(value)))
                .collect(),
        }
    }

    fn accept(resource: &str, field: &str) -> Accepted {
        Accepted {
            resource: resource.to_owned(),
            field: field.to_owned(),
            reason: "meant".to_owned(),
        }
    }

    #[test]
    fn each_difference_is_found_and_only_the_accepted_ones_pass() {
        let istiod = snapshot(&[
            ("workload a", json!({"type": "POD", "node": "n"})),
            ("policy x", json!({})),
        ]);
        let culvert = snapshot(&[("workload a", json!({"type": "JOB", "node": "m"}))]);
        let comparison = compare(
            &istiod,
            &culvert,
            &[accept("workload ", "type"), accept("service ", "ports")],
        );
        let fields: Vec<&str> = comparison
            .unexpected
            .iter()
            .map(|difference| difference.field.as_str())
            .collect();
        assert_eq!(fields, ["exists", "node"]);
        assert_eq!(comparison.accepted, 1);
        assert_eq!(comparison.unneeded, [accept("service ", "ports")]);
    }

    #[test]
    fn orders_that_mean_nothing_do_not_differ() {
        let with = |ports: &[u32]| {
            let clause = |port: &u32| mesh::proto::security::Clause {
                matches: vec![Match {
                    destination_ports: vec![*port, 1],
                    ..Match::default()
                }],
            };
            let rule = mesh::proto::security::Rule {
                clauses: ports.iter().map(clause).collect(),
            };
            policy(&Authorization {
                rules: vec![rule.clone(), rule],
                ..Authorization::default()
            })
        };
        assert_eq!(with(&[80, 90]), with(&[90, 80, 80]));
        assert_ne!(with(&[80, 90]), with(&[80]));
    }
}
