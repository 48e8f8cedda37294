//! Whom an object of the routing API concerns. Asked when the object changes, of the waypoints as they
//! were made last; and asked again when a waypoint is made, so that both answers are one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Index, Made, Output, pod_labels};
use crate::objects::destination_rule::DestinationRule;
use crate::objects::gateway_route::{GatewayRoute, ParentRef};
use crate::objects::request_authentication::Targets;
use crate::objects::routing::Spec;
use crate::objects::telemetry::Telemetry;
use crate::objects::virtual_service::VirtualService;
use crate::objects::{Gateway, Key, Kind};
use crate::translate::l7::{self, Attachment};

/// The services that a waypoint serves, and their host names.
pub(super) type Served = BTreeMap<Key, String>;

impl Index {
    /// Marks what an object concerns, in each of these versions.
    pub(super) fn mark_concerned<'a>(
        &mut self,
        kind: Kind,
        key: &Key,
        versions: impl Iterator<Item = &'a Arc<Spec>>,
    ) {
        for spec in versions {
            match &**spec {
                Spec::ReferenceGrant(_) => self.mark_routes_asking(&key.namespace),
                Spec::GatewayRoute(_) => {
                    self.dirty.insert(Output::Route(kind, key.clone()));
                }
                _ => {}
            }
            let concerned = self.l7.made.iter();
            let concerned = concerned.filter(|(waypoint, made)| {
                let gateway = self.gateways.get(waypoint);
                gateway.is_some_and(|gateway| self.concerns(gateway, made, key, spec))
            });
            let concerned: Vec<Output> = concerned
                .map(|(waypoint, _)| Output::Waypoint(waypoint.clone()))
                .collect();
            self.dirty.extend(concerned);
        }
    }

    fn concerns(&self, gateway: &Gateway, made: &Made, key: &Key, spec: &Spec) -> bool {
        let waypoint = &gateway.source.key;
        match spec {
            Spec::VirtualService(spec) => {
                made.delegates.contains(key) || self.hosts(waypoint, &made.served, key, spec)
            }
            Spec::DestinationRule(spec) => self.rules_one_of(waypoint, &made.services, key, spec),
            Spec::RequestAuthentication(spec) => {
                self.is_attached(gateway, &made.served, key, &spec.targets())
            }
            Spec::Telemetry(spec) => self.tells(gateway, &made.served, key, spec),
            Spec::GatewayRoute(route) => route
                .parents
                .iter()
                .any(|parent| self.is_parent(waypoint, &made.served, key, parent)),
            // Services and pods are made of the two, and what concerns those is marked with them; the
            // last concerns routes.
            Spec::ServiceEntry(_) | Spec::WorkloadEntry(_) | Spec::ReferenceGrant(_) => false,
        }
    }

    /// Whether a VirtualService has one of the waypoint's services among its hosts: of its own
    /// namespace, or from the waypoint's.
    pub(super) fn hosts(
        &self,
        waypoint: &Key,
        served: &Served,
        key: &Key,
        spec: &VirtualService,
    ) -> bool {
        let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
        let to = |to: &String| {
            to == "*"
                || to == "."
                || **to == *waypoint.namespace
                || served.keys().any(|service| *service.namespace == **to)
        };
        let exported = spec.export_to.is_empty() || spec.export_to.iter().any(to);
        in_mesh
            && exported
            && spec.hosts.iter().any(|host| {
                let host = self.full_host(host, &key.namespace);
                may_route(waypoint, served, key).any(|of| l7::covers(&host, of))
            })
    }

    /// Whether this parent of a route is one of the waypoint's services, as above.
    pub(super) fn is_parent(
        &self,
        waypoint: &Key,
        served: &Served,
        key: &Key,
        parent: &ParentRef,
    ) -> bool {
        let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
        let host = self.mesh.hostname(&parent.name, namespace);
        parent.is_service() && may_route(waypoint, served, key).any(|of| *of == host)
    }

    /// Whether a DestinationRule is for a service that the waypoint looked at, and visible to it.
    fn rules_one_of(
        &self,
        waypoint: &Key,
        services: &Served,
        key: &Key,
        spec: &DestinationRule,
    ) -> bool {
        let host = self.full_host(&spec.host, &key.namespace);
        l7::is_visible(spec, &key.namespace, &waypoint.namespace)
            && services.iter().any(|(service, of)| {
                let places = [
                    &*waypoint.namespace,
                    &*service.namespace,
                    &*self.mesh.root_namespace,
                ];
                places.contains(&&*key.namespace) && l7::covers(&host, of)
            })
    }

    /// Whether a policy is attached to the waypoint or to one of its services.
    pub(super) fn is_attached(
        &self,
        gateway: &Gateway,
        served: &Served,
        policy: &Key,
        targets: &Targets,
    ) -> bool {
        let labels = pod_labels(gateway);
        let at = |service| {
            let place = Attachment {
                gateway: &gateway.source.key,
                labels: &labels,
                root: &self.mesh.root_namespace,
                service,
            };
            l7::attaches(&place, policy, targets)
        };
        let mut services = served.keys().filter_map(|key| self.services.get(key));
        at(None) || services.any(|service| at(Some(service.object())))
    }

    /// Marks the waypoints that a policy is attached to.
    pub(in crate::index) fn mark_attached(&mut self, policy: &Key, targets: &Targets) {
        let attached = self.l7.made.iter().filter(|(waypoint, made)| {
            let gateway = self.gateways.get(waypoint);
            gateway.is_some_and(|gateway| self.is_attached(gateway, &made.served, policy, targets))
        });
        let attached: Vec<Output> = attached
            .map(|(waypoint, _)| Output::Waypoint(waypoint.clone()))
            .collect();
        self.dirty.extend(attached);
    }

    /// Marks the waypoints that listen to a Telemetry which speaks of something.
    pub(in crate::index) fn mark_telemetries(&mut self, speaks: impl Fn(&Telemetry) -> bool) {
        let speaking = self.of_kind(Kind::Telemetry).into_iter();
        let speaking: Vec<(Key, Arc<Spec>)> = speaking
            .filter(|(_, spec)| matches!(spec, Spec::Telemetry(spec) if speaks(spec)))
            .map(|(routing, spec)| (routing.source.key.clone(), Arc::new(spec.clone())))
            .collect();
        for (key, spec) in speaking {
            self.mark_concerned(Kind::Telemetry, &key, [&spec].into_iter());
        }
    }

    /// Whether a waypoint listens to a Telemetry: one of its own namespace, of a service's, of the mesh,
    /// or one that names it or a service.
    pub(super) fn tells(
        &self,
        gateway: &Gateway,
        served: &Served,
        key: &Key,
        spec: &Telemetry,
    ) -> bool {
        if !spec.is_general() {
            return self.is_attached(gateway, served, key, &spec.targets());
        }
        key.namespace == gateway.source.key.namespace
            || *key.namespace == *self.mesh.root_namespace
            || served
                .keys()
                .any(|service| service.namespace == key.namespace)
    }
}

/// The hosts that a route may speak of: those of its own namespace's services, and from the
/// waypoint's namespace all.
fn may_route<'a>(
    waypoint: &'a Key,
    served: &'a Served,
    route: &'a Key,
) -> impl Iterator<Item = &'a String> {
    let at_home = route.namespace == waypoint.namespace;
    let near = served
        .iter()
        .filter(move |(key, _)| at_home || key.namespace == route.namespace);
    near.map(|(_, host)| host)
}

/// The parents of a route that are services.
pub(super) fn parents(route: &GatewayRoute) -> impl Iterator<Item = &ParentRef> {
    route.parents.iter().filter(|parent| parent.is_service())
}
