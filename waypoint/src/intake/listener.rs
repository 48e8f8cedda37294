//! Envoy's `Listener` → [`model::listener`](crate::model::listener). istiod's graph of internal
//! listeners is recognised: `connect_terminate` becomes the tunnel's end, `main_internal` the choice
//! of chains, and what opens tunnels (`connect_originate` and its two companions for other networks)
//! is checked for the shape that `upstream` has built in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;

use super::chain::{ChainCache, Compiling};
use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{log, matcher, plain, ports, tunnel, typed};
use crate::model::listener::{
    Chain, ChainMatch, Choose, Detect, Direction, Dispatch, Listener, ListenerKind, SocketListener,
};
use crate::unserved;

/// Envoy's limit to finding out what a connection is, and what no limit means here.
const DETECT: Duration = Duration::from_secs(15);
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// A listener; none where it is a step towards upstream tunnels, which `upstream` takes by itself.
/// A filter chain that is bad doesn't refuse its listener: it is named in the compiled listener, and
/// keeps its last good version or lets nobody pass.
///
/// # Errors
/// Anything else in it is bad; the listener is named.
pub fn resource(
    listener: envoy::Listener,
    notes: &mut Notes,
    cache: &mut ChainCache,
) -> Result<Option<Listener>, Refused> {
    let name = listener.name.clone();
    let mut chains = cache.begin(&name);
    let mut compiled = compile(listener, notes, &mut chains).of("Listener", &name)?;
    let refused = chains.end();
    if let Some(compiled) = &mut compiled {
        let told = |refused| Err::<(), _>(refused).of("Listener", &name).err();
        let told = refused.into_iter().filter_map(told);
        compiled.refused = told.map(|refused| refused.to_string()).collect();
    }
    Ok(compiled)
}

fn compile(
    listener: envoy::Listener,
    notes: &mut Notes,
    compiling: &mut Compiling<'_>,
) -> Result<Option<Listener>, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let envoy::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix: _,
        stats_matcher: _,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes: _,
        per_connection_buffer_high_watermark_timeout: _,
        metadata: _,
        deprecated_v1,
        drain_type: _,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout: _,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config: _,
        reuse_port: _,
        enable_reuse_port: _,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event: _,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = listener;
    let (transparent, freebind) = (plain::on(transparent), plain::on(freebind));
    let use_original_dst = plain::on(use_original_dst);
    unserved!(notes, "Listener":
        fcds_config, deprecated_v1, transparent, freebind, socket_options, use_original_dst,
        tcp_fast_open_queue_length, udp_listener_config, api_listener, tcp_backlog_size,
        enable_mptcp, ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive);
    if name.is_empty() {
        return Err(Refused::new("must not be empty").under("name"));
    }
    let internal = listener_specifier.is_some();
    if internal && originates(&filter_chains) {
        tunnel::originate(&name, filter_chains, notes)?;
        return Ok(None);
    }
    let direction = match core::TrafficDirection::try_from(traffic_direction) {
        Ok(core::TrafficDirection::Inbound) => Direction::Inbound,
        Ok(core::TrafficDirection::Outbound) => Direction::Outbound,
        Ok(core::TrafficDirection::Unspecified) | Err(_) => Direction::Unspecified,
    };
    let access_logs = log::logs(access_log, notes)?;
    let looks = looks(listener_filters, notes)?;
    let kind = match internal {
        true => None,
        false => {
            if !plain::on_or(bind_to_port, true) {
                let reason = "a listener without a socket is an internal one";
                return Err(Refused::new(reason).under("bind_to_port"));
            }
            Some(addresses(address, additional_addresses)?)
        }
    };
    let ends = match &kind {
        None => None,
        Some(addresses) => tunnel::terminate(&filter_chains, addresses, notes)?,
    };
    if let Some(tunnel) = ends {
        return Ok(Some(Listener {
            name: name.into(),
            kind: ListenerKind::Tunnel(tunnel),
            access_logs,
            refused: Box::default(),
            direction,
        }));
    }
    let timeout = plain::maybe_duration(listener_filters_timeout, "listener_filters_timeout")?;
    let dispatch = Dispatch {
        detect_timeout: match timeout {
            None => DETECT,
            Some(Duration::ZERO) => FOR_EVER,
            Some(timeout) => timeout,
        },
        detect: looks.detect,
        ..dispatch(
            filter_chains,
            default_filter_chain,
            filter_chain_matcher,
            notes,
            compiling,
        )?
    };
    Ok(Some(Listener {
        name: name.into(),
        kind: match kind {
            None => ListenerKind::Internal(dispatch),
            Some(addresses) => ListenerKind::Socket(SocketListener {
                addresses,
                dispatch,
                proxy_protocol: looks.proxy_protocol,
                max_connections: None,
            }),
        },
        access_logs,
        refused: Box::default(),
        direction,
    }))
}

