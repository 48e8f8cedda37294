//! Labels of a workload, as Culvert's control plane tells waypoints of them: those alone that routes
//! ask for. `istio.workload.Workload` has no field for labels; they go as one of its extensions,
//! which other readers leave alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Any, Struct, Value};

use super::refusal::{Refusal, refuse};
use crate::proto::workload::Extension;

/// By name.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The extension's name.
const NAME: &str = "culvert.io/labels";
/// The type of what is in it.
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The extension that carries these labels.
#[must_use]
pub fn extension<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Extension {
    let value = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let fields = labels
        .into_iter()
        .map(|(name, text)| (name.to_owned(), value(text)));
    Extension {
        name: NAME.to_owned(),
        config: Some(Any {
            type_url: STRUCT.to_owned(),
            value: Struct {
                fields: fields.collect(),
            }
            .encode_to_vec(),
        }),
    }
}

/// The labels among a workload's extensions, if it has any.
pub(super) fn read(extensions: Vec<Extension>) -> Result<Option<Box<Labels>>, Refusal> {
    let Some(found) = extensions.into_iter().find(|one| one.name == NAME) else {
        return Ok(None);
    };
    let config = found.config.unwrap_or_default();
    let fields = Struct::decode(config.value.as_slice())
        .map_err(|error| refuse(format!("extensions[{NAME}]"), error))?
        .fields;
    let text = |(name, value): (String, Value)| match value.kind {
        Some(Kind::StringValue(text)) => Some((name.into(), text.into())),
        _ => None,
    };
    Ok(Some(Box::new(
        fields.into_iter().filter_map(text).collect(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_and_other_extensions_are_left_alone() {
        let labels = [("app", "web"), ("version", "v1")];
        let other = Extension {
            name: "other".to_owned(),
            config: None,
        };
        let read = read(vec![other.clone(), extension(labels)])
            .unwrap()
            .unwrap();
        assert!(
            read.iter()
                .map(|(name, text)| (&**name, &**text))
                .eq(labels)
        );
        assert_eq!(super::read(vec![other]).unwrap(), None);
        let broken = Extension {
            name: NAME.to_owned(),
            config: Some(Any {
                type_url: STRUCT.to_owned(),
                value: vec![0xff],
            }),
        };
        assert!(super::read(vec![broken]).is_err());
    }
}
