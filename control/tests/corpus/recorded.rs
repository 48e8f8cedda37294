//! What istiod answered to a theme's sets, as it is kept: each part that comes again is written once.
#![allow(clippy::unwrap_used, dead_code)] // Helpers of tests: a panic is the report. Each user needs a part.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::form::Resources;
use super::sets::{folder, read};

/// Parts that are shorter stay where they are.
const SHORTEST: usize = 120;

/// The file of a theme.
pub(crate) fn path(theme: &str) -> PathBuf {
    folder().join(format!("istiod/{theme}.json"))
}

/// What istiod answered, each part that comes again written once: `{"$": N}` stands for the part of
/// that number.
#[derive(Default, Deserialize)]
pub(crate) struct Recorded {
    /// The parts.
    parts: Vec<Value>,
    /// By set: its resources.
    sets: BTreeMap<String, Value>,
    #[serde(skip)]
    known: BTreeMap<String, usize>,
}

impl Recorded {
    /// The answers that are recorded of a theme.
    pub(crate) fn read(theme: &str) -> Self {
        serde_json::from_str(&read(&format!("istiod/{theme}.json"))).unwrap()
    }

    /// Adds a set's answer.
    pub(crate) fn add(&mut self, set: &str, resources: Resources) {
        let whole = self.shared(serde_json::to_value(resources).unwrap());
        self.sets.insert(set.to_owned(), whole);
    }

    /// The answer to a set.
    pub(crate) fn answer(&self, set: &str) -> Option<Resources> {
        let whole = self.whole(self.sets.get(set)?);
        Some(serde_json::from_value(whole).unwrap())
    }

    /// As a text, a part a line.
    pub(crate) fn text(&self) -> String {
        let lines = |all: Vec<String>| all.join(",\n");
        let parts = self.parts.iter().map(ToString::to_string).collect();
        let sets = self.sets.iter();
        let sets = sets.map(|(name, value)| format!("{}:{value}", json!(name)));
        let (parts, sets) = (lines(parts), lines(sets.collect()));
        format!("{{\"parts\":[\n{parts}\n],\"sets\":{{\n{sets}\n}}}}\n")
    }

    fn shared(&mut self, value: Value) -> Value {
        let value = match value {
            Value::Object(fields) => {
                let fields = fields.into_iter();
                Value::Object(
                    fields
                        .map(|(name, value)| (name, self.shared(value)))
                        .collect(),
                )
            }
            Value::Array(all) => all.into_iter().map(|value| self.shared(value)).collect(),
            plain => return plain,
        };
        let text = value.to_string();
        if text.len() < SHORTEST {
            return value;
        }
        let next = self.parts.len();
        let number = *self.known.entry(text).or_insert(next);
        if number == next {
            self.parts.push(value);
        }
        json!({"$": number})
    }

    fn whole(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => match fields.get("$").and_then(Value::as_u64) {
                Some(number) => self.whole(&self.parts[usize::try_from(number).unwrap()]),
                None => {
                    let fields = fields.iter();
                    Value::Object(
                        fields
                            .map(|(name, value)| (name.clone(), self.whole(value)))
                            .collect(),
                    )
                }
            },
            Value::Array(all) => all.iter().map(|value| self.whole(value)).collect(),
            plain => plain.clone(),
        }
    }
}
