//! Services as waypoints see them: what they are called, what they speak, and who answers.

use std::sync::Arc;

use super::Index;
use crate::objects::pod::Tunnel;
use crate::objects::service::{EntryOf, ServicePort};
use crate::objects::service_entry::{Endpoint, Location, Resolution};
use crate::objects::{Labels, Pod, Service, selects};
use crate::translate::l7::{self, Backend, Found, Near, Place, Target, TargetPort};
use crate::translate::protocol::is_grpc_web;
use crate::translate::workload::{CANONICAL_NAME, CANONICAL_REVISION, canonical, label};

impl Index {
    pub(super) fn target(&self, service: &Service) -> Target {
        let ports = service
            .ports
            .iter()
            .filter(|port| !port.udp)
            .map(|port| TargetPort {
                name: port.name.clone(),
                number: port.port,
                protocol: l7::view::Protocol::of(port),
                grpc_web: is_grpc_web(port),
            });
        let entry = service.entry.as_ref();
        Target {
            host: self.mesh.host_of(&service.key),
            key: service.key.clone(),
            object: service.object().1.clone(),
            kind: service.object().0,
            found: entry.map_or(Found::Known, |of| match of.entry.spec.resolution {
                Resolution::None => Found::ByCaller,
                Resolution::Static => Found::Known,
                Resolution::Dns => Found::ByName { first: false },
                Resolution::DnsRoundRobin => Found::ByName { first: true },
                Resolution::DynamicDns => Found::ByRequest,
            }),
            external: entry.is_some_and(|of| of.entry.spec.location == Location::MeshExternal),
            headless: service.addresses.is_empty() && service.headless,
            near: match service
                .distribution
                .as_deref()
                .or(service.distribution_annotation.as_deref())
            {
                Some("PreferClose" | "PreferSameZone") => Some(Near::Zone),
                Some("PreferSameNode") => Some(Near::Node),
                _ => None,
            },
            addresses: service.addresses.clone(),
            ports: ports.collect(),
        }
    }

    pub(super) fn backends(&self, target: &Target, port: &TargetPort) -> Vec<Backend> {
        let Some(service) = self.services.get(&target.key) else {
            return Vec::new();
        };
        let Some(of_service) = service
            .ports
            .iter()
            .find(|known| known.port == port.number && !known.udp)
        else {
            return Vec::new();
        };
        let slices = || {
            self.slices_of_service
                .get(&target.key)
                .into_iter()
                .flatten()
                .filter_map(|key| self.slices.get(key))
        };
        let pods: Vec<&Pod> = match &service.selector {
            Some(selector) => self
                .pods
                .within(&target.key.namespace)
                .map(|(_, pod)| pod)
                .filter(|pod| selects(selector, &pod.labels))
                .collect(),
            None => slices()
                .flat_map(|slice| &slice.pods)
                .filter_map(|key| self.pods.get(key))
                .collect(),
        };
        let mut found = Vec::new();
        for pod in pods
            .into_iter()
            .filter(|pod| pod.ready || service.publish_not_ready)
        {
            let number = of_service.target.of(pod);
            // One address for each pod: with two it would get two shares.
            let by_name = || {
                let of = service.entry.as_ref()?;
                let entry = pod.entry.as_ref()?;
                let named = of.entry.spec.resolution.by_name() && !entry.host.is_empty();
                named.then(|| Place::Name(entry.host.clone()))
            };
            let first = pod.addresses.first().copied().map(Place::Address);
            if let (Some(number), Some(place)) = (number, first.or_else(by_name)) {
                found.push(self.backend(pod, place, number));
            }
        }
        for slice in slices() {
            let Some((_, number)) = slice
                .ports
                .iter()
                .find(|(name, _)| *name == of_service.name)
            else {
                continue;
            };
            let bare = slice
                .addresses
                .iter()
                .filter(|bare| bare.ready || service.publish_not_ready);
            found.extend(bare.map(|bare| Backend {
                place: Place::Address(bare.address),
                port: *number,
                labels: Arc::default(),
                hbone: false,
                locality: Default::default(),
                node: Arc::default(),
                workload: format!(";{};;;{}", target.key.namespace, self.mesh.cluster),
                ready: true,
                weight: 1,
            }));
        }
        if let Some(of) = &service.entry {
            found.extend(self.listed(of, &target.host, of_service));
        }
        found
    }

    /// The endpoints that an entry lists; where names are resolved and it lists none, its host.
    fn listed(&self, of: &EntryOf, host: &str, port: &ServicePort) -> Vec<Backend> {
        let spec = &of.entry.spec;
        let Some(declared) = spec
            .ports
            .iter()
            .find(|known| known.number == u32::from(port.port))
        else {
            return Vec::new();
        };
        let namespace = &of.object.namespace;
        let named = |name: &str, labels: &Labels| {
            let (canonical, revision) = (
                label(labels, &CANONICAL_NAME).unwrap_or(name),
                label(labels, &CANONICAL_REVISION).unwrap_or_default(),
            );
            format!(
                "{name};{namespace};{canonical};{revision};{}",
                self.mesh.cluster
            )
        };
        let itself = Endpoint {
            address: host.to_owned(),
            ..Endpoint::default()
        };
        let implied = spec.endpoints.is_empty()
            && spec.workload_selector.is_none()
            && spec.resolution.by_name();
        let listed = spec.endpoints.iter().enumerate().map(|(number, endpoint)| {
            let name = format!("{}-{number}", of.object.name);
            (named(&name, &endpoint.labels), endpoint)
        });
        let implied = implied.then(|| (named(&of.object.name, &Labels::new()), &itself));
        let made = listed.chain(implied).map(|(workload, endpoint)| Backend {
            place: match endpoint.address.parse() {
                Ok(address) => Place::Address(address),
                Err(_) => Place::Name(endpoint.address.clone()),
            },
            port: endpoint.port(declared),
            labels: Arc::new(endpoint.labels.clone()),
            hbone: of.entry.tunnel != Tunnel::None,
            locality: endpoint.place(),
            node: Arc::default(),
            workload,
            ready: false,
            weight: endpoint.weight.max(1),
        });
        made.collect()
    }

    pub(super) fn backend(&self, pod: &Pod, place: Place, port: u16) -> Backend {
        let (name, revision) = canonical(pod);
        let entry = pod.entry.as_deref();
        // As with the endpoints that a ServiceEntry lists, none is made up for an entry.
        let revision = match entry {
            Some(_) => label(&pod.labels, &CANONICAL_REVISION).unwrap_or_default(),
            None => revision,
        };
        Backend {
            place,
            ready: entry.is_none(),
            weight: entry.map_or(1, |entry| entry.weight.max(1)),
            port,
            labels: pod.labels.clone(),
            hbone: pod.tunnel != Tunnel::None && !pod.host_network,
            node: pod.node.clone(),
            locality: entry.map_or_else(|| self.place_of(pod), |entry| entry.place.clone()),
            workload: format!(
                "{};{};{name};{revision};{}",
                pod.owner.name, pod.key.namespace, self.mesh.cluster
            ),
        }
    }
}
