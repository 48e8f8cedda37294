//! What a compiled resource needs that comes separately: endpoints, routes and secrets by name.
//! Until they are there, it isn't served. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kind::Kind;
use crate::model::cluster::{Cluster, Discovery, Transport};
use crate::model::http::Routes;
use crate::model::listener::{ChainKind, Dispatch, Listener, ListenerKind};
use crate::model::tls::SecretRef;

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
        if let ChainKind::Http(http) = &chain.kind
            && let Routes::Named(name) = &http.routes
        {
            needs.insert((Kind::Routes, name.clone()));
        }
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
