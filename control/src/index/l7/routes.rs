//! Routes of the Gateway API by themselves: whether what they refer to is there and may be referred
//! to. That is said in a route's status whether or not a waypoint serves it, as istiod does.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::concerns::parents;
use super::said::By;
use super::{Index, Output};
use crate::objects::gateway_route::{GatewayRoute, ParentRef};
use crate::objects::routing::Spec;
use crate::objects::virtual_service::VirtualService;
use crate::objects::{Key, Kind};
use crate::translate::l7::gateway_route;

/// What a route's references were looked up in.
#[derive(Default)]
pub(super) struct Looked {
    services: BTreeSet<Key>,
    /// Namespaces whose ReferenceGrants were asked.
    namespaces: BTreeSet<Arc<str>>,
}

impl Index {
    /// Finds out anew what is wrong with a route's references.
    pub(in crate::index) fn route(&mut self, kind: Kind, key: &Key) {
        let object = (kind, key.clone());
        let known = self.l7.routing.get(&kind).and_then(|table| table.get(key));
        let Some(Spec::GatewayRoute(route)) = known.and_then(|known| known.good.as_deref()) else {
            self.l7.routes.remove(&object);
            self.say(By::Itself(object), BTreeSet::new());
            return;
        };
        let looked = Mutex::new(Looked::default());
        let made = parents(route).map(|parent| self.of_parent(kind, key, route, parent, &looked));
        let problems = made
            .flat_map(|(_, problems)| problems)
            .map(|problem| (kind, key.clone(), problem));
        let problems = problems.collect();
        self.l7.routes.insert(object.clone(), looked.into_inner());
        self.say(By::Itself(object), problems);
    }

    /// The VirtualService that a route comes to for one of its parents, and what is wrong with it.
    pub(super) fn of_parent(
        &self,
        kind: Kind,
        key: &Key,
        route: &GatewayRoute,
        parent: &ParentRef,
        looked: &Mutex<Looked>,
    ) -> (VirtualService, Vec<String>) {
        let granted = |namespace: &str, service: &str| {
            looked.lock().namespaces.insert(namespace.into());
            self.of_kind(Kind::ReferenceGrant).into_iter().any(|(routing, spec)| {
                matches!(spec, Spec::ReferenceGrant(grant) if *routing.source.key.namespace == *namespace && grant.permits(kind.name(), &key.namespace, service))
            })
        };
        let has_port = |namespace: &str, name: &str, port: u32| {
            let service = Key::new(namespace, name);
            looked.lock().services.insert(service.clone());
            let mut ports = self.services.get(&service)?.ports.iter();
            Some(ports.any(|known| u32::from(known.port) == port))
        };
        let around = gateway_route::Surroundings {
            namespace: &key.namespace,
            name: &key.name,
            domain: &self.mesh.domain,
            granted: &granted,
            has_port: &has_port,
        };
        gateway_route::virtual_service(kind, route, parent, &around)
    }

    /// Routes that refer to this service: what they say of it may be wrong now, or right.
    pub(super) fn mark_routes_to(&mut self, service: &Key) {
        let all = self.l7.routes.iter();
        let to = all.filter(|(_, looked)| looked.services.contains(service));
        self.dirty
            .extend(to.map(|((kind, key), _)| Output::Route(*kind, key.clone())));
    }

    /// Routes that asked whether they may refer to this namespace, and who serves them.
    pub(super) fn mark_routes_asking(&mut self, namespace: &str) {
        let all = self.l7.routes.iter();
        let asked = all.filter(|(_, looked)| looked.namespaces.contains(namespace));
        let asked: Vec<(Kind, Key)> = asked.map(|(object, _)| object.clone()).collect();
        for (kind, key) in asked {
            let known = self.l7.routing.get(&kind).and_then(|table| table.get(&key));
            let spec = known.and_then(|known| known.good.clone());
            self.mark_concerned(kind, &key, spec.iter());
        }
    }
}
