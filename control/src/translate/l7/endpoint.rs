//! The endpoints of a cluster: pods of the mesh through the tunnel, others plainly.

use super::api::{
    core, endpoint, internal_address, metadata, number, object, socket_address, text,
};
use super::locality::{self, Wanted};
use super::view::{Backend, Place, View, parts, subset_labels};

/// The endpoints of the cluster of this name.
pub(super) fn assignment(view: &View<'_>, name: &str) -> endpoint::ClusterLoadAssignment {
    let found = parts(name).and_then(|(own, number, subset, host)| {
        let target = (view.lookup)(host)?;
        let port = target
            .ports
            .iter()
            .find(|known| known.number == number)?
            .clone();
        let rule = view.rule_of(&target);
        let labels = subset_labels(rule.as_ref(), subset)?;
        let wanted = Wanted::of(rule.as_ref(), &target, number, subset);
        Some((own, labels, wanted, (view.backends)(&target, &port)))
    });
    if let Some((own, labels, wanted, mut backends)) = found {
        backends.retain(|backend| {
            labels
                .iter()
                .all(|(key, value)| backend.labels.get(key) == Some(value))
        });
        return of(view, name, backends, wanted.as_ref(), own);
    }
    of(view, name, Vec::new(), None, true)
}

/// These endpoints, by their localities.
pub(super) fn of(
    view: &View<'_>,
    name: &str,
    mut backends: Vec<Backend>,
    wanted: Option<&Wanted>,
    own: bool,
) -> endpoint::ClusterLoadAssignment {
    backends.sort_by_key(|backend| (backend.place.clone(), backend.port));
    let near = wanted.map(|wanted| (view.here(wanted.reckoned()), wanted));
    let groups = locality::groups(near, backends).into_iter();
    let localities = groups.map(|group| {
        let (region, zone, sub_zone) = group.place;
        let endpoints = group.members.iter();
        endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality {
                region,
                zone,
                sub_zone,
            }),
            load_balancing_weight: number(group.weight),
            lb_endpoints: endpoints.map(|backend| endpoint_of(backend, own)).collect(),
            priority: group.priority,
            ..Default::default()
        }
    });
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities.collect(),
        ..Default::default()
    }
}

fn endpoint_of(backend: &Backend, own: bool) -> endpoint::LbEndpoint {
    let mut parts = vec![(
        "istio".to_owned(),
        object([("workload", text(backend.workload.clone()))]),
    )];
    let address = if let (true, Place::Address(address)) = (backend.hbone, &backend.place) {
        let place = std::net::SocketAddr::new(*address, backend.port).to_string();
        parts.push((
            "envoy.filters.listener.original_dst".to_owned(),
            object([("local", text(place.clone()))]),
        ));
        if !own {
            parts.push((
                "envoy.transport_socket_match".to_owned(),
                object([("tunnel", text("http"))]),
            ));
        }
        internal_address("connect_originate", &place)
    } else {
        socket_address(&backend.place, u32::from(backend.port))
    };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(address),
                ..Default::default()
            },
        )),
        health_status: if backend.ready {
            core::HealthStatus::Healthy
        } else {
            core::HealthStatus::Unknown
        }
        .into(),
        metadata: Some(metadata(parts)),
        load_balancing_weight: number(backend.weight.max(1)),
    }
}
