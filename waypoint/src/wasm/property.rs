//! What a plugin may look at by a path of names: what it is called itself, who the proxy is, the heads
//! of a stream's messages, and what else is known of the stream. As bytes, in the way in which Envoy
//! gives them: texts as they are, numbers in eight bytes, the least first, maps as pairs.

use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message as _;
use serde_json::Value;

use super::map::{Map, pairs_to_bytes};
use super::state::{State, Stream};
use crate::proto::structs;

/// Values that the plugins of one stream may write down.
pub const MOST_KEPT: usize = 256;
/// The bytes of all of them, with their paths.
pub const MOST_KEPT_BYTES: usize = 256 << 10;

/// A value by its path, whose parts have zeros between them.
pub(super) fn of(state: &mut State, path: &[u8]) -> Option<Vec<u8>> {
    let settings = state.settings.clone();
    let proxy = state.shared.node.clone();
    let stream = state.stream();
    let known = stream.as_ref().and_then(|stream| stream.known.upgrade());
    if let Some(value) = known.as_ref().and_then(|known| known.kept(path)) {
        return Some(value);
    }
    let text = std::str::from_utf8(path).ok()?;
    let parts: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
    match &*parts {
        ["plugin_name"] => Some(settings.name.as_bytes().to_vec()),
        ["plugin_root_id"] => Some(settings.root_id.as_bytes().to_vec()),
        ["plugin_vm_id"] => Some(settings.vm_id.as_bytes().to_vec()),
        ["xds", "node", field @ ..] | ["node", field @ ..] => node(&proxy, field),
        parts => heads(stream?, parts).or_else(|| known?.property(parts)),
    }
}

/// Of who the proxy is: a field, or all of it as a message.
fn node(node: &Value, path: &[&str]) -> Option<Vec<u8>> {
    let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
    match path {
        [] => {
            let metadata = node["metadata"].as_object();
            let node = core::Node {
                id: text("id"),
                cluster: text("cluster"),
                metadata: metadata.map(structs::structure),
                user_agent_name: text("user_agent_name"),
                ..core::Node::default()
            };
            Some(node.encode_to_vec())
        }
        [name @ ("id" | "cluster" | "user_agent_name")] => Some(text(name).into_bytes()),
        ["metadata", keys @ ..] => match &node["metadata"] {
            Value::Null => json(&Value::Object(serde_json::Map::new()), keys),
            metadata => json(metadata, keys),
        },
        _ => None,
    }
}

/// Of messages' heads: they may be with the plugin, and nowhere else.
fn heads(stream: &Stream, path: &[&str]) -> Option<Vec<u8>> {
    let (up, down) = (stream.up.headers.as_ref(), stream.down.headers.as_ref());
    let trailers = stream.down.trailers.as_ref();
    let bytes = |map: Option<&Map>| map.map_or(0, Map::size);
    let (message, name) = match path {
        ["request", "headers", name] => (up, *name),
        ["response", "headers", name] => (down, *name),
        ["response", "trailers", name] => (trailers, *name),
        ["request", "headers"] => return all(up),
        ["response", "headers"] => return all(down),
        ["response", "trailers"] => return all(trailers),
        ["request", "headers_bytes"] => return number(bytes(up)),
        ["response", "headers_bytes"] => return number(bytes(down)),
        ["request", "total_size"] => {
            let size = stream.known.upgrade()?.received();
            return number(bytes(up).saturating_add(size));
        }
        ["response", "total_size"] => {
            let size = stream.known.upgrade()?.sent();
            let heads = bytes(down).saturating_add(bytes(trailers));
            return number(heads.saturating_add(size));
        }
        // What the request says of itself, where it does.
        ["request", "size"] => {
            let told = up?.get(b"content-length")?;
            return number(std::str::from_utf8(&told).ok()?.parse().ok()?);
        }
        ["request", "path"] => (up, ":path"),
        ["request", "host"] => (up, ":authority"),
        ["request", "method"] => (up, ":method"),
        ["request", "scheme"] => (up, ":scheme"),
        ["request", "url_path"] => {
            let path = up?.get(b":path")?;
            let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
            return Some(path[..end.unwrap_or(path.len())].to_vec());
        }
        ["request", "referer"] => (up, "referer"),
        ["request", "useragent"] => (up, "user-agent"),
        ["request", "id"] => (up, "x-request-id"),
        _ => return None,
    };
    message?.get(name.as_bytes())
}

