//! What of Envoy's configuration is not served, and what is made of it: one table (in the files
//! below), from which the code decides, and against which docs/envoy-support.md is tested. A set
//! field that isn't served is ignored because that changes nothing, counted and logged by name, or
//! refused where ignoring it would weaken security or change routing.

mod cluster;
mod filters;
mod http;
mod listener;
mod route;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::error::Refused;

/// What is made of a set field that isn't served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It is passed over in silence: without it everything is as it would be with it.
    Ignored,
    /// It is counted, and logged once by name.
    Counted,
    /// The resource is refused.
    Refused,
}

/// A line of the table: the decision, the message by its short name, its fields, and the reason.
pub type Row = (
    Decision,
    &'static str,
    &'static [&'static str],
    &'static str,
);

/// The table, in the order of the documentation.
pub const TABLE: &[(&str, &[Row])] = &[
    ("Listeners, filter chains, TCP and TLS", listener::ROWS),
    ("HTTP connection manager, logs and tracing", http::ROWS),
    ("Filters", filters::ROWS),
    ("Routes", route::ROWS),
    ("Clusters and endpoints", cluster::ROWS),
];

/// The table by message and field.
type Decisions = HashMap<(&'static str, &'static str), (Decision, &'static str)>;

static DECISIONS: LazyLock<Decisions> = LazyLock::new(|| {
    let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter());
    rows.flat_map(|(decision, message, fields, reason)| {
        let fields = fields.iter();
        fields.map(move |field| ((*message, *field), (*decision, *reason)))
    })
    .collect()
});

/// What was met in one resource that isn't served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    seen: BTreeMap<String, (String, u64)>,
}

/// Everything that was ever met: each name is logged when it is first seen, and counted.
#[derive(Debug, Default)]
pub struct Seen {
    times: BTreeMap<String, u64>,
}

/// Whether a field says anything. Protobuf's default values say nothing.
pub trait Set {
    /// Whether it does.
    fn is_set(&self) -> bool;
}

impl Notes {
    /// Decides about a field that isn't served; nothing happens where it isn't set. See
    /// [`unserved!`](crate::unserved).
    ///
    /// # Errors
    /// The table says that such a resource is refused, or says nothing of the field.
    pub fn field(&mut self, message: &str, field: &str, value: &impl Set) -> Result<(), Refused> {
        if !value.is_set() {
            return Ok(());
        }
        let field = field.strip_prefix("r#").unwrap_or(field);
        let (decision, reason) = match DECISIONS.get(&(message, field)) {
            Some(known) => *known,
            None => (Decision::Refused, "nobody decided what it means here"),
        };
        match decision {
            Decision::Ignored => {}
            Decision::Counted => self.count(format!("{message}.{field}"), reason),
            Decision::Refused => {
                let reason = format!("is not served: {reason}");
                return Err(Refused::new(reason).under(field));
            }
        }
        Ok(())
    }

    /// Counts something by name that has no line in the table, such as an unknown extension.
    pub fn count(&mut self, name: impl Into<String>, reason: &str) {
        let entry = self.seen.entry(name.into());
        entry.or_insert_with(|| (reason.to_owned(), 0)).1 += 1;
    }

    /// What was counted: the name, the reason, and how often it was met.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let seen = self.seen.iter();
        seen.map(|(name, (reason, times))| (name.as_str(), reason.as_str(), *times))
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

impl Seen {
    /// Takes up what was met in a resource, and logs what is new.
    pub fn absorb(&mut self, resource: &str, notes: &Notes) {
        for (name, reason, times) in notes.iter() {
            if !self.times.contains_key(name) {
                tracing::warn!(
                    name,
                    resource,
                    reason,
                    "configuration is not served; said once, counted from here"
                );
            }
            *self.times.entry(name.to_owned()).or_default() += times;
        }
    }

    /// Every name, and how often it was met.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let times = self.times.iter();
        times.map(|(name, times)| (name.as_str(), *times))
    }
}

/// Decides about fields that aren't served, by [the table](served::TABLE):
/// `unserved!(notes, "Listener": freebind, transparent)`. The first name is the message's short
/// one, the others are variables of the fields' names, which are consumed. Ends the function with
/// the error of a field for which the resource is refused.
#[macro_export]
macro_rules! unserved {
    ($notes:expr, $message:literal: $($field:ident),+ $(,)?) => {
        $($notes.field($message, stringify!($field), &$field)?;)+
    };
}

impl Set for bool {
    fn is_set(&self) -> bool {
        *self
    }
}

impl Set for i32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl Set for i64 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl Set for u32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl Set for u64 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl Set for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<T> Set for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<T> Set for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<K, V> Set for HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_stands_in_the_table_twice() {
        let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter());
        let fields: usize = rows.map(|(_, _, fields, _)| fields.len()).sum();
        assert_eq!(fields, DECISIONS.len());
    }

    #[test]
    fn a_field_is_decided_by_the_table_and_only_where_it_is_set() {
        let mut notes = Notes::default();
        notes.field("Listener", "freebind", &false).unwrap();
        assert!(notes.is_empty());
        notes.field("Listener", "freebind", &true).unwrap();
        notes.field("Listener", "freebind", &true).unwrap();
        let seen: Vec<_> = notes.iter().map(|(name, _, times)| (name, times)).collect();
        assert_eq!(seen, [("Listener.freebind", 2)]);
        let refused = notes.field("Listener", "udp_listener_config", &Some(1));
        assert!(refused.unwrap_err().to_string().contains("UDP"));
        let unknown = notes.field("Listener", "newest", &1_u32);
        assert!(unknown.unwrap_err().to_string().contains("nobody decided"));
    }

    #[test]
    fn what_was_met_adds_up_over_resources() {
        let mut notes = Notes::default();
        notes.count("envoy.filters.http.odd", "nobody knows it");
        let mut seen = Seen::default();
        seen.absorb("Listener a", &notes);
        seen.absorb("Listener b", &notes);
        let all: Vec<_> = seen.iter().collect();
        assert_eq!(all, [("envoy.filters.http.odd", 2)]);
    }
}
