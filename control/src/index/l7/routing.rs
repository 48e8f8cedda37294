//! The objects of the routing API that speak of a waypoint's services: delegates in place, hosts in
//! full, routes of the Gateway API among the others, the oldest first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::concerns::{Served, parents};
use super::{Index, Made, Table};
use crate::objects::request_authentication::Targets;
use crate::objects::routing::Spec;
use crate::objects::telemetry::Telemetry;
use crate::objects::virtual_service::VirtualService;
use crate::objects::{Gateway, Key, Kind, Routing};
use crate::translate::l7::{self, Hosted, Policies, Rule};

impl Index {
    pub(super) fn of_kind(&self, kind: Kind) -> Vec<(&Routing, &Spec)> {
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
    pub(super) fn full_host(&self, host: &str, namespace: &str) -> String {
        if host.contains('.') || host.starts_with('*') {
            host.to_owned()
        } else {
            self.mesh.hostname(host, namespace)
        }
    }

    /// Those that speak of the services that a waypoint serves.
    pub(super) fn hosted(
        &self,
        waypoint: &Key,
        served: &Served,
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
            if !self.hosts(waypoint, served, key, spec) {
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
                let ours = parents(route);
                let ours = ours.filter(|parent| self.is_parent(waypoint, served, key, parent));
                hosted.extend(ours.map(|parent| {
                    // What is wrong with its references it says itself (`routes`).
                    let looked = Mutex::default();
                    let (spec, _) = self.of_parent(kind, key, route, parent, &looked);
                    let made = Hosted {
                        key: key.clone(),
                        kind,
                        spec: Arc::new(spec),
                    };
                    (routing.source.created, made)
                }));
            }
        }
        hosted.sort_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        hosted.into_iter().map(|(_, hosted)| hosted).collect()
    }

    /// Short names of hosts are in the namespace of who wrote them.
    pub(super) fn complete_hosts(&self, made: &mut VirtualService, namespace: &str) {
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
    pub(super) fn delegate(
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
            looked.borrow_mut().delegates.insert(key.clone());
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

    pub(super) fn rules(&self) -> Vec<Rule> {
        let all = self.of_kind(Kind::DestinationRule).into_iter();
        all.filter_map(|(routing, spec)| match spec {
            Spec::DestinationRule(spec) => Some(Rule {
                key: routing.source.key.clone(),
                host: self.full_host(&spec.host, &routing.source.key.namespace),
                spec: spec.clone(),
            }),
            _ => None,
        })
        .collect()
    }

    /// The policies that are attached to a waypoint, or to a service that it serves.
    pub(super) fn l7_policies(&self, gateway: &Gateway, served: &Served) -> Policies {
        let attached =
            |key: &Key, targets: &Targets| self.is_attached(gateway, served, key, targets);
        let mut authorization: Vec<_> = self
            .policies
            .all()
            .filter_map(|(key, policy)| {
                let for_waypoints = policy.for_waypoints.as_ref();
                for_waypoints.filter(|(_, targets)| attached(&key, targets))
            })
            .cloned()
            .collect();
        authorization.sort_by(|(a, _), (b, _)| {
            (a.source.created, &a.source.key).cmp(&(b.source.created, &b.source.key))
        });
        let authentication = self
            .of_kind(Kind::RequestAuthentication)
            .into_iter()
            .filter_map(|(routing, spec)| match spec {
                Spec::RequestAuthentication(spec) => {
                    let key = &routing.source.key;
                    attached(key, &spec.targets()).then(|| (key.clone(), Arc::new(spec.clone())))
                }
                _ => None,
            });
        Policies {
            authorization,
            authentication: authentication.collect(),
        }
    }

    /// The Telemetries that a waypoint listens to.
    pub(super) fn telemetries(
        &self,
        gateway: &Gateway,
        served: &Served,
    ) -> Vec<(Key, Arc<Telemetry>)> {
        let all = self.of_kind(Kind::Telemetry).into_iter();
        all.filter_map(|(routing, spec)| match spec {
            Spec::Telemetry(spec) => {
                let key = &routing.source.key;
                self.tells(gateway, served, key, spec)
                    .then(|| (key.clone(), spec.clone()))
            }
            _ => None,
        })
        .collect()
    }
}
