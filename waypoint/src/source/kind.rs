//! The kinds of resources that a configuration is made of, by their names in xDS.

/// A kind of resource. The order is that of a push: what is referred to comes before what refers to
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Routes,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
    Extension,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `istio.workload.Workload`: who is behind an address.
    Workload,
}

impl Kind {
    /// All of them, in the order of a push.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::Extension,
        Self::Secret,
        Self::Workload,
    ];

    /// The type's URL in xDS.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Workload => "type.googleapis.com/istio.workload.Workload",
        }
    }

    /// The kind of this type, if it is one of ours.
    #[must_use]
    pub fn of(type_url: &str) -> Option<Self> {
        let name = |url: &str| url.rsplit_once('/').map_or("", |(_, name)| name).to_owned();
        let wanted = name(type_url);
        Self::ALL
            .into_iter()
            .find(|kind| name(kind.type_url()) == wanted)
    }

    /// Whether all resources of this kind are wanted, rather than those that others name.
    #[must_use]
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::Workload)
    }

    /// The message's short name, for people.
    #[must_use]
    pub fn short(self) -> &'static str {
        let url = self.type_url();
        url.rsplit_once('.').map_or(url, |(_, short)| short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_url() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of("type.googleapis.com/a.B"), None);
        assert_eq!(Kind::Routes.short(), "RouteConfiguration");
    }
}
