//! Waypoints' own resources in the index: from which objects each is made, and what it came to.
//!
//! While a waypoint's resources are made it is written down which services were looked at and in
//! which namespaces there were objects that counted. A change of a service or a pod concerns the
//! waypoints that looked at it; one of the routing API those that looked at its namespace, and all
//! where it is the root's. Pods that only come, go or become ready change endpoints alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::table::Table;
use super::{Index, Output, Update, Wish};
use crate::deployer::manifest::{Names, OLD_GATEWAY_NAME};
use crate::objects::gateway_route::GatewayRoute;
use crate::objects::routing::Spec;
use crate::objects::service::TargetPort as PodPort;
use crate::objects::virtual_service::VirtualService;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Gateway, Key, Kind, Labels, Pod, Routing, Service, selects};
use crate::resource::ResourceType;
use crate::status::Verdict;
use crate::translate::l7::{
    self, Backend, Hosted, Policies, Rule, Target, TargetPort, Translated, View, gateway_route,
};
use crate::translate::workload::canonical;

/// What waypoints are made from, and what they came to.
#[derive(Default)]
pub(super) struct L7 {
    routing: HashMap<Kind, Table<InForce>>,
    /// By waypoint: what it was made to, and what it was made from.
    pub(super) made: BTreeMap<Key, Made>,
    updates: BTreeMap<Key, Vec<Update>>,
    /// Waypoints that went.
    gone: BTreeSet<Key>,
    /// What was said of whom, so that it can be taken back.
    said: BTreeMap<(Kind, Key), BTreeSet<(Key, String)>>,
}

/// An object of the routing API, as it is used.
struct InForce {
    routing: Routing,
    /// The newest version that could be read.
    good: Option<Arc<Spec>>,
}

/// What a waypoint came to.
#[derive(Default)]
pub(super) struct Made {
    names: BTreeSet<(ResourceType, Arc<str>)>,
    services: BTreeSet<Key>,
    namespaces: BTreeSet<Arc<str>>,
}

impl L7 {
    pub(super) fn keys(&self, kind: Kind) -> HashSet<Key> {
        self.routing
            .get(&kind)
            .into_iter()
            .flat_map(Table::keys)
            .collect()
    }
}

impl Index {
    pub(super) fn set_routing(&mut self, routing: Routing) {
        let (kind, key) = (routing.kind, routing.source.key.clone());
        let table = self.l7.routing.entry(kind).or_default();
        let old = table.get(&key);
        let former = old.and_then(|old| old.good.clone());
        let good = match &routing.spec {
            Ok(spec) => Some(spec.clone()),
            Err(_) => former.clone(),
        };
        let problem = routing.spec.as_ref().err().cloned();
        let same = match (&former, &good) {
            (Some(former), Some(good)) => former == good,
            (None, None) => true,
            _ => false,
        };
        let source = routing.source.clone();
        table.set(&key, Some(InForce { routing, good }));
        if let Some(problem) = problem {
            let stays = if former.is_some() {
                "The version before stays in force"
            } else {
                "Nothing of it is in force"
            };
            let verdict = Verdict::invalid(&BTreeSet::from([problem]))
                .instead(stays)
                .for_waypoints();
            self.verdicts.insert(
                (kind, key.clone()),
                Wish {
                    kind,
                    source,
                    verdict,
                },
            );
        }
        if !same {
            self.mark_waypoints_near(&key.namespace);
        }
    }

    pub(super) fn remove_routing(&mut self, kind: Kind, key: &Key) {
        let Some(table) = self.l7.routing.get_mut(&kind) else {
            return;
        };
        if table.get(key).is_some() {
            table.set(key, None);
            self.l7.said.remove(&(kind, key.clone()));
            self.verdicts.remove(&(kind, key.clone()));
            self.mark_waypoints_near(&key.namespace);
        }
    }

    /// The waypoints that look at objects of this namespace.
    pub(super) fn mark_waypoints_near(&mut self, namespace: &str) {
        let everywhere = namespace == self.mesh.root_namespace;
        let near = self.l7.made.iter().filter(|(key, made)| {
            everywhere || *key.namespace == *namespace || made.namespaces.contains(namespace)
        });
        self.dirty
            .extend(near.map(|(key, _)| Output::Waypoint(key.clone())));
    }

