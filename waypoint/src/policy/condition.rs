//! Whether a condition of a policy holds. What only a request has (headers, path) doesn't hold of
//! a connection as such; an inversion of it does, as in Envoy, whose network filter looks at empty
//! headers.

use http::HeaderMap;
use serde_json::Value;

use super::{Subject, template_matches};
use crate::head::{Head, Metadata};
use crate::model::policy::{Condition, MetadataMatch, ValueMatch};

/// Whether a condition holds.
pub(super) fn holds(condition: &Condition, subject: &Subject<'_>) -> bool {
    let downstream = subject.downstream;
    let path = || {
        subject
            .head
            .map(Head::path_only)
            .filter(|path| !path.is_empty())
    };
    match condition {
        Condition::Any => true,
        Condition::All(all) => all.iter().all(|condition| holds(condition, subject)),
        Condition::AnyOf(any) => any.iter().any(|condition| holds(condition, subject)),
        Condition::Not(not) => !holds(not, subject),
        Condition::Header(test) => match subject.head {
            Some(head) => head.matches(test),
            None => crate::head::header_matches(test, &HeaderMap::new()),
        },
        Condition::Path(text) => path().is_some_and(|path| text.matches(path)),
        Condition::PathTemplate(template) => {
            path().is_some_and(|path| template_matches(template, path))
        }
        Condition::DestinationIp(range) => range.contains(&downstream.local.ip().to_canonical()),
        Condition::DestinationPort(port) => downstream.local.port() == *port,
        Condition::DestinationPorts(first, end) => {
            downstream.local.port() >= *first && u32::from(downstream.local.port()) < *end
        }
        Condition::ServerName(text) => {
            text.matches(downstream.server_name.as_deref().unwrap_or_default())
        }
        Condition::Peer(text) => downstream
            .principal()
            .is_some_and(|name| text.matches(name)),
        Condition::Authenticated(name) => authenticated(name.as_ref(), subject),
        Condition::SourceIp(range) => range.contains(&downstream.remote.ip().to_canonical()),
        Condition::RemoteIp(range) => range.contains(&subject.client.to_canonical()),
        Condition::Metadata(test) => metadata_matches(test, subject.metadata),
    }
}

/// Whether the peer showed a certificate with such a name: any URI name, DNS name, or the subject.
fn authenticated(name: Option<&crate::model::text::TextMatch>, subject: &Subject<'_>) -> bool {
    let Some(peer) = subject.downstream.peer.as_deref() else {
        return false;
    };
    let Some(name) = name else {
        return true;
    };
    let any = |names: &[Box<str>]| names.iter().any(|one| name.matches(one));
    any(&peer.uris) || any(&peer.dns) || name.matches(&peer.subject)
}

/// Whether a value that a filter wrote down is as it must be.
#[must_use]
pub fn metadata_matches(test: &MetadataMatch, metadata: &Metadata) -> bool {
    let value = metadata.get(&test.filter, &test.path);
    value_matches(&test.value, value) != test.invert
}

fn value_matches(test: &ValueMatch, value: Option<&Value>) -> bool {
    match (test, value) {
        (ValueMatch::Present(present), value) => value.is_some() == *present,
        (ValueMatch::Any(tests), value) => tests.iter().any(|test| value_matches(test, value)),
        (_, None) => false,
        (ValueMatch::Null, Some(value)) => value.is_null(),
        (ValueMatch::Number(number), Some(value)) => value.as_f64() == Some(*number),
        (ValueMatch::NumberRange(from, to), Some(value)) => value
            .as_f64()
            .is_some_and(|number| number >= *from && number < *to),
        (ValueMatch::Text(text), Some(value)) => {
            value.as_str().is_some_and(|one| text.matches(one))
        }
        (ValueMatch::Bool(truth), Some(value)) => value.as_bool() == Some(*truth),
        (ValueMatch::OneOf(test), Some(value)) => value
            .as_array()
            .is_some_and(|list| list.iter().any(|one| value_matches(test, Some(one)))),
    }
}
