//! Whose certificates this node needs: fetched ahead when the first pod of a ServiceAccount comes,
//! forgotten, with the key, when its last one goes.

use std::collections::HashMap;

use mesh::certificate::Certificates;
use mesh::identity::{Identity, TrustDomain};

use crate::pods::Info;

/// Pods for each identity.
pub(super) struct Identities {
    trust_domain: TrustDomain,
    certificates: Certificates,
    pods: HashMap<Identity, usize>,
}

impl Identities {
    pub(super) fn new(trust_domain: TrustDomain, certificates: Certificates) -> Self {
        Self {
            trust_domain,
            certificates,
            pods: HashMap::new(),
        }
    }

    /// A pod has come.
    pub(super) fn came(&mut self, pod: &Info) {
        let Some(identity) = self.of(pod) else { return };
        self.certificates.prefetch(&identity);
        *self.pods.entry(identity).or_default() += 1;
    }

    /// A pod has gone.
    pub(super) fn went(&mut self, pod: &Info) {
        let Some(identity) = self.of(pod) else { return };
        let left = self.pods.get_mut(&identity).map(|pods| {
            *pods -= 1;
            *pods
        });
        if left == Some(0) {
            self.pods.remove(&identity);
            self.certificates.forget(&identity);
        }
    }

    /// The identity that a pod has by its ServiceAccount; none if a source gave no proper names, in
    /// which case the pod's connections are refused later, by name.
    fn of(&self, pod: &Info) -> Option<Identity> {
        Identity::new(&self.trust_domain, &pod.namespace, &pod.service_account).ok()
    }
}
