//! HTTP towards a cluster: `HttpProtocolOptions`, or the older fields of the cluster itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use super::outlier;
use crate::intake::error::{At as _, Refused};
use crate::intake::served::Notes;
use crate::intake::{plain, protocol, typed};
use crate::model::cluster::{Statuses, Transport, UpstreamHttp, UpstreamProtocol};
use crate::unserved;

/// Where the options stand.
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// A connection without requests is closed after this, unless said.
const IDLE: Duration = Duration::from_secs(3600);
/// The cluster's own fields, which count where there are no options.
pub(super) struct Older {
    pub(super) upstream: Option<core::UpstreamHttpProtocolOptions>,
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) http1: Option<core::Http1ProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) downstream: bool,
    pub(super) max_requests: Option<u32>,
}

/// What TLS takes from the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Auto {
    sni: bool,
    san: bool,
}

/// Options whichever way they were written.
struct Options {
    upstream: core::UpstreamHttpProtocolOptions,
    common: core::HttpProtocolOptions,
    protocol: UpstreamProtocol,
    http1: core::Http1ProtocolOptions,
    http2: core::Http2ProtocolOptions,
    /// Statuses that outlier detection takes for errors.
    errors: Option<Statuses>,
}

pub(super) fn upstream(
    extensions: HashMap<String, Any>,
    older: Older,
    notes: &mut Notes,
) -> Result<(UpstreamHttp, Auto, Option<Statuses>), Refused> {
    let most = older.max_requests;
    let options = match super::extension(extensions, OPTIONS, notes) {
        Some(any) => newer(typed::unpack(&any, notes)?, notes)?,
        None => older.options(),
    };
    let core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        override_auto_sni_header,
    } = options.upstream;
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = options.common;
    unserved!(notes, "upstreams.HttpProtocolOptions":
        override_auto_sni_header, max_connection_duration_jitter, max_headers_count,
        max_response_headers_kb, max_stream_duration, headers_with_underscores_action);
    let max_requests = plain::number(max_requests_per_connection).or(most);
    let http1 = protocol::http1(options.http1, notes).at("http_protocol_options")?;
    let http2 = protocol::http2(options.http2, notes).at("http2_protocol_options")?;
    let http = UpstreamHttp {
        protocol: options.protocol,
        idle: plain::limit_or(idle_timeout, IDLE, "idle_timeout")?,
        max_duration: plain::limit(max_connection_duration, "max_connection_duration")?,
        max_requests: max_requests.filter(|most| *most > 0),
        max_streams: http2.max_streams,
        keepalive: http2.keepalive,
        keep_case: http1.keep_case,
        auto_sni,
    };
    let auto = Auto {
        sni: auto_sni,
        san: auto_san_validation,
    };
    Ok((http, auto, options.errors))
}

/// The options of an extension.
fn newer(options: pb::HttpProtocolOptions, notes: &mut Notes) -> Result<Options, Refused> {
    use pb::http_protocol_options as way;
    use way::UpstreamProtocolOptions as Way;
    use way::explicit_http_config::ProtocolConfig;
    let pb::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = options;
    // Upstream filters of which only the one that ends them does anything.
    let http_filters: Vec<_> = http_filters
        .into_iter()
        .filter(|filter| filter.name != "envoy.filters.http.upstream_codec")
        .collect();
    unserved!(notes, "upstreams.HttpProtocolOptions":
        http_filters, header_validation_config, request_mirror_policies, hash_policy,
        retry_policy);
    let matcher = outlier_detection.and_then(|detection| detection.error_matcher);
    let errors = matcher.as_ref().map(outlier::errors).transpose();
    let (protocol, http1, http2) = match upstream_protocol_options {
        None => (UpstreamProtocol::Http1, None, None),
        Some(Way::ExplicitHttpConfig(way::ExplicitHttpConfig { protocol_config })) => {
            match protocol_config {
                None => (UpstreamProtocol::Http1, None, None),
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                    (UpstreamProtocol::Http1, Some(http1), None)
                }
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    (UpstreamProtocol::Http2, None, Some(http2))
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    let reason = "HTTP/3 isn't spoken";
                    return Err(Refused::new(reason).under("http3_protocol_options"));
                }
            }
        }
        Some(Way::UseDownstreamProtocolConfig(way::UseDownstreamHttpConfig {
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
        })) => {
            unserved!(notes, "upstreams.HttpProtocolOptions": http3_protocol_options);
            let protocol = UpstreamProtocol::Downstream;
            (protocol, http_protocol_options, http2_protocol_options)
        }
        Some(Way::AutoConfig(way::AutoHttpConfig {
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
            alternate_protocols_cache_options,
        })) => {
            unserved!(notes, "upstreams.HttpProtocolOptions":
                http3_protocol_options, alternate_protocols_cache_options);
            let protocol = UpstreamProtocol::Alpn;
            (protocol, http_protocol_options, http2_protocol_options)
        }
    };
    Ok(Options {
        upstream: upstream_http_protocol_options.unwrap_or_default(),
        common: common_http_protocol_options.unwrap_or_default(),
        protocol,
        http1: http1.unwrap_or_default(),
        http2: http2.unwrap_or_default(),
        errors: errors.at("outlier_detection.error_matcher")?,
    })
}

impl Older {
    fn options(self) -> Options {
        let Self {
            upstream,
            common,
            http1,
            http2,
            downstream,
            max_requests: _,
        } = self;
        let protocol = match (downstream, &http2) {
            (true, _) => UpstreamProtocol::Downstream,
            (false, Some(_)) => UpstreamProtocol::Http2,
            (false, None) => UpstreamProtocol::Http1,
        };
        Options {
            upstream: upstream.unwrap_or_default(),
            common: common.unwrap_or_default(),
            protocol,
            http1: http1.unwrap_or_default(),
            http2: http2.unwrap_or_default(),
            errors: None,
        }
    }
}

impl Auto {
    /// Has TLS take its names from the request.
    pub(super) fn apply(self, transport: &mut Transport) {
        match transport {
            Transport::Plain => {}
            Transport::Tls(tls) if self.sni || self.san => {
                let tls = Arc::make_mut(tls);
                tls.auto_sni |= self.sni;
                tls.auto_san |= self.san;
            }
            Transport::Tls(_) => {}
            Transport::ProxyProtocol(_, inner) | Transport::Tunnel(inner) => self.apply(inner),
        }
    }
}
