//! Services as waypoints see them: what they are called, what they speak, and who answers.

use std::net::IpAddr;

use super::Index;
use crate::objects::service::TargetPort as PodPort;
use crate::objects::{Key, Kind, Labels, Pod, Service, selects};
use crate::translate::l7::{self, Backend, Target, TargetPort};
use crate::translate::workload::canonical;

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
            });
        Target {
            host: self
                .mesh
                .hostname(&service.key.name, &service.key.namespace),
            key: service.key.clone(),
            kind: Kind::Service,
            headless: service.addresses.is_empty() && service.headless,
            near: matches!(
                service
                    .distribution
                    .as_deref()
                    .or(service.distribution_annotation.as_deref()),
                Some("PreferClose" | "PreferSameZone" | "PreferSameNode")
            ),
            addresses: service.addresses.clone(),
            ports: ports.collect(),
        }
    }

    /// `NAME.NAMESPACE.svc.DOMAIN`.
    pub(super) fn service_of_host(&self, host: &str) -> Option<Key> {
        let short = host
            .strip_suffix(&*self.mesh.domain)?
            .strip_suffix(".svc.")?;
        let (name, namespace) = short.split_once('.')?;
        Some(Key::new(namespace, name))
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
            let number = match &of_service.target {
                PodPort::Number(number) => Some(*number),
                PodPort::Name(name) => pod.port(name),
            };
            // One address for each pod: with two it would get two shares.
            if let (Some(number), Some(address)) = (number, pod.addresses.first()) {
                found.push(self.backend(pod, *address, number));
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
                address: bare.address,
                port: *number,
                labels: Labels::new(),
                hbone: false,
                locality: Default::default(),
                workload: format!(";{};;;{}", target.key.namespace, self.mesh.cluster),
            }));
        }
        found
    }

    pub(super) fn backend(&self, pod: &Pod, address: IpAddr, port: u16) -> Backend {
        let (name, revision) = canonical(pod);
        let node = self.nodes.get(pod.node.as_str());
        Backend {
            address,
            port,
            labels: pod.labels.clone(),
            hbone: pod.tunnel != crate::objects::pod::Tunnel::None && !pod.host_network,
            locality: node
                .map(|node| (node.region.clone(), node.zone.clone(), node.subzone.clone()))
                .unwrap_or_default(),
            workload: format!(
                "{};{};{name};{revision};{}",
                pod.owner.name, pod.key.namespace, self.mesh.cluster
            ),
        }
    }
}
