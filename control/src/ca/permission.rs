//! Who may have which identity. Pure: what is known of pods is an argument.
//!
//! An ordinary caller gets its own. A node proxy may have those of the pods on its own node, and
//! which node that is follows from the pod that its token is bound to, never from what it says.

use mesh::identity::{Identity, IdentityError, TrustDomain};

use crate::authentication::{BoundPod, Caller, Roles};

/// What is known of pods.
pub trait Pods {
    /// The node and service account of the pod with this name and UID.
    fn place(&self, namespace: &str, pod: &BoundPod) -> Option<Place>;
    /// Whether a pod of this service account is on the node.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node: String,
    /// Its service account.
    pub service_account: String,
}

/// Why a caller does not get an identity. Only the log says which: the caller learns that it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Impersonation is for node proxies.
    #[error("{caller} is no node proxy and may not ask for {identity} (see --node-proxy-accounts)")]
    NotANodeProxy {
        /// The caller.
        caller: String,
        /// What it asked for.
        identity: String,
    },
    /// The identity asked for is none.
    #[error("the impersonated identity does not parse: {0}")]
    Malformed(#[from] IdentityError),
    /// An identity of somebody else's mesh.
    #[error("{0} is of another trust domain")]
    Foreign(String),
    /// The token is not bound to a pod.
    #[error("{0} has a token that is not bound to a pod: its node is not known")]
    Unbound(String),
    /// The pod is not known, yet or any more.
    #[error("the caller's pod {0} is not known, or is another of the same name")]
    UnknownPod(String),
    /// Nobody on that node has the identity.
    #[error("no pod of {identity} is on the caller's node {node}")]
    NotOnNode {
        /// What was asked for.
        identity: String,
        /// The caller's node.
        node: String,
    },
}

impl Denied {
    /// Whether the watch may only be late: a pod can ask before we have heard of it.
    #[must_use]
    pub fn may_be_early(&self) -> bool {
        matches!(self, Self::UnknownPod(_) | Self::NotOnNode { .. })
    }
}

/// The identity that a caller gets.
pub fn decide(
    caller: &Caller,
    impersonated: Option<&str>,
    trust_domain: &TrustDomain,
    roles: &Roles,
    pods: &impl Pods,
) -> Result<Identity, Denied> {
    let Some(wanted) = impersonated.filter(|wanted| !wanted.is_empty()) else {
        return Ok(Identity::new(
            trust_domain,
            &caller.namespace,
            &caller.service_account,
        )?);
    };
    if !roles.is_node_proxy(caller) {
        return Err(Denied::NotANodeProxy {
            caller: caller.to_string(),
            identity: wanted.to_owned(),
        });
    }
    let identity: Identity = wanted.parse()?;
    if !identity.is_in(trust_domain) {
        return Err(Denied::Foreign(wanted.to_owned()));
    }
    let pod = caller
        .pod
        .as_ref()
        .ok_or_else(|| Denied::Unbound(caller.to_string()))?;
    let unknown = || Denied::UnknownPod(format!("{}/{}", caller.namespace, pod.name));
    let place = pods.place(&caller.namespace, pod).ok_or_else(unknown)?;
    if place.service_account != caller.service_account || place.node.is_empty() {
        return Err(unknown());
    }
    if !pods.runs_on(
        &place.node,
        identity.namespace(),
        identity.service_account(),
    ) {
        return Err(Denied::NotOnNode {
            identity: wanted.to_owned(),
            node: place.node,
        });
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World;

    /// ztunnel-a on node-a beside default/sleep; ztunnel-new not scheduled yet.
    impl Pods for World {
        fn place(&self, namespace: &str, pod: &BoundPod) -> Option<Place> {
            let node = match (namespace, pod.name.as_str(), pod.uid.as_str()) {
                ("istio-system", "ztunnel-a", "1") => "node-a",
                ("istio-system", "ztunnel-new", "2") => "",
                _ => return None,
            };
            Some(Place {
                node: node.to_owned(),
                service_account: "ztunnel".to_owned(),
            })
        }

        fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
            (node, namespace, service_account) == ("node-a", "default", "sleep")
        }
    }

    fn ztunnel(pod: Option<(&str, &str)>) -> Caller {
        let pod = pod.map(|(name, uid)| BoundPod {
            name: name.to_owned(),
            uid: uid.to_owned(),
        });
        Caller {
            namespace: "istio-system".to_owned(),
            service_account: "ztunnel".to_owned(),
            pod,
        }
    }

    fn ask(caller: &Caller, wanted: Option<&str>) -> Result<String, Denied> {
        let roles = Roles::new(["istio-system/ztunnel"]).unwrap();
        let trust_domain = TrustDomain::new("cluster.local").unwrap();
        decide(caller, wanted, &trust_domain, &roles, &World).map(|identity| identity.to_string())
    }

    const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";

    #[test]
    fn everybody_gets_their_own() {
        let caller = Caller {
            namespace: "default".to_owned(),
            service_account: "sleep".to_owned(),
            pod: None,
        };
        assert_eq!(ask(&caller, None).unwrap(), SLEEP);
        assert_eq!(ask(&caller, Some("")).unwrap(), SLEEP);
        let own = ask(&ztunnel(Some(("ztunnel-a", "1"))), None).unwrap();
        assert_eq!(own, "spiffe://cluster.local/ns/istio-system/sa/ztunnel");
    }

    #[test]
    fn a_node_proxy_gets_those_of_its_node_only() {
        let proxy = ztunnel(Some(("ztunnel-a", "1")));
        assert_eq!(ask(&proxy, Some(SLEEP)).unwrap(), SLEEP);
        let elsewhere =
            ask(&proxy, Some("spiffe://cluster.local/ns/default/sa/other")).unwrap_err();
        assert!(matches!(&elsewhere, Denied::NotOnNode { node, .. } if node == "node-a"));
        assert!(elsewhere.may_be_early());
    }

    #[test]
    fn what_does_not_fit_is_denied() {
        let proxy = ztunnel(Some(("ztunnel-a", "1")));
        let nobody = Caller {
            namespace: "default".to_owned(),
            ..proxy.clone()
        };
        assert!(matches!(
            ask(&nobody, Some(SLEEP)),
            Err(Denied::NotANodeProxy { .. })
        ));
        assert!(matches!(
            ask(&proxy, Some("spiffe://elsewhere/ns/default/sa/sleep")),
            Err(Denied::Foreign(_))
        ));
        assert!(matches!(
            ask(&proxy, Some("cluster.local/ns/default/sa/sleep")),
            Err(Denied::Malformed(_))
        ));
        assert!(matches!(
            ask(&ztunnel(None), Some(SLEEP)),
            Err(Denied::Unbound(_))
        ));
        assert!(matches!(
            ask(&ztunnel(Some(("ztunnel-a", "9"))), Some(SLEEP)),
            Err(Denied::UnknownPod(_))
        ));
        assert!(matches!(
            ask(&ztunnel(Some(("ztunnel-new", "2"))), Some(SLEEP)),
            Err(Denied::UnknownPod(_))
        ));
    }
}
