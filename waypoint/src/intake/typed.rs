//! What stands behind `Any`: the type's name, the message, and the struct where the control plane
//! had no protobuf of it. A field that is newer than our protobuf is noticed, since the message
//! would be written shorter than it was read.

use envoy_types::pb::google::protobuf::{Any, Struct};
use prost::{Message, Name};

use super::error::{At as _, Refused};
use super::served::Notes;
use crate::proto;

/// An extension's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed<'a> {
    /// The type's full name, such as `envoy.extensions.filters.http.router.v3.Router`.
    pub name: String,
    /// What it says.
    pub body: Body<'a>,
}

/// What an extension's configuration says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// The message of that type.
    Message(&'a [u8]),
    /// The same as a struct, from a control plane that doesn't have the protobuf.
    Struct(Struct),
}

/// The type's full name, without the host in front.
#[must_use]
pub fn name(any: &Any) -> &str {
    short(&any.type_url)
}

/// Opens what stands behind `Any`, also where it is wrapped in a `TypedStruct`.
///
/// # Errors
/// It is said to be a `TypedStruct` and isn't.
pub fn open(any: &Any) -> Result<Typed<'_>, Refused> {
    let (url, body) = match name(any) {
        "udpa.type.v1.TypedStruct" => {
            let proto::udpa::TypedStruct { type_url, value } = plain(&any.value)?;
            (type_url, Body::Struct(value.unwrap_or_default()))
        }
        "xds.type.v3.TypedStruct" => {
            let proto::xds::TypedStruct { type_url, value } = plain(&any.value)?;
            (type_url, Body::Struct(value.unwrap_or_default()))
        }
        _ => (any.type_url.clone(), Body::Message(&any.value)),
    };
    let name = short(&url).to_owned();
    Ok(Typed { name, body })
}

/// Reads the message behind `Any`. Fields that our protobuf doesn't have are counted.
///
/// # Errors
/// It is of another type, or no protobuf.
pub fn unpack<T: Message + Name + Default>(any: &Any, notes: &mut Notes) -> Result<T, Refused> {
    is::<T>(any)?;
    decode(&any.value, notes)
}

/// The same where a field that is passed over would weaken security: it is refused then.
///
/// # Errors
/// It is of another type, no protobuf, or has fields that our protobuf doesn't have.
pub fn unpack_whole<T: Message + Name + Default>(any: &Any) -> Result<T, Refused> {
    is::<T>(any)?;
    let message: T = plain(&any.value)?;
    match newer(&message, &any.value) {
        false => Ok(message),
        true => Err(Refused::new(format!(
            "{} has a field that this version doesn't know; the control plane is newer",
            T::full_name()
        ))),
    }
}

/// Reads a message. Fields that our protobuf doesn't have are counted.
///
/// # Errors
/// It is no protobuf.
pub fn decode<T: Message + Name + Default>(bytes: &[u8], notes: &mut Notes) -> Result<T, Refused> {
    let message: T = plain(bytes)?;
    if newer(&message, bytes) {
        notes.count(
            format!("{} (a field newer than this version)", T::full_name()),
            "the control plane's protobuf is newer",
        );
    }
    Ok(message)
}

fn is<T: Name>(any: &Any) -> Result<(), Refused> {
    let (found, wanted) = (name(any), T::full_name());
    match found == wanted {
        true => Ok(()),
        false => Err(Refused::new(format!("is a {found}, not a {wanted}"))),
    }
}

fn plain<T: Message + Name + Default>(bytes: &[u8]) -> Result<T, Refused> {
    T::decode(bytes)
        .map_err(|error| Refused::new(format!("is no {}: {error}", T::full_name())))
        .at("typed_config")
}

fn newer<T: Message>(message: &T, bytes: &[u8]) -> bool {
    message.encoded_len() < bytes.len()
}

fn short(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;

    use super::*;

    fn router(extra: &[u8]) -> Any {
        let mut value = Router {
            suppress_envoy_headers: true,
            ..Router::default()
        }
        .encode_to_vec();
        value.extend_from_slice(extra);
        Any {
            type_url: Router::type_url(),
            value,
        }
    }

    /// Field 1000 with the number 1: nothing that any version of the router has.
    const UNKNOWN: &[u8] = &[0xc0, 0x3e, 0x01];

    #[test]
    fn a_field_that_is_newer_than_ours_is_counted_or_refused() {
        let mut notes = Notes::default();
        let read: Router = unpack(&router(&[]), &mut notes).unwrap();
        assert!(read.suppress_envoy_headers && notes.is_empty());
        unpack::<Router>(&router(UNKNOWN), &mut notes).unwrap();
        let names: Vec<_> = notes.iter().map(|(name, ..)| name.to_owned()).collect();
        assert_eq!(names.len(), 1);
        assert!(names[0].starts_with("envoy.extensions.filters.http.router.v3.Router"));
        let refused = unpack_whole::<Router>(&router(UNKNOWN)).unwrap_err();
        assert!(refused.reason.contains("newer"), "{refused}");
    }

    #[test]
    fn a_typed_struct_is_opened_whatever_its_name() {
        let inner = proto::udpa::TypedStruct {
            type_url: "type.googleapis.com/io.istio.http.peer_metadata.Config".into(),
            value: None,
        };
        for wrapper in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
            let any = Any {
                type_url: format!("type.googleapis.com/{wrapper}"),
                value: inner.encode_to_vec(),
            };
            let typed = open(&any).unwrap();
            assert_eq!(typed.name, "io.istio.http.peer_metadata.Config");
            assert_eq!(typed.body, Body::Struct(Struct::default()));
        }
    }

    #[test]
    fn another_type_and_broken_bytes_are_told_apart() {
        let mut notes = Notes::default();
        let other = Any {
            type_url: "type.googleapis.com/a.B".into(),
            value: Vec::new(),
        };
        let refused = unpack::<Router>(&other, &mut notes).unwrap_err();
        assert!(refused.reason.starts_with("is a a.B"), "{refused}");
        let mut broken = router(&[]);
        broken.value.push(0xff);
        let refused = unpack::<Router>(&broken, &mut notes).unwrap_err();
        assert!(refused.reason.starts_with("is no envoy"), "{refused}");
    }
}
