//! One order for what has none: the entries of protobuf's maps, at whatever depth.
//!
//! A resource's version is the hash of its bytes, and a map is written in the order of its hash
//! table, another one each time. So the encoded message is walked by the table below, and the
//! entries of each map are put in the order of their keys. What the table does not name is copied
//! as it is: a map that is forgotten here costs a push too many, never a wrong byte.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// The messages that hold maps, or messages that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Any,
    Cluster,
    Assignment,
    Locality,
    Endpoint,
    Listener,
    Chain,
    /// A filter, whose typed configuration is field 4.
    Filter,
    Socket,
    SocketMatch,
    Metadata,
    Struct,
    Value,
    List,
    TypedStruct,
    Matcher,
    Tree,
    Matches,
    OnMatch,
    Extension,
    Addresses,
    Range,
    Manager,
    Routes,
    Host,
    Route,
    RbacFilter,
    Rbac,
    Jwt,
    /// Holds nothing of interest.
    Other,
}

enum Step {
    Message(Of),
    Map(Of),
    Copy,
}

fn step(of: Of, field: u32) -> Step {
    use Of::{
        Addresses, Any, Assignment, Chain, Cluster, Endpoint, Extension, Filter, Host, Jwt, List,
        Listener, Locality, Manager, Matcher, Matches, Metadata, OnMatch, Other, Range, Rbac,
        RbacFilter, Route, Routes, Socket, SocketMatch, Struct, Tree, TypedStruct, Value,
    };
    match (of, field) {
        (Cluster, 25) | (Endpoint, 3) | (Route, 4) => Step::Message(Metadata),
        (Cluster, 36) | (Route, 13) => Step::Map(Any),
        (Cluster, 24) | (SocketMatch, 3) | (Chain, 6) => Step::Message(Socket),
        (Cluster, 43) => Step::Message(SocketMatch),
        (Cluster, 33) => Step::Message(Assignment),
        (Assignment, 2) => Step::Message(Locality),
        (Locality, 2) => Step::Message(Endpoint),
        (Listener, 3) => Step::Message(Chain),
        (Listener, 32) => Step::Message(Matcher),
        (Chain, 3) | (Manager, 5) => Step::Message(Filter),
        (Filter, 4) | (Socket, 3) | (Extension, 2) => Step::Message(Any),
        (SocketMatch, 2) | (TypedStruct, 2) | (Value, 5) => Step::Message(Struct),
        (Metadata, 1) => Step::Map(Struct),
        (Struct, 1) => Step::Map(Value),
        (Value, 6) => Step::Message(List),
        (List, 1) => Step::Message(Value),
        (Matcher, 2) => Step::Message(Tree),
        (Matcher, 3) | (Range, 2) => Step::Message(OnMatch),
        (Tree, 2 | 3) => Step::Message(Matches),
        (Tree, 4) | (OnMatch, 2) => Step::Message(Extension),
        (Matches, 1) => Step::Map(OnMatch),
        (OnMatch, 1) => Step::Message(Matcher),
        (Addresses, 1) => Step::Message(Range),
        (Manager, 4) => Step::Message(Routes),
        (Routes, 2) => Step::Message(Host),
        (Host, 3) => Step::Message(Route),
        (RbacFilter, 1 | 2) => Step::Message(Rbac),
        (Rbac, 2) | (Jwt, 1) => Step::Map(Other),
        _ => Step::Copy,
    }
}

/// Which message an `Any` holds.
fn named(url: &[u8]) -> Of {
    let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name {
        b"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            Of::Manager
        }
        b"envoy.extensions.filters.http.rbac.v3.RBAC"
        | b"envoy.extensions.filters.network.rbac.v3.RBAC" => Of::RbacFilter,
        b"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => Of::Jwt,
        b"udpa.type.v1.TypedStruct" => Of::TypedStruct,
        b"xds.type.matcher.v3.IPMatcher" => Of::Addresses,
        _ => Of::Other,
    }
}

/// The same message with the entries of its maps in order.
pub(super) fn canonical(of: Of, bytes: &[u8]) -> Vec<u8> {
    // Bytes that do not parse were not encoded here: they stay as they are.
    walk(of, bytes).unwrap_or_else(|| bytes.to_vec())
}

fn walk(of: Of, bytes: &[u8]) -> Option<Vec<u8>> {
    if of == Of::Other {
        return Some(bytes.to_vec());
    }
    let inner = if of == Of::Any {
        named(field(bytes, 1).unwrap_or_default())
    } else {
        Of::Other
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut entries: Vec<(u32, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire) = decode_key(&mut rest).ok()?;
        if wire != WireType::LengthDelimited {
            skip(wire, &mut rest)?;
            out.extend_from_slice(&start[..start.len() - rest.len()]);
            continue;
        }
        let body = take(&mut rest)?;
        let step = if of == Of::Any && tag == 2 {
            Step::Message(inner)
        } else {
            step(of, tag)
        };
        match step {
            Step::Copy => out.extend_from_slice(&start[..start.len() - rest.len()]),
            Step::Message(sub) => write(tag, &walk(sub, body)?, &mut out),
            Step::Map(sub) => {
                let mut entry = Vec::with_capacity(body.len());
                let key = field(body, 1).unwrap_or_default().to_vec();
                write(1, &key, &mut entry);
                write(
                    2,
                    &walk(sub, field(body, 2).unwrap_or_default())?,
                    &mut entry,
                );
                entries.push((tag, key, entry));
            }
        }
    }
    entries.sort();
    for (tag, _, entry) in entries {
        write(tag, &entry, &mut out);
    }
    Some(out)
}

fn write(tag: u32, body: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(body)
}

fn skip(wire: WireType, rest: &mut &[u8]) -> Option<()> {
    let length = match wire {
        WireType::Varint => return decode_varint(rest).ok().map(|_| ()),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        _ => return None,
    };
    *rest = rest.split_at_checked(length)?.1;
    Some(())
}

/// The first length-delimited field of this number.
fn field(bytes: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tag, wire) = decode_key(&mut rest).ok()?;
        if wire != WireType::LengthDelimited {
            skip(wire, &mut rest)?;
            continue;
        }
        let body = take(&mut rest)?;
        if tag == wanted {
            return Some(body);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::api::{any, cluster, metadata, object, text};
    use super::*;

    fn made() -> cluster::Cluster {
        let names = ["host", "name", "namespace", "subset", "config", "a", "b"];
        let many = object(names.map(|name| (name, text(name))));
        let mut made = cluster::Cluster {
            name: "c".to_owned(),
            metadata: Some(metadata(
                ["x", "y", "z"].map(|name| (name.to_owned(), many.clone())),
            )),
            ..Default::default()
        };
        for name in names {
            made.typed_extension_protocol_options
                .insert(name.to_owned(), any(&cluster::Cluster::default()));
        }
        made
    }

    #[test]
    fn the_same_message_has_one_form_that_still_says_the_same() {
        let forms: std::collections::BTreeSet<Vec<u8>> = (0..32)
            .map(|_| canonical(Of::Cluster, &made().encode_to_vec()))
            .collect();
        assert_eq!(forms.len(), 1);
        let again = cluster::Cluster::decode(forms.first().unwrap().as_slice()).unwrap();
        assert_eq!(again, made());
    }

    #[test]
    fn bytes_that_do_not_parse_stay() {
        assert_eq!(canonical(Of::Cluster, &[0xff, 0xff]), [0xff, 0xff]);
    }
}
