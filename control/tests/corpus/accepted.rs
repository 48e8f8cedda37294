//! Differences that are accepted, each with its reason.

use regex::Regex;
use serde::Deserialize;

use super::difference::Difference;

/// Why a difference stays.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Control does what the API says, and istiod does not.
    Meant,
    /// A waypoint does the same with both; the test compiles both and compares.
    Harmless,
    /// Control does not serve it.
    Unserved,
}

/// An entry of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accepted {
    /// Why it stays, in a word.
    pub(crate) kind: Kind,
    /// The set's name, as a regular expression of the whole.
    #[serde(deserialize_with = "whole")]
    set: Regex,
    /// The resource's kind and name, likewise.
    #[serde(deserialize_with = "whole")]
    resource: Regex,
    /// Where, likewise; `exists`: in whether it does.
    #[serde(deserialize_with = "whole")]
    path: Regex,
    /// What istiod says there, likewise; anything, where it is not given.
    #[serde(default, deserialize_with = "perhaps")]
    istiod: Option<Regex>,
    /// What control says there, likewise.
    #[serde(default, deserialize_with = "perhaps")]
    control: Option<Regex>,
    /// Why, in full.
    #[allow(dead_code)] // For people.
    reason: String,
}

impl Accepted {
    /// Whether it speaks of this difference.
    pub(crate) fn covers(&self, set: &str, resource: &str, found: &Difference) -> bool {
        let says = |wanted: &Option<Regex>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.is_match(text))
        };
        self.set.is_match(set)
            && self.resource.is_match(resource)
            && self.path.is_match(&found.path)
            && says(&self.istiod, &found.istiod)
            && says(&self.control, &found.control)
    }
}

fn whole<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Regex, D::Error> {
    let text = String::deserialize(from)?;
    Regex::new(&format!("(?s)^(?:{text})$")).map_err(serde::de::Error::custom)
}

fn perhaps<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Regex>, D::Error> {
    whole(from).map(Some)
}
