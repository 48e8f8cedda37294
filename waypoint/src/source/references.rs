//! What a compiled resource needs that comes separately: endpoints, routes, filters and secrets by name.
//! Until they are there, it isn't served. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kind::Kind;
use crate::model::cluster::{Cluster, Discovery, Transport};
use crate::model::http::{Extension, HttpFilter, Routes};
use crate::model::listener::{ChainKind, Dispatch, Listener, ListenerKind};
use crate::model::tls::SecretRef;
use crate::model::wasm::Plugin;

/// A resource that another one needs.
pub type Reference = (Kind, Arc<str>);

/// What a cluster needs.
#[must_use]
pub fn of_cluster(cluster: &Cluster) -> BTreeSet<Reference> {
    let mut needs = BTreeSet::new();
    if let Discovery::Subscribed(name) = &cluster.discovery {
        needs.insert((Kind::Endpoints, name.clone()));
    }
    of_transport(&cluster.transport, &mut needs);
    for matched in &cluster.transport_matches {
        of_transport(&matched.transport, &mut needs);
    }
    needs
}

/// What a listener needs.
#[must_use]
pub fn of_listener(listener: &Listener) -> BTreeSet<Reference> {
    let mut needs = BTreeSet::new();
    match &listener.kind {
        ListenerKind::Socket(socket) => of_dispatch(&socket.dispatch, &mut needs),
        ListenerKind::Internal(dispatch) => of_dispatch(dispatch, &mut needs),
        ListenerKind::Tunnel(tunnel) => {
            let tls = &tunnel.tls;
            of_secrets([Some(&tls.certificate), tls.roots.as_ref()], &mut needs);
        }
    }
    needs
}

fn of_dispatch(dispatch: &Dispatch, needs: &mut BTreeSet<Reference>) {
    for chain in dispatch.chains.iter().chain(&dispatch.default) {
        if let Some(tls) = &chain.tls {
            of_secrets([Some(&tls.certificate), tls.roots.as_ref()], needs);
        }
        let ChainKind::Http(http) = &chain.kind else {
            continue;
        };
        if let Routes::Named(name) = &http.routes {
            needs.insert((Kind::Routes, name.clone()));
        }
        for filter in &http.filters {
            if let HttpFilter::Discovered(it) = filter {
                needs.insert((Kind::Extension, it.name.clone()));
            }
        }
    }
}

/// The plugins in a listener's chains.
#[must_use]
pub fn plugins_of(listener: &Listener) -> Vec<Arc<Plugin>> {
    let dispatch = match &listener.kind {
        ListenerKind::Socket(socket) => &socket.dispatch,
        ListenerKind::Internal(dispatch) => dispatch,
        ListenerKind::Tunnel(_) => return Vec::new(),
    };
    let chains = dispatch.chains.iter().chain(&dispatch.default);
    let filters = chains.filter_map(|chain| match &chain.kind {
        ChainKind::Http(http) => Some(&http.filters),
        ChainKind::Tcp(_) | ChainKind::Closed => None,
    });
    filters.flatten().filter_map(plugin).cloned().collect()
}

/// The plugin that a filter is, if it is one.
#[must_use]
pub fn plugin_of(extension: &Extension) -> Vec<Arc<Plugin>> {
    plugin(&extension.filter).cloned().into_iter().collect()
}

fn plugin(filter: &HttpFilter) -> Option<&Arc<Plugin>> {
    match filter {
        HttpFilter::Plugin(plugin) => Some(plugin),
        HttpFilter::Discovered(it) => plugin(it.default.as_ref()?),
        _ => None,
    }
}

fn of_transport(transport: &Transport, needs: &mut BTreeSet<Reference>) {
    match transport {
        Transport::Plain => {}
        Transport::Tls(tls) => of_secrets([tls.certificate.as_ref(), tls.roots.as_ref()], needs),
        Transport::ProxyProtocol(_, inner) | Transport::Tunnel(inner) => {
            of_transport(inner, needs);
        }
    }
}

fn of_secrets(secrets: [Option<&SecretRef>; 2], needs: &mut BTreeSet<Reference>) {
    for secret in secrets.into_iter().flatten() {
        if let SecretRef::Named(name) = secret {
            needs.insert((Kind::Secret, name.clone()));
        }
    }
}