fn addresses(
    first: Option<envoy_types::pb::envoy::config::core::v3::Address>,
    more: Vec<envoy::AdditionalAddress>,
) -> Result<Vec<std::net::SocketAddr>, Refused> {
    let mut addresses = vec![plain::socket_address(first).at("address")?];
    addresses.extend(each("additional_addresses", more, |more| {
        let envoy::AdditionalAddress {
            address,
            socket_options: _,
            tcp_keepalive: _,
        } = more;
        plain::socket_address(address).at("address")
    })?);
    Ok(addresses)
}

/// Whether every chain opens a tunnel: a listener that stands behind clusters.
fn originates(chains: &[envoy::FilterChain]) -> bool {
    let opens = |chain: &envoy::FilterChain| {
        let config = chain.filters.last().and_then(tunnel::config);
        let proxy: Option<tcp_proxy::TcpProxy> =
            config.and_then(|config| typed::unpack(config, &mut Notes::default()).ok());
        proxy.is_some_and(|proxy| proxy.tunneling_config.is_some())
    };
    !chains.is_empty() && chains.iter().all(opens)
}

/// What listener filters look at.
#[derive(Default)]
struct Looks {
    detect: Detect,
    proxy_protocol: bool,
}

fn looks(filters: Vec<envoy::ListenerFilter>, notes: &mut Notes) -> Result<Looks, Refused> {
    let mut looks = Looks::default();
    for (index, filter) in filters.into_iter().enumerate() {
        look(filter, &mut looks, notes)
            .item(index)
            .at("listener_filters")?;
    }
    Ok(looks)
}

fn look(
    filter: envoy::ListenerFilter,
    looks: &mut Looks,
    notes: &mut Notes,
) -> Result<(), Refused> {
    use envoy::listener_filter::ConfigType;

    let envoy::ListenerFilter {
        name: _,
        filter_disabled,
        config_type,
    } = filter;
    let ConfigType::TypedConfig(config) = need(config_type, "typed_config")? else {
        let reason = "listener filters stand in the configuration";
        return Err(Refused::new(reason).under("config_discovery"));
    };
    let off = match filter_disabled {
        None => Vec::new(),
        Some(predicate) => ports::of(predicate, 0).at("filter_disabled")?,
    };
    let kind = typed::open(&config).at("typed_config")?.name;
    let kind = kind
        .strip_prefix("envoy.extensions.filters.listener.")
        .unwrap_or(&kind);
    match kind {
        "http_inspector.v3.HttpInspector" => {
            looks.detect.http = off != ports::all();
            looks.detect.not_http = off;
        }
        "tls_inspector.v3.TlsInspector" => {
            looks.detect.tls = off != ports::all();
            looks.detect.not_tls = off;
        }
        // Where a stream goes is what its tunnel's authority says.
        "original_dst.v3.OriginalDst" => {}
        "proxy_protocol.v3.ProxyProtocol" => {
            let ProxyProtocol {
                rules,
                allow_requests_without_proxy_protocol,
                pass_through_tlvs,
                disallowed_versions,
                stat_prefix: _,
                tlv_location: _,
            } = typed::unpack_whole(&config).at("typed_config")?;
            unserved!(notes, "ProxyProtocol":
                rules, allow_requests_without_proxy_protocol, pass_through_tlvs,
                disallowed_versions);
            looks.proxy_protocol = true;
        }
        other => {
            let reason = format!("the listener filter {other} is not served");
            return Err(Refused::new(reason).under("typed_config"));
        }
    }
    Ok(())
}

