//! Transport sockets → how an endpoint is reached.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3 as internal;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3 as proxy;

use crate::intake::error::{At as _, Refused, need};
use crate::intake::served::Notes;
use crate::intake::{tls, typed};
use crate::model::cluster::Transport;
use crate::unserved;

/// The transport that a socket means; none is plain.
pub(super) fn transport(
    socket: Option<core::TransportSocket>,
    notes: &mut Notes,
) -> Result<Transport, Refused> {
    let Some(socket) = socket else {
        return Ok(Transport::Plain);
    };
    let config = tls::socket(socket)?;
    let name = typed::name(&config);
    let kind = name.rsplit_once('.').map_or(name, |(_, kind)| kind);
    match kind {
        "RawBuffer" => Ok(Transport::Plain),
        "UpstreamTlsContext" => {
            let context = typed::unpack_whole(&config).at("typed_config")?;
            let tls = tls::client(context, notes).at("typed_config")?;
            Ok(Transport::Tls(Arc::new(tls)))
        }
        // The metadata that is passed on is what istiod's graph of listeners needs, which is
        // compiled away: endpoints know themselves where their tunnel ends.
        "InternalUpstreamTransport" => {
            let internal::InternalUpstreamTransport {
                passthrough_metadata: _,
                transport_socket,
            } = typed::unpack_whole(&config).at("typed_config")?;
            let inner = need(transport_socket, "transport_socket").at("typed_config")?;
            transport(Some(inner), notes).at("typed_config.transport_socket")
        }
        "ProxyProtocolUpstreamTransport" => {
            let proxy::ProxyProtocolUpstreamTransport {
                config: header,
                transport_socket,
                allow_unspecified_address,
                tlv_as_pool_key,
            } = typed::unpack_whole(&config).at("typed_config")?;
            let core::ProxyProtocolConfig {
                version,
                pass_through_tlvs,
                added_tlvs,
            } = header.unwrap_or_default();
            unserved!(notes, "ProxyProtocolUpstreamTransport":
                pass_through_tlvs, added_tlvs, allow_unspecified_address, tlv_as_pool_key);
            let version = match core::proxy_protocol_config::Version::try_from(version) {
                Ok(core::proxy_protocol_config::Version::V1) => 1,
                Ok(core::proxy_protocol_config::Version::V2) => 2,
                Err(_) => {
                    let reason = format!("{version} is no version of the PROXY protocol");
                    return Err(Refused::new(reason).under("typed_config.config.version"));
                }
            };
            let inner = need(transport_socket, "transport_socket").at("typed_config")?;
            let inner = transport(Some(inner), notes).at("typed_config.transport_socket")?;
            Ok(Transport::ProxyProtocol(version, Box::new(inner)))
        }
        _ => {
            let reason = format!("{name} is no transport that is served");
            Err(Refused::new(reason).under("typed_config"))
        }
    }
}
