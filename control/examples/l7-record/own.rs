//! The names and addresses that are a set's own in the API server, and the corpus' words for them.

use anyhow::Result;
use serde_json::Value;

use super::sets::NAMESPACE;

/// The number of a set.
#[derive(Clone, Copy)]
pub(crate) struct Own(pub(crate) usize);

impl Own {
    /// Its namespace.
    pub(crate) fn namespace(self) -> String {
        format!("zq{:03}", self.0)
    }

    /// The waypoint's address.
    pub(crate) fn waypoint(self) -> String {
        self.network(128) + "1"
    }

    /// Three of an address' four numbers.
    fn network(self, block: usize) -> String {
        // 0 and 255 may mean something to whoever gives addresses.
        format!("10.{}.{}.", block + self.0 / 250, self.0 % 250 + 1)
    }

    /// The corpus' word, and the set's own in its place.
    fn words(self) -> [(&'static str, String); 5] {
        [
            (NAMESPACE, self.namespace()),
            // Pods, services, and hosts of entries.
            ("10.0.0.", self.network(128)),
            ("10.96.0.", self.network(97)),
            (
                "240.240.0.",
                format!("240.{}.{}.", 240 + self.0 / 250, self.0 % 250 + 1),
            ),
            // Hosts of entries, which would be the same in several namespaces.
            (".test", format!(".{}t", self.namespace())),
        ]
    }

    /// An object of the corpus, as it is in the API server.
    pub(crate) fn put(self, value: &Value) -> Result<Value> {
        let words = self.words().into_iter();
        let text = words.fold(value.to_string(), |text, (word, own)| {
            text.replace(word, &own)
        });
        Ok(serde_json::from_str(&text)?)
    }

    /// A resource, in the words of the corpus.
    pub(crate) fn back(self, value: &Value) -> Result<Value> {
        let words = self.words().into_iter().rev();
        let text = words.fold(value.to_string(), |text, (word, own)| {
            text.replace(&own, word)
        });
        Ok(serde_json::from_str(&text)?)
    }
}
