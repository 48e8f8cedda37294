//! ReferenceGrant, gateway.networking.k8s.io: who from elsewhere may name what is here.

use serde::Deserialize;

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    /// Who.
    pub from: Vec<From>,
    /// What.
    pub to: Vec<To>,
}

/// `spec.from[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct From {
    /// Its group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// `spec.to[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct To {
    /// Its group; empty for Service.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name; none means all.
    pub name: Option<String>,
}

impl ReferenceGrant {
    /// Whether a route of this kind and namespace may name this service of the grant's namespace.
    #[must_use]
    pub fn permits(&self, kind: &str, namespace: &str, service: &str) -> bool {
        let from = self.from.iter().any(|from| {
            from.group == "gateway.networking.k8s.io"
                && from.kind == kind
                && from.namespace == namespace
        });
        from && self.to.iter().any(|to| {
            matches!(to.group.as_str(), "" | "core")
                && to.kind == "Service"
                && to
                    .name
                    .as_deref()
                    .is_none_or(|name| name.is_empty() || name == service)
        })
    }
}
