//! Whether both proxies did the same with a case: every field of what was observed is compared, and
//! a difference counts unless accepted-differences.yaml names it with a reason.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::observe::Observation;

/// Fields of a log line that name the proxy or a connection, or say in words what others say.
const APART: [&str; 5] = ["theme", "case", "peer", "termination", "upstream"];

/// One field in which the two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `status`, `answer NAME`, `seen NAME`, `log FIELD`, …
    pub field: String,
    /// Envoy's.
    pub envoy: Option<String>,
    /// Ours.
    pub ours: Option<String>,
}

/// The differences that are meant to be.
#[derive(Debug)]
pub struct Accepted(Vec<Entry>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    field: String,
    #[serde(default)]
    only: Vec<String>,
    how: How,
    reason: String,
    #[serde(skip)]
    used: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Value,
    Any,
}

impl Accepted {
    /// Reads the list.
    ///
    /// # Errors
    /// When it is missing, or an entry has no reason.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let entries: Vec<Entry> =
            serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
        for entry in &entries {
            anyhow::ensure!(!entry.reason.is_empty(), "{}: no reason", entry.field);
        }
        Ok(Self(entries))
    }

    /// What differs and isn't accepted, for a case called `theme/title`.
    #[must_use]
    pub fn differences(
        &self,
        case: &str,
        envoy: &Observation,
        ours: &Observation,
    ) -> Vec<Difference> {
        let (envoy, ours) = (fields(envoy), fields(ours));
        let names = envoy.keys().chain(ours.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        names
            .into_iter()
            .map(|name| Difference {
                field: name.clone(),
                envoy: envoy.get(name).cloned(),
                ours: ours.get(name).cloned(),
            })
            .filter(|d| d.envoy != d.ours && !self.accepts(case, d))
            .collect()
    }

    /// Entries that nothing needed.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|entry| !entry.used.get());
        unused
            .map(|entry| format!("{} {}", entry.field, entry.only.join(", ")))
            .collect()
    }

    fn accepts(&self, case: &str, difference: &Difference) -> bool {
        let both = difference.envoy.is_some() && difference.ours.is_some();
        let entry = self.0.iter().find(|entry| {
            entry.field == difference.field
                && (both || entry.how == How::Any)
                && (entry.only.is_empty() || entry.only.iter().any(|o| case.contains(o)))
        });
        entry.inspect(|entry| entry.used.set(true)).is_some()
    }
}

/// An observation as named values.
fn fields(one: &Observation) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut put = |name: &str, value: String| {
        let list: &mut String = fields.entry(name.to_owned()).or_default();
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&value);
    };
    put("statuses", format!("{:?}", one.statuses));
    put("body", one.body.clone());
    put("broken", one.error.is_some().to_string());
    put("closed", one.closed.to_string());
    for (name, value) in &one.headers {
        put(&format!("answer {name}"), value.clone());
    }
    for (name, value) in &one.trailers {
        put(&format!("trailer {name}"), value.clone());
    }
    // Which endpoint of several is a matter of chance.
    let mut hops: Vec<_> = one.seen.iter().map(|s| s.cluster.as_str()).collect();
    // A mirrored request may be there first.
    hops.sort_unstable();
    put("hops", hops.join(","));
    if let Some(seen) = one.chosen() {
        put("seen method", seen.method.clone());
        put("seen path", seen.path.clone());
        put("seen authority", seen.authority.clone());
        put("seen body", seen.body.clone());
        for (name, value) in &seen.headers {
            put(&format!("seen {name}"), value.clone());
        }
        for (name, value) in &seen.trailers {
            put(&format!("seen trailer {name}"), value.clone());
        }
    }
    let line = one.log.as_ref().and_then(Value::as_object);
    for name in line.into_iter().flat_map(Map::keys) {
        if !APART.contains(&name.as_str())
            && let Some(value) = one.logged(name)
        {
            put(&format!("log {name}"), value);
        }
    }
    put("logged", one.log.is_some().to_string());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> Accepted {
        Accepted(serde_yaml_ng::from_str(text).unwrap())
    }

    #[test]
    fn only_named_differences_are_accepted() {
        let with = |name: &str, value: &str| Observation {
            headers: vec![(name.to_owned(), value.to_owned())],
            ..Observation::default()
        };
        let list = accepted(
            "[{field: answer date, how: value, reason: clock}, \
              {field: answer x-a, only: [path/], how: any, reason: test}]",
        );
        let of = |case: &str, a: &Observation, b: &Observation| list.differences(case, a, b).len();
        assert_eq!(of("t/c", &with("date", "1"), &with("date", "2")), 0);
        assert_eq!(of("t/c", &with("date", "1"), &Observation::default()), 1);
        assert_eq!(of("t/c", &with("x-a", "1"), &Observation::default()), 1);
        assert_eq!(list.unused().len(), 1);
        assert_eq!(of("path/c", &with("x-a", "1"), &Observation::default()), 0);
        assert!(list.unused().is_empty());
    }
}
