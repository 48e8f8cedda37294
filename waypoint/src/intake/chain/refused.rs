//! The chain that stands where one was refused and had no last good version: it takes the same
//! connections, and lets none of them pass. HTTP is answered with an error, logged and counted under
//! the names that the refused chain gives; anything else is closed.

use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use super::HANDSHAKE;
use crate::intake::served::Notes;
use crate::intake::{http, tls, tunnel, typed};
use crate::model::http::{HttpChain, HttpFilter};
use crate::model::listener::{Chain, ChainKind};

/// Filters that only look, and may stand in a chain that refuses.
const WATCHING: [&str; 3] = [
    "stats.PluginConfig",
    "io.istio.http.peer_metadata.Config",
    "envoy.extensions.filters.http.router.v3.Router",
];

/// A chain that lets nobody pass.
pub(super) fn chain(chain: envoy::FilterChain) -> Chain {
    // What isn't served of it is told by the chain's refusal.
    let mut notes = Notes::default();
    let socket = chain.transport_socket;
    let tls = match socket {
        None => Ok(None),
        Some(socket) => tls::server_socket(socket, &mut notes),
    };
    let manager = chain.filters.last().and_then(manager);
    let (tls, kind) = match (tls, manager) {
        (Ok(tls), Some(manager)) => match answering(manager, &mut notes) {
            Some(http) => (tls, ChainKind::Http(Arc::new(http))),
            None => (None, ChainKind::Closed),
        },
        // Without its TLS nobody could hear an answer.
        _ => (None, ChainKind::Closed),
    };
    Chain {
        name: chain.name.into(),
        tls,
        handshake_timeout: HANDSHAKE,
        guards: Vec::new(),
        stats: false,
        kind,
    }
}

fn manager(filter: &envoy::Filter) -> Option<hcm::HttpConnectionManager> {
    typed::unpack(tunnel::config(filter)?, &mut Notes::default()).ok()
}

/// HTTP that is answered with an error: with as much of the chain's routes, logs and metrics as can
/// be compiled, so that who looks for the errors finds them under the service's name.
fn answering(manager: hcm::HttpConnectionManager, notes: &mut Notes) -> Option<HttpChain> {
    let mut watching = manager.http_filters;
    watching.retain(|filter| match &filter.config_type {
        Some(hcm::http_filter::ConfigType::TypedConfig(config)) => {
            typed::open(config).is_ok_and(|typed| WATCHING.contains(&&*typed.name))
        }
        _ => false,
    });
    let whole = hcm::HttpConnectionManager {
        codec_type: manager.codec_type,
        stat_prefix: manager.stat_prefix,
        http_filters: watching,
        access_log: manager.access_log,
        route_specifier: manager.route_specifier,
        ..Default::default()
    };
    let without_routes = hcm::HttpConnectionManager {
        route_specifier: Some(no_routes()),
        ..whole.clone()
    };
    let without_logs = hcm::HttpConnectionManager {
        access_log: Vec::new(),
        ..without_routes.clone()
    };
    let mut tried = [whole, without_routes, without_logs].into_iter();
    let mut http = tried.find_map(|manager| http::chain(manager, notes).ok())?;
    http.filters.insert(0, HttpFilter::Refused);
    Some(http)
}

fn no_routes() -> hcm::http_connection_manager::RouteSpecifier {
    hcm::http_connection_manager::RouteSpecifier::RouteConfig(Default::default())
}

#[cfg(test)]
mod tests;
