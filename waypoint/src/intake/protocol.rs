//! Options of HTTP/1 and HTTP/2 towards clients →
//! [`model::http`](crate::model::http).

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;

use super::error::{Refused, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::http::{Http1Options, Http2Options};
use crate::unserved;

/// HTTP/1.
///
/// # Errors
/// It asks for something that would change what requests are let in.
pub(super) fn http1(
    options: core::Http1ProtocolOptions,
    notes: &mut Notes,
) -> Result<Http1Options, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let core::Http1ProtocolOptions {
        allow_absolute_url: _,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = options;
    unserved!(notes, "Http1ProtocolOptions":
        default_host_for_http_10, enable_trailers, override_stream_error_on_invalid_http_message,
        send_fully_qualified_url, use_balsa_parser, allow_custom_methods, ignore_http_11_upgrade);
    Ok(Http1Options {
        accept_http10: accept_http_10,
        keep_case: keep_case(header_key_format, notes),
        allow_chunked_length,
    })
}

/// Whether the case of header names is kept, on either side of the proxy.
pub(super) fn keep_case(
    format: Option<core::http1_protocol_options::HeaderKeyFormat>,
    notes: &mut Notes,
) -> bool {
    use core::http1_protocol_options::header_key_format::HeaderFormat;

    match format.and_then(|format| format.header_format) {
        None => false,
        Some(HeaderFormat::StatefulFormatter(extension)) => {
            let config = extension.typed_config.unwrap_or_default();
            let known = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
            if typed::name(&config) != known {
                notes.count(
                    typed::name(&config),
                    "the case of header names is kept or lower",
                );
            }
            typed::name(&config) == known
        }
        Some(HeaderFormat::ProperCaseWords(_)) => {
            notes.count(
                "HeaderKeyFormat.proper_case_words",
                "the case is kept instead",
            );
            true
        }
    }
}

/// HTTP/2.
///
/// # Errors
/// A PING's pause is none.
pub(super) fn http2(
    options: core::Http2ProtocolOptions,
    notes: &mut Notes,
) -> Result<Http2Options, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = options;
    unserved!(notes, "Http2ProtocolOptions":
        hpack_table_size, allow_metadata, max_outbound_frames, max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message,
        custom_settings_parameters, use_oghttp2_codec, max_metadata_size, enable_huffman_encoding,
        max_header_field_size_kb, disallow_obs_text, stream_reset_burst, stream_reset_rate);
    Ok(Http2Options {
        max_streams: plain::number(max_concurrent_streams).filter(|streams| *streams > 0),
        stream_window: plain::number(initial_stream_window_size),
        connection_window: plain::number(initial_connection_window_size),
        allow_connect,
        keepalive: match connection_keepalive {
            None => None,
            Some(settings) => {
                use super::error::At as _;
                keepalive(settings).at("connection_keepalive")?
            }
        },
    })
}

/// PINGs: the pause, and how long an answer may take; none where there is no pause.
///
/// # Errors
/// One of them is negative, or the second isn't there.
pub(super) fn keepalive(
    settings: core::KeepaliveSettings,
) -> Result<Option<(Duration, Duration)>, Refused> {
    let core::KeepaliveSettings {
        interval,
        timeout,
        interval_jitter: _,
        connection_idle_interval: _,
    } = settings;
    let timeout = need(plain::limit(timeout, "timeout")?, "timeout")?;
    Ok(plain::limit(interval, "interval")?.map(|interval| (interval, timeout)))
}
