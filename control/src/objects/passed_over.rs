//! Fields of a specification that nobody here reads: misspelt, of a newer version of the API, or not
//! served. The resource definitions of the chart are open, so that the API server stores them; their
//! paths are said in the object's status, and when it is applied.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// The longest list that is kept of an object.
const LIMIT: usize = 20;

/// Reads a value; says which fields were not read.
pub(super) fn read<T: DeserializeOwned>(
    value: &Value,
    passed_over: &mut Vec<String>,
) -> Result<T, String> {
    let note = |path: Path<'_>| {
        if passed_over.len() < LIMIT {
            passed_over.push(written(&path));
        }
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    serde_ignored::deserialize(tracked, note).map_err(|error| {
        // A specification that is none has no path.
        let at = match track.path().to_string() {
            path if path == "." => String::new(),
            path => format!("{path}: "),
        };
        format!("spec does not parse: {at}{error}")
    })
}

/// `http[0].retries.attempts`.
fn written(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => written(parent),
    }
}
