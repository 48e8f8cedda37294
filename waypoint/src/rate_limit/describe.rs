//! What is said of a request that a rate limit looks at, and which buckets it takes tokens from, as
//! Envoy's `local_ratelimit` decides it. Pure.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::head::{Head, decode, parameters};
use crate::model::rate_limit::{Action, Described, Limit, RateLimit};
use crate::model::text::HeaderKey;

/// One descriptor of a request: keys and values.
pub type Descriptor<'r> = Vec<(&'r str, Cow<'r, str>)>;

/// The request.
#[derive(Debug, Clone, Copy)]
pub struct About<'r> {
    /// Its head.
    pub head: Head<'r>,
    /// Its client's address.
    pub client: IpAddr,
    /// The cluster that it goes to.
    pub cluster: Option<&'r str>,
}

/// The descriptors that these limits make of a request, in order.
#[must_use]
pub fn descriptors<'r>(
    limits: impl Iterator<Item = &'r Limit>,
    about: About<'r>,
) -> Vec<Descriptor<'r>> {
    limits
        .filter_map(|limit| {
            let entries = limit.actions.iter();
            let entries = entries.map(|action| entry(action, about)).collect();
            let entries: Option<Vec<Entry<'r>>> = entries;
            let there: Descriptor<'r> = entries?.into_iter().flatten().collect();
            (!there.is_empty()).then_some(there)
        })
        .collect()
}

/// An entry that an action makes, or leaves out.
type Entry<'r> = Option<(&'r str, Cow<'r, str>)>;

/// None where there is to be no descriptor at all.
fn entry<'r>(action: &'r Action, about: About<'r>) -> Option<Entry<'r>> {
    let found = |key: &'r str, value: Option<Cow<'r, str>>, optional: bool| match value {
        Some(value) => Some(Some((key, value))),
        None => optional.then_some(None),
    };
    match action {
        Action::Header {
            header,
            key,
            optional,
        } => {
            let value = match header {
                HeaderKey::Name(name) => about.head.first(name),
                pseudo => about.head.value(pseudo),
            };
            found(key, value, *optional)
        }
        Action::Query {
            name,
            key,
            optional,
        } => {
            let mut all = parameters(about.head.path);
            let value = all.find_map(|(known, value)| (*decode(known) == **name).then_some(value));
            found(key, value.map(decode), *optional)
        }
        Action::RemoteAddress => {
            let address = about.client.to_string();
            Some(Some(("remote_address", address.into())))
        }
        Action::MaskedRemoteAddress { v4, v6 } => {
            let length = if about.client.is_ipv4() { *v4 } else { *v6 };
            let network = IpNet::new(about.client, length).ok()?.trunc();
            Some(Some(("masked_remote_address", network.to_string().into())))
        }
        Action::Generic { key, value } => Some(Some((&**key, Cow::Borrowed(&**value)))),
        Action::HeaderMatch {
            key,
            value,
            expected,
            headers,
        } => {
            let matches = about.head.matches_all(headers) == *expected;
            matches.then_some(Some((&**key, Cow::Borrowed(&**value))))
        }
        Action::DestinationCluster => found(
            "destination_cluster",
            about.cluster.map(Cow::Borrowed),
            false,
        ),
    }
}

/// Whether there is a token for a request with these descriptors; every token that it needs is taken.
pub fn take(limit: &RateLimit, said: &[Descriptor<'_>], now: Duration) -> bool {
    let mut always_common = true;
    let mut is_described = false;
    if let Some(descriptors) = limit.descriptors.as_deref() {
        always_common = descriptors.always_common;
        let mut matched: Vec<_> = said
            .iter()
            .filter_map(|said| Some((place(&descriptors.buckets, said)?, said)))
            .collect();
        // What fills slowest is asked first, so that who is denied takes little from the others.
        matched.sort_by_key(|(place, _)| *place);
        is_described = !matched.is_empty();
        let takes = |(place, said): &(usize, &Descriptor<'_>)| {
            let values = said.iter().map(|(_, value)| &**value);
            descriptors.buckets[*place].buckets.take(values, now)
        };
        if !matched.iter().all(takes) {
            return false;
        }
    }
    let common = limit.bucket.as_ref();
    let common = common.filter(|_| always_common || !is_described);
    common.is_none_or(|bucket| bucket.take(now))
}

/// The bucket of a descriptor: the one with all its values, else the first that leaves some open.
fn place(buckets: &[Described], said: &Descriptor<'_>) -> Option<usize> {
    let fits = |described: &Described, open: bool| {
        described.entries.len() == said.len()
            && described.entries.iter().zip(said).all(|(entry, said)| {
                let value = entry.1.as_deref();
                *entry.0 == *said.0 && value.map_or(open, |value| *value == *said.1)
            })
    };
    let exact = buckets.iter().position(|one| fits(one, false));
    exact.or_else(|| buckets.iter().position(|one| fits(one, true)))
}

#[cfg(test)]
mod tests;