fn dispatch(
    chains: Vec<envoy::FilterChain>,
    default: Option<envoy::FilterChain>,
    tree: Option<envoy_types::pb::xds::r#type::matcher::v3::Matcher>,
    notes: &mut Notes,
    compiling: &mut Compiling<'_>,
) -> Result<Dispatch, Refused> {
    let field = "default_filter_chain";
    let default = default.map(|chain| {
        let compiled = compiling.chain(&chain, notes).at(field);
        compiled.unwrap_or_else(|refused| compiling.instead(chain, refused))
    });
    if chains.is_empty() && default.is_none() {
        let reason = "has none, so that it would take no connection at all";
        return Err(Refused::new(reason).under("filter_chains"));
    }
    let mut compiled: Vec<Arc<Chain>> = Vec::with_capacity(chains.len());
    let mut conditions: Vec<(ChainMatch, Arc<Chain>)> = Vec::new();
    for (index, chain) in chains.into_iter().enumerate() {
        let name = chain.name.clone();
        let here = |refused: Refused| {
            let inner = match name.is_empty() {
                true => format!("[{index}]"),
                false => format!("[{name:?}]"),
            };
            refused.under(&inner).under("filter_chains")
        };
        // Who a chain takes must be known of a refused one too: its place is closed to others.
        let when = chain.filter_chain_match.clone().unwrap_or_default();
        let when = matcher::conditions(when, notes).at("filter_chain_match");
        let when = when.map_err(here)?;
        let chain = match compiling.chain(&chain, notes).map_err(here) {
            Ok(compiled) => compiled,
            Err(refused) => compiling.instead(chain, refused),
        };
        conditions.extend(when.into_iter().map(|when| (when, chain.clone())));
        compiled.push(chain);
    }
    let choose = match tree {
        None => Choose::Conditions(ordered(conditions)?),
        Some(tree) => {
            let chains = by_name(&compiled)?;
            Choose::Tree(matcher::tree(tree, &chains, 0, notes).at("filter_chain_matcher")?)
        }
    };
    Ok(Dispatch {
        chains: compiled,
        choose,
        default,
        detect: Detect::default(),
        detect_timeout: DETECT,
    })
}

/// Most specific first. Two chains with the same conditions are refused, as Envoy does.
fn ordered(
    mut conditions: Vec<(ChainMatch, Arc<Chain>)>,
) -> Result<Vec<(ChainMatch, Arc<Chain>)>, Refused> {
    for (index, (condition, chain)) in conditions.iter().enumerate() {
        if let Some((_, other)) = conditions[..index]
            .iter()
            .find(|(other, _)| other == condition)
        {
            let reason = format!(
                "the chains {:?} and {:?} have the same conditions, so that one is never chosen",
                other.name, chain.name
            );
            return Err(Refused::new(reason).under("filter_chains"));
        }
    }
    conditions.sort_by_cached_key(|(condition, _)| matcher::specificity(condition));
    Ok(conditions)
}

/// A tree chooses by names, so that each chain has its own.
fn by_name(chains: &[Arc<Chain>]) -> Result<matcher::Chains, Refused> {
    let mut names = HashMap::with_capacity(chains.len());
    for (index, chain) in chains.iter().enumerate() {
        let reason = match chain.name.is_empty() {
            true => "has no name, by which the tree could choose it".to_owned(),
            false => format!("{:?} is another chain's name too", chain.name),
        };
        let known = names.insert(chain.name.clone(), chain.clone());
        if chain.name.is_empty() || known.is_some() {
            return Err(Refused::new(reason)).item(index).at("filter_chains");
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
