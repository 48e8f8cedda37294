//! To what a policy is attached: to a service (in its own namespace), to the waypoint (in the
//! waypoint's), or to all waypoints (in the root namespace). In the form of Istio 1.18 a selector
//! names the waypoint's pods.

use crate::objects::gateway::WAYPOINT_CLASS;
use crate::objects::request_authentication::Targets;
use crate::objects::{Key, Kind, Labels, selects};

/// Where a policy may be attached.
pub struct Place<'a> {
    /// The waypoint.
    pub gateway: &'a Key,
    /// The labels of its pods.
    pub labels: &'a Labels,
    /// The mesh's root namespace.
    pub root: &'a str,
    /// One of its services, by its object; none for pods' own addresses.
    pub service: Option<(Kind, &'a Key)>,
}

/// Whether it is attached there.
#[must_use]
pub fn attaches(place: &Place<'_>, policy: &Key, targets: &Targets) -> bool {
    if targets.refs.is_empty() {
        return targets.selector.as_ref().is_some_and(|selector| {
            !selector.is_empty()
                && policy.namespace == place.gateway.namespace
                && selects(selector, place.labels)
        });
    }
    targets.refs.iter().any(|target| {
        let group = match target.group.as_str() {
            "core" => "",
            other => other,
        };
        let own = target.namespace.is_empty() || target.namespace == *policy.namespace;
        match (group, target.kind.as_str()) {
            ("", "Service") | ("networking.istio.io", "ServiceEntry") => {
                place.service.is_some_and(|(kind, object)| {
                    own && target.kind == kind.name()
                        && *object.name == *target.name
                        && object.namespace == policy.namespace
                })
            }
            ("gateway.networking.k8s.io", "Gateway") => {
                own && *place.gateway.name == *target.name
                    && policy.namespace == place.gateway.namespace
            }
            ("gateway.networking.k8s.io", "GatewayClass") => {
                target.name == WAYPOINT_CLASS && *policy.namespace == *place.root
            }
            _ => false,
        }
    })
}
