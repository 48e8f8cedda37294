//! What a dump doesn't show: the fields that Envoy's own files mark as sensitive (keys, passwords),
//! wherever in a resource they stand. A dump is asked for by `istioctl bug-report`, and is pasted into
//! issues.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::source::json::Descriptors;

/// What stands in the place of a secret, in Envoy's words.
const INSTEAD: &str = "[redacted]";
/// The option of a field that must not be shown.
const SENSITIVE: &str = "udpa.annotations.sensitive";
/// Takes everything out of a message's JSON that isn't for showing. The message says itself of which
/// type it is.
pub(super) fn redact(descriptors: &Descriptors, json: &mut Value) {
    let typed = json.get("@type").and_then(Value::as_str);
    let descriptor = typed.and_then(|url| descriptors.message_type(url));
    if let (Some(descriptor), Value::Object(fields)) = (descriptor, json) {
        message(descriptors, &descriptor, fields, false);
    }
}

/// Looks through a message's fields; `secret` where it is one as a whole.
fn message(
    descriptors: &Descriptors,
    descriptor: &MessageDescriptor,
    fields: &mut Map<String, Value>,
    secret: bool,
) {
    for field in descriptor.fields() {
        let secret = secret || is_sensitive(&field);
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        match fields.get_mut(field.name()) {
            Some(Value::Object(values)) if field.is_map() => {
                let values = values.values_mut();
                values.for_each(|one| value(descriptors, &kind, one, secret));
            }
            Some(Value::Array(values)) if field.is_list() => {
                let values = values.iter_mut();
                values.for_each(|one| value(descriptors, &kind, one, secret));
            }
            Some(one) => value(descriptors, &kind, one, secret),
            None => {}
        }
    }
}

fn value(descriptors: &Descriptors, kind: &Kind, json: &mut Value, secret: bool) {
    match (kind, json) {
        (Kind::Message(any), json) if any.full_name() == "google.protobuf.Any" => match secret {
            true => *json = INSTEAD.into(),
            false => redact(descriptors, json),
        },
        // Those of protobuf itself have a JSON of their own, and no fields in it.
        (Kind::Message(own), json) if is_protobufs(own) && secret => *json = INSTEAD.into(),
        (Kind::Message(own), _) if is_protobufs(own) => {}
        (Kind::Message(inner), Value::Object(fields)) => {
            message(descriptors, inner, fields, secret);
        }
        (Kind::Bytes, json) if secret => *json = STANDARD.encode(INSTEAD).into(),
        (_, json) if secret => *json = INSTEAD.into(),
        _ => {}
    }
}

fn is_protobufs(descriptor: &MessageDescriptor) -> bool {
    descriptor.full_name().starts_with("google.protobuf.")
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let mut marks = options.extensions();
    marks.any(|(mark, value)| mark.full_name() == SENSITIVE && value.as_bool() == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(mut json: Value) -> Value {
        redact(&Descriptors::get(), &mut json);
        json
    }

    #[test]
    fn keys_are_not_shown_wherever_they_stand() {
        const TLS: &str =
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        let listener = |key: &str, bytes: &str| {
            json!({
                "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                "name": "in",
                "filter_chains": [{"transport_socket": {"name": "tls", "typed_config": {
                    "@type": TLS,
                    "common_tls_context": {"tls_certificates": [{
                        "certificate_chain": {"inline_string": "public"},
                        "private_key": {"inline_string": key},
                        "password": {"inline_bytes": bytes},
                    }]},
                    "session_ticket_keys": {"keys": [{"inline_string": key}]},
                }}}],
            })
        };
        let hidden = listener(INSTEAD, &STANDARD.encode(INSTEAD));
        assert_eq!(shown(listener("secret", "c2VjcmV0")), hidden);
    }
}
