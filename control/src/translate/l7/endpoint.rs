//! The endpoints of a cluster: pods of the mesh through the tunnel, others plainly.

use std::collections::BTreeMap;

use super::api::{
    core, endpoint, internal_address, metadata, number, object, socket_address, text,
};
use super::view::{Backend, View, parts, subset_labels};

/// The endpoints of the cluster of this name.
pub(super) fn assignment(view: &View<'_>, name: &str) -> endpoint::ClusterLoadAssignment {
    let mut by_locality: BTreeMap<(String, String, String), Vec<endpoint::LbEndpoint>> =
        BTreeMap::new();
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
        backends.sort_by_key(|backend| (backend.address, backend.port));
        for backend in &backends {
            by_locality
                .entry(backend.locality.clone())
                .or_default()
                .push(endpoint_of(backend, own));
        }
    }
    let localities = by_locality
        .into_iter()
        .map(
            |((region, zone, sub_zone), endpoints)| endpoint::LocalityLbEndpoints {
                locality: Some(core::Locality {
                    region,
                    zone,
                    sub_zone,
                }),
                load_balancing_weight: number(u32::try_from(endpoints.len()).unwrap_or(u32::MAX)),
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
    let place = std::net::SocketAddr::new(backend.address, backend.port).to_string();
    let mut parts = vec![(
        "istio".to_owned(),
        object([("workload", text(backend.workload.clone()))]),
    )];
    let address = if backend.hbone {
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
        socket_address(backend.address, u32::from(backend.port))
    };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(address),
                ..Default::default()
            },
        )),
        health_status: core::HealthStatus::Healthy.into(),
        metadata: Some(metadata(parts)),
        load_balancing_weight: number(1),
    }
}