    pub(super) fn mark_all_waypoints(&mut self) {
        self.dirty
            .extend(self.l7.made.keys().cloned().map(Output::Waypoint));
    }

    /// Called with the old service in place, and again with the new one.
    pub(super) fn mark_waypoints_of_service(&mut self, key: &Key) {
        let own = self
            .services
            .get(key)
            .and_then(|service| self.waypoint_of_service(service))
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()));
        let looked = self
            .l7
            .made
            .iter()
            .filter(|(_, made)| made.services.contains(key));
        self.dirty.extend(
            looked
                .map(|(waypoint, _)| Output::Waypoint(waypoint.clone()))
                .chain(own),
        );
    }

    /// The same for a pod: its own waypoint, and the endpoints of its services'.
    pub(super) fn mark_waypoints_of_pod(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else {
            return;
        };
        let mut marked: BTreeSet<Output> = self
            .waypoint_of_pod(pod)
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()))
            .into_iter()
            .collect();
        let services = self.services.within(&key.namespace).filter(|(_, service)| {
            service
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, &pod.labels))
        });
        for (service, found) in services {
            let binding = self
                .waypoint_of_service(found)
                .filter(|waypoint| waypoint.service_account.is_some());
            marked.extend(binding.map(|waypoint| Output::Waypoint(waypoint.key.clone())));
            let looked = self
                .l7
                .made
                .iter()
                .filter(|(_, made)| made.services.contains(&service));
            marked.extend(looked.map(|(waypoint, _)| Output::WaypointEndpoints(waypoint.clone())));
        }
        // Where waypoints are for accounts, a service may come to one or leave it with its pods.
        let accounts = self
            .waypoints
            .within(&key.namespace)
            .filter(|(_, waypoint)| waypoint.service_account.is_some());
        marked.extend(accounts.map(|(waypoint, _)| Output::Waypoint(waypoint)));
        self.dirty.extend(marked);
    }

    pub(super) fn mark_waypoints_of_slice(&mut self, key: &Key) {
        let Some(slice) = self.slices.get(key) else {
            return;
        };
        let looked = self
            .l7
            .made
            .iter()
            .filter(|(_, made)| made.services.contains(&slice.service));
        self.dirty
            .extend(looked.map(|(waypoint, _)| Output::WaypointEndpoints(waypoint.clone())));
    }

    /// What changed for waypoints since the last call, and which waypoints went.
    pub fn take_l7(&mut self) -> (BTreeMap<Key, Vec<Update>>, BTreeSet<Key>) {
        (
            std::mem::take(&mut self.l7.updates),
            std::mem::take(&mut self.l7.gone),
        )
    }

    /// The waypoint that a pod is one of: which Gateway it was made for, and with its account.
    #[must_use]
    pub fn waypoint_of_instance(&self, pod: &Key, uid: &str, account: &str) -> Option<Key> {
        let pod = self
            .pods
            .get(pod)
            .filter(|pod| pod.uid == uid && pod.service_account == account)?;
        let key = Key::new(
            pod.key.namespace.clone(),
            pod.labels.get(GATEWAY_NAME)?.as_str(),
        );
        let gateway = self
            .gateways
            .get(&key)
            .filter(|gateway| self.is_waypoint(gateway))?;
        (Names::of(gateway).service_account == account).then_some(key)
    }

    pub(super) fn waypoint(&mut self, key: &Key) {
        let gateway = self
            .gateways
            .get(key)
            .filter(|gateway| self.is_waypoint(gateway))
            .cloned();
        let Some(gateway) = gateway else {
            if self.l7.made.remove(key).is_some() {
                self.l7.gone.insert(key.clone());
                self.l7.updates.remove(key);
            }
            self.take_back(key);
            return;
        };
        let (translated, looked) = self.translated(&gateway, None);
        let names: BTreeSet<_> = translated
            .resources
            .iter()
            .map(|(kind, resource)| (*kind, resource.name.clone()))
            .collect();
        let former = self.l7.made.remove(key).unwrap_or_default();
        let gone = former.names.difference(&names).map(|(kind, name)| Update {
            kind: *kind,
            name: name.clone(),
            resource: None,
        });
        let updates = self.l7.updates.entry(key.clone()).or_default();
        updates.extend(gone);
        updates.extend(
            translated
                .resources
                .into_iter()
                .map(|(kind, resource)| present(kind, resource)),
        );
        self.l7.made.insert(key.clone(), Made { names, ..looked });
        self.take_back(key);
        self.say(key, translated.problems);
    }

    pub(super) fn waypoint_endpoints(&mut self, key: &Key) {
        let Some(made) = self.l7.made.get(key) else {
            return;
        };
        let Some(gateway) = self.gateways.get(key).cloned() else {
            return;
        };
        let names: Vec<Arc<str>> = made
            .names
            .iter()
            .filter(|(kind, _)| *kind == ResourceType::Endpoints)
            .map(|(_, name)| name.clone())
            .collect();
        let (translated, _) = self.translated(&gateway, Some(&names));
        let updates = self.l7.updates.entry(key.clone()).or_default();
        updates.extend(
            translated
                .resources
                .into_iter()
                .map(|(kind, resource)| present(kind, resource)),
        );
    }

    /// All resources, or the endpoints of these clusters; and what was looked at.
    fn translated(&self, gateway: &Gateway, only: Option<&[Arc<str>]>) -> (Translated, Made) {
        let key = &gateway.source.key;
        let mut found: Vec<&Service> = self
            .services
            .all()
            .map(|(key, _)| key)
            .filter_map(|key| self.services.get(&key))
            .filter(|service| {
                self.waypoint_of_service(service)
                    .is_some_and(|waypoint| waypoint.key == *key)
            })
            .collect();
        found.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
        let pods = self.pods.all().map(|(_, pod)| pod);
        let pods = pods.filter(|pod| {
            self.waypoint_of_pod(pod)
                .is_some_and(|waypoint| waypoint.key == *key)
        });
        let mut addresses: Vec<IpAddr> =
            pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        let services: Vec<Target> = found
            .into_iter()
            .map(|service| self.target(service))
            .collect();
        let looked = RefCell::new(Made::default());
        let lookup = |host: &str| {
            let key = self.service_of_host(host)?;
            let mut looked = looked.borrow_mut();
            looked.namespaces.insert(key.namespace.clone());
            looked.services.insert(key.clone());
            drop(looked);
            self.services.get(&key).map(|service| self.target(service))
        };
        let backends = |target: &Target, port: &TargetPort| self.backends(target, port);
        for service in &services {
            let mut looked = looked.borrow_mut();
            looked.services.insert(service.key.clone());
            looked.namespaces.insert(service.key.namespace.clone());
        }
        let problems = RefCell::new(BTreeSet::new());
        let near: BTreeSet<Arc<str>> = services
            .iter()
            .map(|service| service.key.namespace.clone())
            .chain([key.namespace.clone()])
            .collect();
        let view = View {
            mesh: &self.mesh,
            gateway: key.clone(),
            deployment: Names::of(gateway).deployment,
            labels: pod_labels(gateway),
            pods: addresses,
            lookup: &lookup,
            backends: &backends,
            routes: self.hosted(&near, &looked, &problems),
            rules: self.rules(),
            policies: self.l7_policies(),
            access_log: self.access_log(key),
            services,
            problems,
        };
        let translated = match only {
            None => l7::translate(&view),
            Some(clusters) => l7::endpoints(&view, clusters.iter().map(|name| &**name)),
        };
        drop(view);
        (translated, looked.into_inner())
    }

    fn target(&self, service: &Service) -> Target {
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
            addresses: service.addresses.clone(),
            ports: ports.collect(),
        }
    }

    /// `NAME.NAMESPACE.svc.DOMAIN`.
    fn service_of_host(&self, host: &str) -> Option<Key> {
        let short = host
            .strip_suffix(&*self.mesh.domain)?
            .strip_suffix(".svc.")?;
        let (name, namespace) = short.split_once('.')?;
        Some(Key::new(namespace, name))
    }

    fn backends(&self, target: &Target, port: &TargetPort) -> Vec<Backend> {
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

    fn backend(&self, pod: &Pod, address: IpAddr, port: u16) -> Backend {
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

    fn of_kind(&self, kind: Kind) -> Vec<(&Routing, &Spec)> {
        let table = self.l7.routing.get(&kind);
        let keys: Vec<Key> = table.into_iter().flat_map(Table::keys).collect();
        let mut found: Vec<(&Routing, &Spec)> = keys
            .iter()
            .filter_map(|key| table?.get(key))
            .filter_map(|in_force| Some((&in_force.routing, in_force.good.as_deref()?)))
            .collect();
        found.sort_by(|(a, _), (b, _)| {
            (a.source.created, &a.source.key).cmp(&(b.source.created, &b.source.key))
        });
        found
    }

    /// A host as an object of this namespace names it, in full.
    fn full_host(&self, host: &str, namespace: &str) -> String {
        if host.contains('.') || host.starts_with('*') {
            host.to_owned()
        } else {
            self.mesh.hostname(host, namespace)
        }
    }

    fn hosted(
        &self,
        near: &BTreeSet<Arc<str>>,
        looked: &RefCell<Made>,
        problems: &RefCell<BTreeSet<(Kind, Key, String)>>,
    ) -> Vec<Hosted> {
        let mut hosted: Vec<(i64, Hosted)> = Vec::new();
        let mut note = |kind: Kind, key: &Key, problem: String| {
            problems.borrow_mut().insert((kind, key.clone(), problem));
        };
        for (routing, spec) in self.of_kind(Kind::VirtualService) {
            let Spec::VirtualService(spec) = spec else {
                continue;
            };
            let key = &routing.source.key;
            if spec.hosts.is_empty()
                || !near.contains(&key.namespace)
                || !in_mesh(spec)
                || !exported(spec, &key.namespace, near)
            {
                continue;
            }
            let mut made = spec.clone();
            self.delegate(key, &mut made, looked, &mut note);
            self.complete_hosts(&mut made, &key.namespace);
            hosted.push((
                routing.source.created,
                Hosted {
                    key: key.clone(),
                    kind: Kind::VirtualService,
                    spec: Arc::new(made),
                },
            ));
        }
        for kind in [
            Kind::HttpRoute,
            Kind::GrpcRoute,
            Kind::TcpRoute,
            Kind::TlsRoute,
        ] {
            for (routing, spec) in self.of_kind(kind) {
                let Spec::GatewayRoute(route) = spec else {
                    continue;
                };
                let key = &routing.source.key;
                if near.contains(&key.namespace) {
                    for made in self.parents(kind, key, route, looked, &mut note) {
                        hosted.push((routing.source.created, made));
                    }
                }
            }
        }
        hosted.sort_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        hosted.into_iter().map(|(_, hosted)| hosted).collect()
    }

    /// Short names of hosts are in the namespace of who wrote them.
    fn complete_hosts(&self, made: &mut VirtualService, namespace: &str) {
        for host in &mut made.hosts {
            *host = self.full_host(host, namespace);
        }
        let full = |to: &mut crate::objects::virtual_service::Destination| {
            if !to.host.is_empty() {
                to.host = self.full_host(&to.host, namespace);
            }
        };
        for http in &mut made.http {
            http.route
                .iter_mut()
                .for_each(|to| full(&mut to.destination));
            http.mirror.iter_mut().for_each(full);
            http.mirrors
                .iter_mut()
                .filter_map(|mirror| mirror.destination.as_mut())
                .for_each(full);
        }
        made.tls
            .iter_mut()
            .flat_map(|rule| &mut rule.route)
            .for_each(|to| full(&mut to.destination));
        made.tcp
            .iter_mut()
            .flat_map(|rule| &mut rule.route)
            .for_each(|to| full(&mut to.destination));
    }

    /// Puts the routes of delegates in the place of those that name them.
    fn delegate(
        &self,
        root: &Key,
        made: &mut VirtualService,
        looked: &RefCell<Made>,
        note: &mut impl FnMut(Kind, &Key, String),
    ) {
        let mut routes = Vec::new();
        for http in std::mem::take(&mut made.http) {
            let Some(delegate) = &http.delegate else {
                routes.push(http);
                continue;
            };
            let namespace = if delegate.namespace.is_empty() {
                &*root.namespace
            } else {
                delegate.namespace.as_str()
            };
            let key = Key::new(namespace, delegate.name.as_str());
            looked.borrow_mut().namespaces.insert(key.namespace.clone());
            let found = self
                .l7
                .routing
                .get(&Kind::VirtualService)
                .and_then(|table| table.get(&key))
                .and_then(|in_force| in_force.good.as_deref());
            let Some(Spec::VirtualService(found)) = found else {
                note(
                    Kind::VirtualService,
                    root,
                    format!("delegate {key} does not exist: its route is left out"),
                );
                continue;
            };
            let open = found.export_to.is_empty()
                || found.export_to.iter().any(|to| {
                    to == "*"
                        || **to == *root.namespace
                        || (to == "." && key.namespace == root.namespace)
                });
            if !found.hosts.is_empty() || !open {
                note(
                    Kind::VirtualService,
                    root,
                    format!(
                        "delegate {key} has hosts, or is not exported to {}: its route is left out",
                        root.namespace
                    ),
                );
                continue;
            }
            let mut delegated = found.clone();
            self.complete_hosts(&mut delegated, namespace);
            routes.extend(
                delegated
                    .http
                    .into_iter()
                    .filter_map(|inner| l7::delegated(&http, inner)),
            );
        }
        made.http = routes;
    }

    /// A route of the Gateway API for each of its parents that is a service.
    fn parents(
        &self,
        kind: Kind,
        key: &Key,
        route: &GatewayRoute,
        looked: &RefCell<Made>,
        note: &mut impl FnMut(Kind, &Key, String),
    ) -> Vec<Hosted> {
        let granted = |namespace: &str, service: &str| {
            looked.borrow_mut().namespaces.insert(namespace.into());
            self.of_kind(Kind::ReferenceGrant).into_iter().any(|(routing, spec)| {
                matches!(spec, Spec::ReferenceGrant(grant) if *routing.source.key.namespace == *namespace && grant.permits(kind.name(), &key.namespace, service))
            })
        };
        let has_port = |namespace: &str, name: &str, port: u32| {
            let service = Key::new(namespace, name);
            looked.borrow_mut().services.insert(service.clone());
            let service = self.services.get(&service)?;
            Some(
                service
                    .ports
                    .iter()
                    .any(|known| u32::from(known.port) == port),
            )
        };
        let around = gateway_route::Surroundings {
            namespace: &key.namespace,
            domain: &self.mesh.domain,
            granted: &granted,
            has_port: &has_port,
        };
        let mut made = Vec::new();
        for parent in &route.parents {
            let service = matches!(parent.group.as_deref(), Some("" | "core"))
                && parent.kind.as_deref() == Some("Service");
            if !service {
                continue;
            }
            let (spec, problems) = gateway_route::virtual_service(kind, route, parent, &around);
            for problem in problems {
                note(kind, key, problem);
            }
            made.push(Hosted {
                key: key.clone(),
                kind,
                spec: Arc::new(spec),
            });
        }
        made
    }

    fn rules(&self) -> Vec<Rule> {
        let all = self.of_kind(Kind::DestinationRule).into_iter();
        all.filter_map(|(routing, spec)| match spec {
            Spec::DestinationRule(spec) => Some(Rule {
                key: routing.source.key.clone(),
                host: self.full_host(&spec.host, &routing.source.key.namespace),
                spec: Arc::new((**spec).clone()),
            }),
            _ => None,
        })
        .collect()
    }

    fn l7_policies(&self) -> Policies {
        let mut authorization: Vec<_> = self
            .policies
            .all()
            .filter_map(|(_, policy)| policy.for_waypoints.clone())
            .collect();
        authorization.sort_by(|(a, _), (b, _)| {
            (a.source.created, &a.source.key).cmp(&(b.source.created, &b.source.key))
        });
        let authentication = self
            .of_kind(Kind::RequestAuthentication)
            .into_iter()
            .filter_map(|(routing, spec)| match spec {
                Spec::RequestAuthentication(spec) => {
                    Some((routing.source.key.clone(), Arc::new(spec.clone())))
                }
                _ => None,
            });
        Policies {
            authorization,
            authentication: authentication.collect(),
        }
    }

    /// The waypoint's own Telemetry, its namespace's, the mesh's: the first that says something.
    fn access_log(&self, waypoint: &Key) -> bool {
        let all: Vec<_> = self
            .of_kind(Kind::Telemetry)
            .into_iter()
            .filter_map(|(routing, spec)| match spec {
                Spec::Telemetry(spec) => Some((&routing.source.key.namespace, spec)),
                _ => None,
            })
            .collect();
        let own = all.iter().filter(|(namespace, spec)| {
            **namespace == waypoint.namespace
                && spec
                    .target_refs
                    .iter()
                    .any(|target| target.kind == "Gateway" && *target.name == *waypoint.name)
        });
        let general = |wanted: &str| {
            let wanted = wanted.to_owned();
            all.iter().filter(move |(namespace, spec)| {
                ***namespace == *wanted && spec.target_refs.is_empty() && spec.selector.is_none()
            })
        };
        let (here, root) = (
            general(&waypoint.namespace),
            general(&self.mesh.root_namespace),
        );
        own.chain(here)
            .chain(root)
            .find_map(|(_, spec)| spec.logs())
            .unwrap_or_default()
    }

    /// What this waypoint said of objects is taken back, before it says it anew.
    fn take_back(&mut self, waypoint: &Key) {
        let mut changed = Vec::new();
        self.l7.said.retain(|object, said| {
            let before = said.len();
            said.retain(|(by, _)| by != waypoint);
            if said.len() < before {
                changed.push(object.clone());
            }
            true
        });
        for object in changed {
            self.wish_of(&object);
        }
    }

    fn say(&mut self, waypoint: &Key, problems: BTreeSet<(Kind, Key, String)>) {
        let mut changed = BTreeSet::new();
        for (kind, key, problem) in problems {
            self.l7
                .said
                .entry((kind, key.clone()))
                .or_default()
                .insert((waypoint.clone(), problem));
            changed.insert((kind, key));
        }
        for object in changed {
            self.wish_of(&object);
        }
    }

    /// A status is written once there was something to say, and again when there is nothing any more.
    fn wish_of(&mut self, object: &(Kind, Key)) {
        let (kind, key) = object;
        let source = match kind {
            Kind::AuthorizationPolicy => self
                .policies
                .get(key)
                .and_then(|policy| policy.for_waypoints.as_ref())
                .map(|_| None),
            _ => self
                .l7
                .routing
                .get(kind)
                .and_then(|table| table.get(key))
                .filter(|in_force| in_force.routing.spec.is_ok())
                .map(|in_force| Some(in_force.routing.source.clone())),
        };
        let said: BTreeSet<String> = self
            .l7
            .said
            .get(object)
            .into_iter()
            .flatten()
            .map(|(_, problem)| problem.clone())
            .collect();
        for problem in &said {
            tracing::warn!(%kind, object = %key, detail = problem, "an object is not in force as written");
        }
        let Some(Some(source)) = source else { return };
        let verdict = if said.is_empty() {
            Verdict::accepted()
        } else {
            Verdict::invalid(&said)
        };
        self.verdicts.insert(
            object.clone(),
            Wish {
                kind: *kind,
                source,
                verdict: verdict.for_waypoints(),
            },
        );
    }
}

fn present(kind: ResourceType, resource: crate::resource::Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
}

/// The labels that the deployer gives a waypoint's pods, as far as policies select by them.
fn pod_labels(gateway: &Gateway) -> Labels {
    let mut labels = Labels::from([(GATEWAY_NAME.to_owned(), gateway.source.key.name.to_string())]);
    if gateway.service_account().is_some() {
        labels.insert(
            OLD_GATEWAY_NAME.to_owned(),
            gateway.source.key.name.to_string(),
        );
    }
    labels
}

fn in_mesh(spec: &VirtualService) -> bool {
    spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh")
}

fn exported(spec: &VirtualService, own: &Arc<str>, near: &BTreeSet<Arc<str>>) -> bool {
    spec.export_to.is_empty()
        || spec.export_to.iter().any(|to| match to.as_str() {
            "*" => true,
            "." => near.contains(own),
            to => near.contains(to),
        })
}
