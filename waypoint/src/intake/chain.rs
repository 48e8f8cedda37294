//! Envoy's filter chains → [`model::listener::Chain`](crate::model::listener::Chain): TLS, the
//! network filters in their order, and HTTP or TCP at the end. Compiled chains are kept by the hash
//! of their bytes, so that a change of one service's routes compiles that service's chain only. A
//! chain that can't be compiled keeps its last good version, or else lets nobody pass ([`refused`]).

mod refused;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as state;
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;
use xxhash_rust::xxh64::xxh64;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{authz, filter_state, http, plain, rbac, tcp, tls, typed};
use crate::model::listener::{Chain, ChainKind, Guard};
use crate::unserved;

/// How long TLS may take where the chain doesn't say.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Chains as they were compiled last, by listener and by the hash of their bytes. A listener's
/// chains that it doesn't have any more are forgotten when it is compiled again.
#[derive(Debug, Default)]
pub struct ChainCache {
    listeners: HashMap<Box<str>, HashMap<Hash, Arc<Chain>>>,
}

/// Two hashes of 64 bits: chains are mistaken for each other about never.
type Hash = (u64, u64);

/// The chains of one listener while it is compiled.
pub(super) struct Compiling<'a> {
    cache: &'a mut ChainCache,
    listener: &'a str,
    now: HashMap<Hash, Arc<Chain>>,
    refused: Vec<Refused>,
}

impl ChainCache {
    /// Forgets a listener that is gone.
    pub fn forget(&mut self, listener: &str) {
        self.listeners.remove(listener);
    }

    /// How many chains are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listeners.values().map(HashMap::len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins to compile a listener.
    pub(super) fn begin<'a>(&'a mut self, listener: &'a str) -> Compiling<'a> {
        Compiling {
            cache: self,
            listener,
            now: HashMap::new(),
            refused: Vec::new(),
        }
    }
}

impl Compiling<'_> {
    /// Compiles a chain, or takes the one that was compiled from the same bytes.
    pub(super) fn chain(
        &mut self,
        chain: &envoy::FilterChain,
        notes: &mut Notes,
    ) -> Result<Arc<Chain>, Refused> {
        let bytes = chain.encode_to_vec();
        let hash = (xxh64(&bytes, 0), xxh64(&bytes, 0x6375_6c76_6572_7400));
        let before = self.cache.listeners.get(self.listener);
        let compiled = match before.and_then(|chains| chains.get(&hash)) {
            Some(known) => known.clone(),
            None => Arc::new(compile(chain.clone(), notes)?),
        };
        self.now.insert(hash, compiled.clone());
        Ok(compiled)
    }

    /// What stands in for a chain that was refused: its last good version, which its name tells,
    /// or else a chain that lets nobody pass. The listener's other chains are served.
    pub(super) fn instead(&mut self, chain: envoy::FilterChain, refused: Refused) -> Arc<Chain> {
        self.refused.push(refused);
        let before = self.cache.listeners.get(self.listener);
        let mut named = before.into_iter().flatten();
        let good = named.find(|(_, known)| !chain.name.is_empty() && *known.name == *chain.name);
        match good {
            Some((hash, good)) => {
                // Under the hash of what it was made of: the refused bytes stay refused.
                self.now.insert(*hash, good.clone());
                good.clone()
            }
            None => Arc::new(refused::chain(chain)),
        }
    }

    /// The listener is compiled: what it doesn't have any more is forgotten. Gives the chains that
    /// were refused. Where the listener was refused, this isn't called, and what is in force stays
    /// known.
    pub(super) fn end(self) -> Vec<Refused> {
        self.cache.listeners.insert(self.listener.into(), self.now);
        self.refused
    }
}

/// What network filters before the last one came to.
#[derive(Default)]
struct Before {
    guards: Vec<Guard>,
    stats: bool,
}

