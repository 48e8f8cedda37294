//! `set_filter_state`, for HTTP and for connections. What istiod writes down with it (who the peer
//! is, where a tunnel's stream goes) is known here of every connection as
//! [`Downstream`](crate::connection::Downstream), so that those values are recognised and dropped.
//! Any other value is refused: policy might rest on it.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as state;

use super::error::{Refused, each, need};
use super::format;
use super::served::Notes;
use crate::unserved;

/// What istiod writes down: the key, and the formats it is written by.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "envoy.filters.listener.original_dst.local_ip",
        &[
            "%REQ(:AUTHORITY)%",
            "%FILTER_STATE(envoy.filters.listener.original_dst.local_ip:PLAIN)%",
            "%DYNAMIC_METADATA(envoy.filters.listener.original_dst:local)%",
        ],
    ),
    (
        "envoy.filters.listener.original_dst.remote_ip",
        &["%DOWNSTREAM_REMOTE_ADDRESS%"],
    ),
    ("io.istio.connect_authority", &["%REQ(:AUTHORITY)%"]),
    ("io.istio.peer_principal", &["%DOWNSTREAM_PEER_URI_SAN%"]),
    ("io.istio.local_principal", &["%DOWNSTREAM_LOCAL_URI_SAN%"]),
    ("io.istio.baggage", &["%REQ(BAGGAGE)%", "%REQ(baggage)%"]),
    (
        "istio.double_hbone.hbone_target_address",
        &["%DYNAMIC_METADATA(istio:double_hbone:hbone_target_address)%"],
    ),
];

/// Recognises what istiod writes down.
///
/// # Errors
/// Something else is written down.
pub(super) fn known(
    values: Vec<state::FilterStateValue>,
    notes: &mut Notes,
) -> Result<(), Refused> {
    each("", values, |value| one(value, notes)).map(|_| ())
}

fn one(value: state::FilterStateValue, notes: &mut Notes) -> Result<(), Refused> {
    use state::filter_state_value::{Key, Value};

    #[expect(deprecated, reason = "every field is decided about")]
    let state::FilterStateValue {
        factory_key: _,
        read_only,
        shared_with_upstream: _,
        skip_if_empty,
        key,
        value,
    } = value;
    unserved!(notes, "FilterStateValue": read_only, skip_if_empty);
    let Key::ObjectKey(key) = need(key, "object_key")?;
    let Value::FormatString(value) = need(value, "format_string")?;
    let format::Source::Text(text) = format::source(value, notes)? else {
        return Err(Refused::new("must be text").under("format_string"));
    };
    let mut known = KNOWN.iter().filter(|(known, _)| *known == key);
    match known.next() {
        Some((_, formats)) if formats.contains(&text.as_str()) => Ok(()),
        Some(_) => {
            let reason = format!("{key} is known to be written by other means than {text:?}");
            Err(Refused::new(reason).under("format_string"))
        }
        None => {
            let reason = format!("{key:?} is none of the values that istiod writes down");
            Err(Refused::new(reason).under("object_key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3 as core;

    use super::*;

    fn value(key: &str, text: &str) -> state::FilterStateValue {
        use core::substitution_format_string::Format::TextFormatSource;

        let source = core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(text.into())),
            ..Default::default()
        };
        state::FilterStateValue {
            key: Some(state::filter_state_value::Key::ObjectKey(key.into())),
            value: Some(state::filter_state_value::Value::FormatString(
                core::SubstitutionFormatString {
                    format: Some(TextFormatSource(source)),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }
    }

    #[test]
    fn istiods_values_are_recognised_and_nobody_else_says_who_the_peer_is() {
        let mut notes = Notes::default();
        let all = KNOWN
            .iter()
            .flat_map(|(key, formats)| formats.iter().map(move |format| value(key, format)));
        known(all.collect(), &mut notes).unwrap();
        assert!(notes.is_empty());
        for (key, text, told) in [
            (
                "io.istio.peer_principal",
                "%REQ(x-user)%",
                "format_string: io.istio.peer",
            ),
            ("mine", "%REQ(x-user)%", "object_key: \"mine\""),
        ] {
            let refused = known(vec![value(key, text)], &mut notes).unwrap_err();
            assert!(refused.to_string().contains(told), "{refused}");
        }
    }
}
