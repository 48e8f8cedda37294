//! Protobuf messages as JSON, by Envoy's descriptors: what a folder of resources holds, and what the
//! admin interface shows. The descriptors take some megabytes, so they are only in memory while
//! somebody holds them; a proxy that gets its resources from a control plane never does.

use std::sync::{Arc, Weak};

use envoy_types::pb::google::protobuf::Any;
use parking_lot::Mutex;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

/// How a message's type is named in `@type`.
const PREFIX: &str = "type.googleapis.com/";
/// Where a message says of which type it is.
const TYPE: &str = "@type";

/// Why a text is no message, or a message can't be told.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It doesn't say of which type it is.
    #[error("no \"@type\" says what it is")]
    NoType,
    /// Its type is none of Envoy's that we know.
    #[error("nothing is known of the type {0:?}")]
    UnknownType(String),
    /// It isn't written as its type is.
    #[error("{name}: {source}")]
    Text {
        /// The type.
        name: String,
        /// What is wrong with the text.
        source: serde_json::Error,
    },
    /// Its bytes are none of its type.
    #[error("{name}: {source}")]
    Bytes {
        /// The type.
        name: String,
        /// What is wrong with the bytes.
        source: prost::DecodeError,
    },
}

/// The descriptors of all messages that resources are made of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<DescriptorPool>);

impl Descriptors {
    /// Those that somebody else holds already, or new ones.
    #[must_use]
    pub fn get() -> Self {
        static HELD: Mutex<Weak<DescriptorPool>> = Mutex::new(Weak::new());
        let mut held = HELD.lock();
        if let Some(pool) = held.upgrade() {
            return Self(pool);
        }
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS);
        let pool = Arc::new(pool.expect("the build wrote what protox made"));
        *held = Arc::downgrade(&pool);
        Self(pool)
    }

    /// The message that `json` is, whose `"@type"` says of which type.
    ///
    /// # Errors
    /// See [`JsonError`]; a field that its type doesn't have is one.
    pub fn any(&self, mut json: Value) -> Result<Any, JsonError> {
        let named = json.as_object_mut().and_then(|object| object.remove(TYPE));
        let Some(Value::String(type_url)) = named else {
            return Err(JsonError::NoType);
        };
        let value = self.read(type_name(&type_url), json)?.encode_to_vec();
        Ok(Any { type_url, value })
    }

    /// The message of type `M` that `json` is. An `"@type"` is ignored.
    ///
    /// # Errors
    /// As for [`Descriptors::any`].
    pub fn message<M: Message + Name + Default>(&self, mut json: Value) -> Result<M, JsonError> {
        if let Some(object) = json.as_object_mut() {
            object.remove(TYPE);
        }
        let bytes = self.read(&M::full_name(), json)?.encode_to_vec();
        M::decode(bytes.as_slice()).map_err(|source| JsonError::Bytes {
            name: M::full_name(),
            source,
        })
    }

    /// The bytes of a message as JSON with its `"@type"`, fields by their names in the `.proto`
    /// file, as Envoy's own admin interface writes them. An `Any` of an unknown type inside makes
    /// it fail.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn json(&self, type_url: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let name = type_name(type_url);
        let descriptor = self.0.get_message_by_name(name);
        let descriptor = descriptor.ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
        let broken = |source| JsonError::Bytes {
            name: name.to_owned(),
            source,
        };
        let message = DynamicMessage::decode(descriptor, bytes).map_err(broken)?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        let told = message.serialize_with_options(serde_json::value::Serializer, &options);
        let mut json = told.map_err(|source| JsonError::Text {
            name: name.to_owned(),
            source,
        })?;
        if let Some(object) = json.as_object_mut() {
            object.insert(TYPE.to_owned(), format!("{PREFIX}{name}").into());
        }
        Ok(json)
    }

    /// What is known of a type, by its URL or its name.
    #[must_use]
    pub fn message_type(&self, type_url: &str) -> Option<MessageDescriptor> {
        self.0.get_message_by_name(type_name(type_url))
    }

    fn read(&self, name: &str, json: Value) -> Result<DynamicMessage, JsonError> {
        let descriptor = self.0.get_message_by_name(name);
        let descriptor = descriptor.ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(descriptor, json, &options).map_err(|source| {
            JsonError::Text {
                name: name.to_owned(),
                source,
            }
        })
    }
}

/// The message of type `M` that `json` is. Who reads many holds [`Descriptors`] meanwhile.
///
/// # Errors
/// See [`JsonError`].
pub fn message_from_json<M: Message + Name + Default>(json: Value) -> Result<M, JsonError> {
    Descriptors::get().message(json)
}

/// A message as JSON with its `"@type"`.
///
/// # Errors
/// See [`JsonError`].
pub fn message_to_json<M: Message + Name>(message: &M) -> Result<Value, JsonError> {
    Descriptors::get().json(&M::full_name(), &message.encode_to_vec())
}

/// A type's name without what stands before it in a URL.
fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use serde_json::json;

    use super::*;

    fn cluster() -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": "reviews",
            "type": "EDS",
            "connect_timeout": "1.500s",
            "transport_socket": {
                "name": "raw",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                },
            },
        })
    }

    #[test]
    fn a_message_is_read_and_told_again() {
        let message: Cluster = message_from_json(cluster()).unwrap();
        assert_eq!(message.name, "reviews");
        assert_eq!(message.connect_timeout.as_ref().unwrap().nanos, 500_000_000);
        assert_eq!(message_to_json(&message).unwrap(), cluster());
        let any = Descriptors::get().any(cluster()).unwrap();
        assert_eq!(Cluster::decode(any.value.as_slice()).unwrap(), message);
    }

    #[test]
    fn camel_case_is_read_too() {
        let message: Cluster = message_from_json(json!({"connectTimeout": "1s"})).unwrap();
        assert!(message.connect_timeout.is_some());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let descriptors = Descriptors::get();
        let told = |json: Value| descriptors.any(json).unwrap_err().to_string();
        assert_eq!(told(json!({"name": "a"})), "no \"@type\" says what it is");
        let unknown = told(json!({"@type": "type.googleapis.com/a.B"}));
        assert_eq!(unknown, "nothing is known of the type \"a.B\"");
        let mut wrong = cluster();
        wrong["conect_timeout"] = "1s".into();
        let told = told(wrong);
        assert!(told.contains("conect_timeout"), "{told}");
    }

    #[test]
    fn everything_that_istiod_sends_can_be_read() {
        let fixture = include_str!("../../tests/fixtures/istiod-waypoint.json");
        let fixture: Value = serde_json::from_str(fixture).unwrap();
        let descriptors = Descriptors::get();
        let kinds = fixture.as_object().unwrap().values();
        let resources: Vec<_> = kinds.flat_map(|kind| kind.as_object().unwrap()).collect();
        assert_eq!(resources.len(), 39);
        for (name, resource) in resources {
            let any = descriptors.any(resource.clone());
            let any = any.unwrap_or_else(|error| panic!("{name}: {error}"));
            let again = descriptors.json(&any.type_url, &any.value).unwrap();
            assert_eq!(descriptors.any(again).unwrap().type_url, any.type_url);
        }
    }
}
