//! Where two resources differ, and how.
#![allow(dead_code)] // Each user needs a part.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// What is shown of a value.
const SHOWN: usize = 700;

/// One place in which they differ.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Where, from the resource on; `exists`: in whether it does.
    pub(crate) path: String,
    /// What istiod says there, as JSON.
    pub(crate) istiod: String,
    /// What control says there.
    pub(crate) control: String,
}

impl Difference {
    /// Place and both values, whole.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}: istiod {} | control {}",
            self.path, self.istiod, self.control
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(SHOWN).collect::<String>();
        let (istiod, control) = (short(&self.istiod), short(&self.control));
        write!(f, "{}: istiod {istiod} | control {control}", self.path)
    }
}

/// The differences between istiod's resource and ours.
pub(crate) fn between(theirs: Option<&Value>, ours: Option<&Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => values("", theirs, ours, &mut found),
        (theirs, ours) => {
            let has = |one: Option<&Value>| one.map_or("no", |_| "yes").to_owned();
            found.push(Difference {
                path: "exists".to_owned(),
                istiod: has(theirs),
                control: has(ours),
            });
        }
    }
    found
}

fn values(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<Difference>) {
    match (theirs, ours) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let null = Value::Null;
                let (a, b) = (a.get(name).unwrap_or(&null), b.get(name).unwrap_or(&null));
                values(&format!("{path}.{name}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => match (names(a), names(b)) {
            (Some(of_a), Some(of_b)) => {
                let find = |all: &[Value], name: &str| {
                    let found = all.iter().find(|one| named(one) == Some(name));
                    found.cloned().unwrap_or_default()
                };
                for name in of_a.iter().chain(of_b.iter().filter(|b| !of_a.contains(b))) {
                    let (a, b) = (find(a, name), find(b, name));
                    values(&format!("{path}[{name}]"), &a, &b, found);
                }
                let both = |all: &[&str], others: &[&str]| {
                    let kept = all.iter().filter(|name| others.contains(name));
                    kept.map(|name| (*name).to_owned()).collect::<Vec<_>>()
                };
                let (a, b) = (both(&of_a, &of_b), both(&of_b, &of_a));
                if a != b {
                    found.push(Difference {
                        path: format!("{path}.order"),
                        istiod: format!("{a:?}"),
                        control: format!("{b:?}"),
                    });
                }
            }
            _ if a.len() == b.len() => {
                for (number, (a, b)) in a.iter().zip(b).enumerate() {
                    values(&format!("{path}[{number}]"), a, b, found);
                }
            }
            _ => differ(path, theirs, ours, found),
        },
        (a, b) => differ(path, a, b, found),
    }
}

fn differ(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<Difference>) {
    found.push(Difference {
        path: path.to_owned(),
        istiod: theirs.to_string(),
        control: ours.to_string(),
    });
}

/// The names of all, where each has one of its own.
fn names(all: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> = all.iter().map(named).collect::<Option<_>>()?;
    let distinct: BTreeSet<&&str> = names.iter().collect();
    (!names.is_empty() && distinct.len() == names.len()).then_some(names)
}

/// The name of a part; of a range of addresses, the first.
fn named(one: &Value) -> Option<&str> {
    let of_range = || one.pointer("/ranges/0/address_prefix");
    one.get("name").or_else(of_range)?.as_str()
}
