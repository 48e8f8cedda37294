//! EndpointSlices: endpoints that no selector finds.
//!
//! The endpoints of an ordinary service are pods, which control knows in full. A slice matters
//! where a service has no selector: its endpoints are then pods that the slice names, or bare
//! addresses.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1;

use super::Key;

/// The label that names a slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What control knows of a slice.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Its name.
    pub key: Key,
    /// The service that it belongs to, in the same namespace.
    pub service: Key,
    /// TCP ports: the service port's name, and the endpoints' port.
    pub ports: Vec<(String, u16)>,
    /// Pods among its endpoints.
    pub pods: Vec<Key>,
    /// Endpoints that are not pods.
    pub addresses: Vec<BareEndpoint>,
}

/// An endpoint that is no pod: nothing is known but its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Condition ready; not said counts as ready.
    pub ready: bool,
}

impl EndpointSlice {
    /// `None` for a slice of no service, and for names in place of addresses, which Kubernetes
    /// itself does not resolve.
    #[must_use]
    pub fn from_kubernetes(slice: &v1::EndpointSlice) -> Option<Self> {
        let key = Key::of(&slice.metadata);
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        if slice.address_type == "FQDN" {
            return None;
        }
        let (mut pods, mut addresses) = (Vec::new(), Vec::<BareEndpoint>::new());
        for endpoint in slice.endpoints.iter().flatten() {
            match &endpoint.target_ref {
                Some(target) if target.kind.as_deref() == Some("Pod") => {
                    let own = key.namespace.clone();
                    let other = target.namespace.as_deref().filter(|other| *other != &*own);
                    pods.push(Key::new(
                        other.map_or(own, Into::into),
                        target.name.as_deref().unwrap_or_default(),
                    ));
                }
                _ => {
                    let Some(address) = endpoint
                        .addresses
                        .first()
                        .and_then(|text| text.parse().ok())
                    else {
                        continue;
                    };
                    if addresses.iter().all(|known| known.address != address) {
                        let ready = endpoint
                            .conditions
                            .as_ref()
                            .and_then(|c| c.ready)
                            .unwrap_or(true);
                        addresses.push(BareEndpoint { address, ready });
                    }
                }
            }
        }
        let ports = slice.ports.iter().flatten();
        let ports = ports
            .filter(|port| {
                port.protocol
                    .as_deref()
                    .is_none_or(|protocol| protocol == "TCP")
            })
            .filter_map(|port| {
                Some((
                    port.name.clone().unwrap_or_default(),
                    u16::try_from(port.port?).ok()?,
                ))
            })
            .collect();
        let service = Key::new(key.namespace.clone(), service.as_str());
        // There may be a hundred in each of thousands of slices.
        pods.shrink_to_fit();
        addresses.shrink_to_fit();
        Some(Self {
            key,
            service,
            ports,
            pods,
            addresses,
        })
    }
}
