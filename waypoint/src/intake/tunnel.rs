//! The two ends of HBONE tunnels in istiod's graph: `connect_terminate`, which ends those of
//! clients, and the internal listeners that open those towards upstream hosts.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as http_state;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as state;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::google::protobuf::Any;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{filter_state, log, protocol, tls, typed};
use crate::model::listener::TunnelListener;

/// The authorities that istiod's listeners open tunnels to, as formats: the endpoint's own address,
/// or the host behind another network's gateway.
const AUTHORITIES: &[&str] = &[
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%FILTER_STATE(istio.double_hbone.hbone_target_address:PLAIN)%",
];

/// The configuration of a network filter, where it stands in the chain.
pub(super) fn config(filter: &envoy::Filter) -> Option<&Any> {
    match filter.config_type.as_ref()? {
        envoy::filter::ConfigType::TypedConfig(config) => Some(config),
        envoy::filter::ConfigType::ConfigDiscovery(_) => None,
    }
}

/// Checks that a listener opens tunnels in the way that `upstream` has built in.
///
/// # Errors
/// It does something else besides.
pub(super) fn originate(
    listener: &str,
    chains: Vec<envoy::FilterChain>,
    notes: &mut Notes,
) -> Result<(), Refused> {
    let one = |chain: envoy::FilterChain| -> Result<(), Refused> {
        for (index, filter) in chain.filters.iter().enumerate() {
            let config = need(config(filter), "typed_config")
                .item(index)
                .at("filters")?;
            step(listener, config, notes)
                .at("typed_config")
                .item(index)
                .at("filters")?;
        }
        Ok(())
    };
    super::error::each("filter_chains", chains, one).map(|_| ())
}

/// A filter of a listener that opens tunnels.
fn step(listener: &str, config: &Any, notes: &mut Notes) -> Result<(), Refused> {
    match typed::open(config)?.name.as_str() {
        "envoy.extensions.filters.network.set_filter_state.v3.Config" => {
            let state: state::Config = typed::unpack_whole(config)?;
            filter_state::known(state.on_new_connection, notes).at("on_new_connection")
        }
        "io.istio.network.peer_metadata.Config"
        | "io.istio.network.peer_metadata.UpstreamConfig"
        | "envoy.tcp.metadataexchange.config.MetadataExchange" => Ok(()),
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let proxy: TcpProxy = typed::unpack(config, notes)?;
            let tunnel = need(proxy.tunneling_config, "tunneling_config")?;
            if !AUTHORITIES.contains(&tunnel.hostname.as_str()) || tunnel.use_post {
                let reason = format!(
                    "{:?} is none of the tunnels that {listener} is known for",
                    tunnel.hostname
                );
                return Err(Refused::new(reason).under("tunneling_config.hostname"));
            }
            Ok(())
        }
        other => Err(Refused::new(format!("{other} is no step towards a tunnel"))),
    }
}

/// The end of tunnels, where the listener is one: HTTP whose route for CONNECT ends them.
///
/// # Errors
/// It is one, and does something else besides, or lets in who shows no certificate.
pub(super) fn terminate(
    chains: &[envoy::FilterChain],
    addresses: &[SocketAddr],
    notes: &mut Notes,
) -> Result<Option<TunnelListener>, Refused> {
    let [chain] = chains else {
        return Ok(None);
    };
    let Some(config) = chain.filters.last().and_then(config) else {
        return Ok(None);
    };
    let known = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    if typed::name(config) != known {
        return Ok(None);
    }
    let field = "filter_chains[0].filters[0].typed_config";
    let manager: hcm::HttpConnectionManager =
        typed::unpack(config, &mut Notes::default()).at(field)?;
    let Some(to) = ends_at(&manager) else {
        return Ok(None);
    };
    if chain.filters.len() > 1 {
        let reason = "nothing but HTTP stands before the end of tunnels";
        return Err(Refused::new(reason).under("filter_chains[0].filters"));
    }
    let socket = need(chain.transport_socket.clone(), "transport_socket").at("filter_chains[0]")?;
    let tls = tls::server_socket(socket, notes).at("filter_chains[0].transport_socket")?;
    let tls = match tls {
        Some(tls) if tls.require_client && tls.roots.is_some() => tls,
        _ => {
            let reason = "tunnels end only for clients that show a certificate";
            return Err(Refused::new(reason).under("filter_chains[0].transport_socket"));
        }
    };
    let options = manager.http2_protocol_options.clone();
    let steps = |filter: &hcm::HttpFilter| http_step(filter, notes);
    let checked: Result<Vec<()>, Refused> = manager.http_filters.iter().map(steps).collect();
    checked.at("http_filters").at(field)?;
    Ok(Some(TunnelListener {
        addresses: addresses.to_vec(),
        tls,
        to: to.into(),
        access_logs: log::logs(manager.access_log, notes).at(field)?,
        keepalive: keepalive(options).at(field)?,
        forward_client_cert: manager.forward_client_cert_details
            != hcm::http_connection_manager::ForwardClientCertDetails::Sanitize as i32,
    }))
}

fn keepalive(
    options: Option<core::Http2ProtocolOptions>,
) -> Result<Option<(Duration, Duration)>, Refused> {
    match options.and_then(|options| options.connection_keepalive) {
        None => Ok(None),
        Some(settings) => {
            protocol::keepalive(settings).at("http2_protocol_options.connection_keepalive")
        }
    }
}

/// The cluster, and so the internal listener, in which the streams of tunnels end: that of the only
/// route, which is for CONNECT and ends it.
fn ends_at(manager: &hcm::HttpConnectionManager) -> Option<String> {
    use hcm::http_connection_manager::RouteSpecifier::RouteConfig;
    use route::route::Action;
    use route::route_action::ClusterSpecifier;
    use route::route_match::PathSpecifier::ConnectMatcher;

    let Some(RouteConfig(table)) = &manager.route_specifier else {
        return None;
    };
    let [host] = table.virtual_hosts.as_slice() else {
        return None;
    };
    let [only] = host.routes.as_slice() else {
        return None;
    };
    let Some(ConnectMatcher(_)) = only.r#match.as_ref()?.path_specifier else {
        return None;
    };
    let Some(Action::Route(forward)) = &only.action else {
        return None;
    };
    let ends = |upgrade: &route::route_action::UpgradeConfig| upgrade.connect_config.is_some();
    match &forward.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if forward.upgrade_configs.iter().any(ends) => {
            Some(name.clone())
        }
        _ => None,
    }
}

/// A filter at the end of tunnels: what it finds out is known of every connection anyway.
fn http_step(filter: &hcm::HttpFilter, notes: &mut Notes) -> Result<(), Refused> {
    let Some(hcm::http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return Err(Refused::new("must be set")
            .under("typed_config")
            .under(&filter.name));
    };
    let kind = typed::open(config).key(&filter.name)?.name;
    match kind.as_str() {
        "io.istio.http.peer_metadata.Config" | "envoy.extensions.filters.http.router.v3.Router" => {
            Ok(())
        }
        "envoy.extensions.filters.http.set_filter_state.v3.Config" => {
            let state: http_state::Config = typed::unpack_whole(config).key(&filter.name)?;
            let known = filter_state::known(state.on_request_headers, notes);
            known.at("on_request_headers").key(&filter.name)
        }
        other => {
            let reason = format!("{other} isn't served at the end of tunnels");
            Err(Refused::new(reason)).key(&filter.name)
        }
    }
}
