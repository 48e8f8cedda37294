//! The endpoints of a cluster: pods of the mesh through the tunnel, others plainly.

use std::collections::BTreeMap;

use super::api::{
    core, endpoint, internal_address, metadata, number, object, socket_address, text,
};
use super::view::{Backend, Place, View, parts, subset_labels};

/// The endpoints of the cluster of this name.
pub(super) fn assignment(view: &View<'_>, name: &str) -> endpoint::ClusterLoadAssignment {
    let found = parts(name).and_then(|(own, port, subset, host)| {
        let target = (view.lookup)(host)?;
        let port = target
            .ports
            .iter()
            .find(|known| known.number == port)?
            .clone();
        let labels = subset_labels(view.rule_of(&target).as_ref(), subset)?;
        Some((own, labels, (view.backends)(&target, &port)))
    });
    if let Some((own, labels, mut backends)) = found {
        backends.retain(|backend| {
            labels
                .iter()
                .all(|(key, value)| backend.labels.get(key) == Some(value))
        });
        return of(name, backends, own);
    }
    of(name, Vec::new(), true)
}

/// These endpoints, by their localities.
pub(super) fn of(
    name: &str,
    mut backends: Vec<Backend>,
    own: bool,
) -> endpoint::ClusterLoadAssignment {
    let mut by_locality: BTreeMap<(String, String, String), Vec<endpoint::LbEndpoint>> =
        BTreeMap::new();
    backends.sort_by_key(|backend| (backend.place.clone(), backend.port));
    for backend in &backends {
        by_locality
            .entry(backend.locality.clone())
            .or_default()
            .push(endpoint_of(backend, own));
    }
    let weight = |endpoints: &[endpoint::LbEndpoint]| {
        let weights = endpoints.iter().filter_map(|one| one.load_balancing_weight);
        weights.fold(0u32, |sum, weight| sum.saturating_add(weight.value))
    };
    let localities = by_locality
        .into_iter()
        .map(
            |((region, zone, sub_zone), endpoints)| endpoint::LocalityLbEndpoints {
                locality: Some(core::Locality {
                    region,
                    zone,
                    sub_zone,
                }),
                load_balancing_weight: number(weight(&endpoints)),
                lb_endpoints: endpoints,
                ..Default::default()
            },
        );
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