fn compile(chain: envoy::FilterChain, notes: &mut Notes) -> Result<Chain, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let envoy::FilterChain {
        filter_chain_match: _,
        filters,
        use_proxy_proto,
        metadata: _,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = chain;
    let use_proxy_proto = plain::on(use_proxy_proto);
    unserved!(notes, "FilterChain": use_proxy_proto);
    let tls = match transport_socket {
        None => None,
        Some(socket) => tls::server_socket(socket, notes).at("transport_socket")?,
    };
    let timeout = "transport_socket_connect_timeout";
    let mut before = Before::default();
    let mut kind = None;
    for (index, filter) in filters.into_iter().enumerate() {
        let name = filter.name.clone();
        if kind.is_some() {
            let reason = "stands behind the filter that ends the chain";
            return Err(Refused::new(reason)).item(index).at("filters");
        }
        kind = self::filter(filter, &mut before, notes)
            .key(&name)
            .at("filters")?;
    }
    Ok(Chain {
        name: name.into(),
        tls,
        handshake_timeout: plain::limit(transport_socket_connect_timeout, timeout)?
            .unwrap_or(HANDSHAKE),
        guards: before.guards,
        stats: before.stats,
        kind: kind.ok_or_else(|| {
            let reason = "ends in neither HTTP nor TCP";
            Refused::new(reason).under("filters")
        })?,
    })
}

fn filter(
    filter: envoy::Filter,
    before: &mut Before,
    notes: &mut Notes,
) -> Result<Option<ChainKind>, Refused> {
    use envoy::filter::ConfigType;

    let envoy::Filter {
        name: _,
        config_type,
    } = filter;
    match need(config_type, "typed_config")? {
        ConfigType::TypedConfig(config) => typed_filter(&config, before, notes).at("typed_config"),
        ConfigType::ConfigDiscovery(source) => {
            let kinds = source.type_urls.join(", ");
            let reason = format!("filters that come by discovery aren't served: {kinds}");
            Err(Refused::new(reason).under("config_discovery"))
        }
    }
}

fn typed_filter(
    config: &Any,
    before: &mut Before,
    notes: &mut Notes,
) -> Result<Option<ChainKind>, Refused> {
    let kind = typed::open(config)?.name;
    match kind.as_str() {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let chain = http::chain(typed::unpack(config, notes)?, notes)?;
            Ok(Some(ChainKind::Http(Arc::new(chain))))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let chain = tcp::chain(typed::unpack(config, notes)?, notes)?;
            Ok(Some(ChainKind::Tcp(Arc::new(chain))))
        }
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let rbac = rbac::network(typed::unpack_whole(config)?, notes)?;
            before.guards.push(Guard::Rbac(Arc::new(rbac)));
            Ok(None)
        }
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
            let filter = authz::network(typed::unpack_whole(config)?, notes)?;
            before.guards.push(Guard::ExtAuthz(Arc::new(filter)));
            Ok(None)
        }
        "stats.PluginConfig" => {
            super::stats::of(config, notes)?;
            before.stats = true;
            Ok(None)
        }
        // Who the peers are is known from the tunnel and from the workloads.
        "envoy.tcp.metadataexchange.config.MetadataExchange"
        | "io.istio.network.peer_metadata.Config"
        | "io.istio.network.peer_metadata.UpstreamConfig" => Ok(None),
        // They only count what goes by.
        "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy"
        | "envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy"
        | "envoy.extensions.filters.network.kafka_broker.v3.KafkaBroker"
        | "envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy" => {
            notes.count(
                kind,
                "bytes pass as they are, and its statistics aren't kept",
            );
            Ok(None)
        }
        "envoy.extensions.filters.network.set_filter_state.v3.Config" => {
            let state::Config {
                on_new_connection,
                on_downstream_tls_handshake,
                on_downstream_data,
            } = typed::unpack_whole(config)?;
            filter_state::known(on_new_connection, notes).at("on_new_connection")?;
            filter_state::known(on_downstream_tls_handshake, notes)
                .at("on_downstream_tls_handshake")?;
            filter_state::known(on_downstream_data, notes).at("on_downstream_data")?;
            Ok(None)
        }
        _ => Err(Refused::new(format!(
            "the filter {kind} is not served, and without it connections could pass or go where \
             they must not"
        ))),
    }
}

#[cfg(test)]
mod tests;
