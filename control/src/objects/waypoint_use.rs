//! Who asks for a waypoint: the labels that a namespace, service or pod carries.
//!
//! (istio/istio, `pilot/pkg/serviceregistry/ambient/waypoints.go`)

use super::{Key, Labels};

const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
const MANAGED: &str = "gateway.istio.io/managed";
/// Which Gateway a pod or service belongs to, when a controller made it for one.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// What is written into [`MANAGED`] on what is made for a waypoint.
pub const MESH_CONTROLLER: &str = "istio.io-mesh-controller";

/// Which waypoint an object asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UseWaypoint {
    /// It does not say: what its namespace says counts.
    #[default]
    Unsaid,
    /// None, whatever its namespace says.
    Never,
    /// This Gateway.
    Named(Key),
}

impl UseWaypoint {
    /// What labels ask for, on an object of this namespace (or on the namespace itself).
    #[must_use]
    pub fn of(labels: &Labels, namespace: &str) -> Self {
        match labels.get(USE_WAYPOINT).map(String::as_str) {
            None => Self::Unsaid,
            // The word is reserved: a waypoint of this name can't be used.
            Some("none") => Self::Never,
            Some(name) => {
                let namespace = labels
                    .get(USE_WAYPOINT_NAMESPACE)
                    .map_or(namespace, String::as_str);
                Self::Named(Key::new(namespace, name))
            }
        }
    }
}

/// Whether ingress gateways shall send their requests for a service through its waypoint too;
/// `None` when the labels do not say.
#[must_use]
pub fn ingress_use(labels: &Labels) -> Option<bool> {
    labels
        .get(INGRESS_USE_WAYPOINT)
        .map(|value| matches!(value.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True"))
}

/// Whether the labels are those of a waypoint's own service, which can't have a waypoint itself.
#[must_use]
pub fn is_waypoint(labels: &Labels) -> bool {
    labels.get(MANAGED).is_some_and(|by| {
        matches!(
            by.as_str(),
            MESH_CONTROLLER | "istio.io-eastwest-controller"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(labels: &[(&str, &str)]) -> UseWaypoint {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        UseWaypoint::of(&labels.collect(), "shop")
    }

    #[test]
    fn labels_name_a_waypoint_here_or_elsewhere() {
        assert_eq!(asked(&[]), UseWaypoint::Unsaid);
        assert_eq!(asked(&[(USE_WAYPOINT, "none")]), UseWaypoint::Never);
        assert_eq!(
            asked(&[(USE_WAYPOINT, "w")]),
            UseWaypoint::Named(Key::new("shop", "w"))
        );
        let elsewhere = [(USE_WAYPOINT, "w"), (USE_WAYPOINT_NAMESPACE, "edge")];
        assert_eq!(asked(&elsewhere), UseWaypoint::Named(Key::new("edge", "w")));
        assert_eq!(
            asked(&[(USE_WAYPOINT_NAMESPACE, "edge")]),
            UseWaypoint::Unsaid
        );
    }
}
