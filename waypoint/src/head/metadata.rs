//! Values that filters write down for later ones about one request: Envoy's dynamic metadata. Only
//! few requests have any, so that it costs nothing until something is written.

use serde_json::{Map, Value};

/// What filters wrote down, by filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    filters: Vec<(Box<str>, Map<String, Value>)>,
}

impl Metadata {
    /// What a filter wrote down.
    #[must_use]
    pub fn of(&self, filter: &str) -> Option<&Map<String, Value>> {
        self.filters
            .iter()
            .find_map(|(name, values)| (**name == *filter).then_some(values))
    }

    /// All of it, by filter.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.filters.iter().map(|(name, values)| (&**name, values))
    }

    /// The value at the end of a path of keys.
    #[must_use]
    pub fn get<K: AsRef<str>>(&self, filter: &str, path: &[K]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.of(filter)?.get(first.as_ref())?, |value, key| {
                value.get(key.as_ref())
            })
    }

    /// Writes a value down, in place of one with the same key.
    pub fn set(&mut self, filter: &str, key: &str, value: Value) {
        self.filter(filter).insert(key.to_owned(), value);
    }

    /// Writes several values down.
    pub fn merge(&mut self, filter: &str, values: Map<String, Value>) {
        self.filter(filter).extend(values);
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    fn filter(&mut self, filter: &str) -> &mut Map<String, Value> {
        let known = self.filters.iter().position(|(name, _)| **name == *filter);
        let at = known.unwrap_or_else(|| {
            self.filters.push((filter.into(), Map::new()));
            self.filters.len() - 1
        });
        &mut self.filters[at].1
    }
}
