//! Where two resources differ, and how.

use std::collections::BTreeSet;

use serde_json::Value;

/// The differences between istiod's resource and ours.
pub(crate) fn between(theirs: Option<&Value>, ours: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => values("", theirs, ours, &mut found),
        (Some(_), None) => found.push("exists: only istiod has it".to_owned()),
        (None, _) => found.push("exists: only control has it".to_owned()),
    }
    found
}

fn values(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let null = Value::Null;
                let (a, b) = (a.get(name).unwrap_or(&null), b.get(name).unwrap_or(&null));
                values(&format!("{path}.{name}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (number, (a, b)) in a.iter().zip(b).enumerate() {
                let label = a
                    .get("name")
                    .and_then(Value::as_str)
                    .map_or_else(|| number.to_string(), str::to_owned);
                values(&format!("{path}[{label}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (Value::Array(a), Value::Array(b)) if path.ends_with(".routes") => {
            let names = |all: &[Value]| {
                all.iter()
                    .map(|one| one["name"].to_string())
                    .collect::<Vec<_>>()
            };
            found.push(format!(
                "{path}: istiod {:?} | control {:?}",
                names(a),
                names(b)
            ));
        }
        (a, b) => {
            let short = |value: &Value| value.to_string().chars().take(700).collect::<String>();
            found.push(format!(
                "{path}: istiod {} | control {}",
                short(a),
                short(b)
            ));
        }
    }
}