fn all(map: Option<&Map>) -> Option<Vec<u8>> {
    map.map(Map::to_bytes)
}

/// A number as plugins are given it.
#[must_use]
pub fn number(number: u64) -> Option<Vec<u8>> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    Some(number.to_le_bytes().to_vec())
}

/// What stands in a value of JSON at the end of a path: keys of objects, places of lists. Objects are
/// pairs, and so are lists, with nothing behind each; null is nothing.
#[must_use]
pub fn json(value: &Value, path: &[&str]) -> Option<Vec<u8>> {
    let found = path.iter().try_fold(value, |value, key| match value {
        Value::Object(fields) => fields.get(*key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    });
    whole(found?)
}

fn whole(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::Bool(is) => Some(vec![(*is).into()]),
        Value::Number(number) => Some(number.as_f64()?.to_le_bytes().to_vec()),
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(whole).collect();
            let items = items?;
            let pairs: Vec<_> = items.iter().map(|item| (&**item, &b""[..])).collect();
            Some(pairs_to_bytes(&pairs))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Option<Vec<_>> = fields
                .map(|(key, value)| Some((key.as_bytes(), whole(value)?)))
                .collect();
            let fields = fields?;
            let pairs: Vec<_> = fields.iter().map(|(key, value)| (*key, &**value)).collect();
            Some(pairs_to_bytes(&pairs))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wasm::map::pairs;

    #[test]
    fn json_is_looked_into_by_keys_and_places() {
        let value = json!({"a": {"b": [1.5, "two", true, null]}, "empty": {}});
        let at = |path: &[&str]| json(&value, path);
        assert_eq!(at(&["a", "b", "0"]).unwrap(), 1.5_f64.to_le_bytes());
        assert_eq!(at(&["a", "b", "1"]).unwrap(), b"two");
        assert_eq!(at(&["a", "b", "2"]).unwrap(), [1]);
        for path in [
            &["a", "b", "3"][..],
            &["a", "b", "4"],
            &["a", "b", "-1"],
            &["a", "c"],
            &["a", "b", "1", "more"],
            // Null in it has no bytes, and so has none of what it is in.
            &["a", "b"],
            &["a"],
        ] {
            assert_eq!(at(path), None, "{path:?}");
        }
        assert_eq!(pairs(&at(&["empty"]).unwrap()), Some(Vec::new()));
        let list = json(&json!(["x", "y"]), &[]).unwrap();
        let expected = [(&b"x"[..], &b""[..]), (b"y", b"")];
        assert_eq!(pairs(&list).unwrap(), expected);
    }

    #[test]
    fn who_the_proxy_is_comes_whole_and_by_fields() {
        let of = json!({
            "id": "waypoint~1", "cluster": "c", "user_agent_name": "culvert-waypoint",
            "metadata": {"LABELS": {"app": "w"}, "NAMESPACE": "default"},
        });
        let at = |path: &[&str]| node(&of, path);
        assert_eq!(at(&["id"]).unwrap(), b"waypoint~1");
        assert_eq!(at(&["metadata", "LABELS", "app"]).unwrap(), b"w");
        let labels = at(&["metadata", "LABELS"]).unwrap();
        assert_eq!(pairs(&labels).unwrap(), [(&b"app"[..], &b"w"[..])]);
        let whole = core::Node::decode(at(&[]).unwrap().as_slice()).unwrap();
        assert_eq!((&*whole.id, &*whole.cluster), ("waypoint~1", "c"));
        assert_eq!(whole.metadata.unwrap().fields.len(), 2);
        assert_eq!(at(&["metadata", "NAME"]), None);
        assert_eq!(at(&["locality"]), None);
        // A proxy without a control plane says little of itself.
        assert_eq!(node(&Value::Null, &["id"]).unwrap(), b"");
        let none = node(&Value::Null, &["metadata"]).unwrap();
        assert_eq!(pairs(&none), Some(Vec::new()));
    }
}
