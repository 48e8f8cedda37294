//! What must come of a case, written out with it, so that the table means something before the two
//! proxies are compared: Envoy must do what is written, and then ours what Envoy does.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::observe::{Observation, text};

/// Standard deviations that a weighted choice may be off.
const SIGMAS: f64 = 4.0;

/// Expectations; what is left out isn't looked at. A value that starts with `~` is a regular
/// expression, null means absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The last answer's status.
    pub status: Option<u16>,
    /// All statuses in order: 1xx and pipelined answers.
    pub statuses: Option<Vec<u16>>,
    /// The cluster whose endpoint saw the request last; `none` when no backend may see it.
    pub cluster: Option<String>,
    /// The number of that endpoint.
    pub endpoint: Option<usize>,
    /// How many times backends saw it, mirrors included.
    pub attempts: Option<usize>,
    /// How many times a cluster saw it: mirrors.
    pub mirrored: BTreeMap<String, usize>,
    /// How many bytes of body a cluster saw.
    pub bytes_at: BTreeMap<String, usize>,
    /// The method the backend saw.
    pub method: Option<String>,
    /// The path the backend saw.
    pub path: Option<Value>,
    /// The authority the backend saw.
    pub authority: Option<Value>,
    /// Headers the backend saw.
    pub seen: Map<String, Value>,
    /// The body the backend saw.
    pub received: Option<Value>,
    /// Headers of the answer.
    pub headers: Map<String, Value>,
    /// The answer's body.
    pub body: Option<Value>,
    /// The answer's trailers.
    pub trailers: Map<String, Value>,
    /// Response flags, as logged.
    pub flags: Option<Value>,
    /// Response code details, as logged.
    pub details: Option<Value>,
    /// Connection termination details, as logged.
    pub termination: Option<Value>,
    /// The route's name, as logged.
    pub route: Option<Value>,
    /// No whole answer comes: the stream is reset or the connection closed.
    pub broken: bool,
    /// The proxy closes the connection.
    pub closed: Option<bool>,
    /// Of many: how often each status comes.
    pub counts: Option<BTreeMap<u16, usize>>,
    /// Of many: the share of each cluster, within four standard deviations.
    pub spread: Option<BTreeMap<String, f64>>,
    /// Of many: how many different endpoints served.
    pub hosts: Option<usize>,
    /// Of many: the share of answers with each status, within four standard deviations.
    pub shares: Option<BTreeMap<u16, f64>>,
}

impl Expect {
    /// What is wrong with what was observed; empty when nothing is.
    #[must_use]
    pub fn check(&self, all: &[Observation]) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(counts) = &self.counts {
            let mut found = BTreeMap::new();
            for status in all.iter().filter_map(Observation::status) {
                *found.entry(status).or_insert(0) += 1;
            }
            differs(&mut wrong, "counts", counts, &found);
        }
        if let Some(spread) = &self.spread {
            let of = |name: &str| all.iter().filter(|o| chosen(o) == name).count();
            shares(&mut wrong, "cluster", spread, all.len(), |name| of(name));
        }
        if let Some(wanted) = &self.shares {
            let of = |status: u16| all.iter().filter(|o| o.status() == Some(status)).count();
            shares(&mut wrong, "status", wanted, all.len(), |status| {
                of(*status)
            });
        }
        if let Some(hosts) = self.hosts {
            let found: BTreeSet<_> = all
                .iter()
                .filter_map(|o| o.seen.last())
                .map(|seen| (&seen.cluster, seen.endpoint))
                .collect();
            differs(&mut wrong, "hosts", &hosts, &found.len());
        }
        for one in all {
            let before = wrong.len();
            self.check_one(one, &mut wrong);
            if wrong.len() > before {
                // The rest would say the same again.
                break;
            }
        }
        wrong
    }

    fn check_one(&self, one: &Observation, wrong: &mut Vec<String>) {
        if let (Some(error), false) = (&one.error, self.broken) {
            wrong.push(format!("no answer: {error}"));
            return;
        }
        if self.broken && one.error.is_none() && !one.closed {
            wrong.push(format!("a whole answer came ({:?})", one.status()));
        }
        if let Some(status) = self.status {
            differs(wrong, "status", &Some(status), &one.status());
        }
        if let Some(statuses) = &self.statuses {
            differs(wrong, "statuses", statuses, &one.statuses);
        }
        if let Some(closed) = self.closed {
            differs(wrong, "closed", &closed, &one.closed);
        }
        if let Some(attempts) = self.attempts {
            differs(wrong, "attempts", &attempts, &one.seen.len());
        }
        if let Some(cluster) = &self.cluster {
            differs(wrong, "cluster", &cluster.as_str(), &chosen(one));
        }
        for (cluster, count) in &self.mirrored {
            let found = one.seen.iter().filter(|s| s.cluster == *cluster).count();
            differs(wrong, &format!("requests at {cluster}"), count, &found);
        }
        for (cluster, bytes) in &self.bytes_at {
            let found = one.seen.iter().find(|s| s.cluster == *cluster);
            let found = found.map(|seen| seen.body.len());
            differs(wrong, &format!("bytes at {cluster}"), &Some(*bytes), &found);
        }
        let seen = one.chosen();
        if let Some(endpoint) = self.endpoint {
            differs(
                wrong,
                "endpoint",
                &Some(endpoint),
                &seen.map(|s| s.endpoint),
            );
        }
        let values = [
            ("path", &self.path, seen.map(|s| s.path.clone())),
            (
                "authority",
                &self.authority,
                seen.map(|s| s.authority.clone()),
            ),
            ("received", &self.received, seen.map(|s| s.body.clone())),
            ("body", &self.body, Some(one.body.clone())),
            ("flags", &self.flags, one.logged("flags")),
            ("details", &self.details, one.logged("details")),
            ("termination", &self.termination, one.logged("termination")),
            ("route", &self.route, one.logged("route")),
        ];
        for (what, expected, found) in values {
            if let Some(expected) = expected {
                matches(wrong, what, expected, found.as_deref());
            }
        }
        if let Some(method) = &self.method {
            differs(wrong, "method", &Some(method), &seen.map(|s| &s.method));
        }
        let nothing = Vec::new();
        let lists = [
            ("seen", &self.seen, seen.map_or(&nothing, |s| &s.headers)),
            ("answer", &self.headers, &one.headers),
            ("trailer", &self.trailers, &one.trailers),
        ];
        for (what, expected, found) in lists {
            for (name, value) in expected {
                let found = values_of(found, name);
                matches(wrong, &format!("{what} {name}"), value, found.as_deref());
            }
        }
    }
}

/// The short name of the cluster that answered, or saw the request last; `none` when none did.
fn chosen(one: &Observation) -> &str {
    let from = one.headers.iter().find(|(n, _)| n == crate::backend::FROM);
    let answered = from.and_then(|(_, value)| value.split('/').next());
    let seen = || one.chosen().map(|s| s.cluster.as_str());
    answered.or_else(seen).unwrap_or("none")
}

/// All values of a header, joined as a list is.
fn values_of(headers: &[(String, String)], name: &str) -> Option<String> {
    let all: Vec<_> = headers
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
        .collect();
    (!all.is_empty()).then(|| all.join(","))
}

fn matches(wrong: &mut Vec<String>, what: &str, expected: &Value, found: Option<&str>) {
    let fits = match (expected, found) {
        (Value::Null, found) => found.is_none(),
        (_, None) => false,
        (expected, Some(found)) => {
            let expected = text(expected);
            match expected.strip_prefix('~') {
                Some(regex) => Regex::new(regex).is_ok_and(|regex| regex.is_match(found)),
                None => expected == found,
            }
        }
    };
    if !fits {
        wrong.push(format!("{what}: expected {expected}, got {found:?}"));
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(
    wrong: &mut Vec<String>,
    what: &str,
    expected: &T,
    found: &T,
) {
    if expected != found {
        wrong.push(format!("{what}: expected {expected:?}, got {found:?}"));
    }
}

fn shares<K: std::fmt::Display>(
    wrong: &mut Vec<String>,
    what: &str,
    wanted: &BTreeMap<K, f64>,
    total: usize,
    count: impl Fn(&K) -> usize,
) {
    let n = total as f64;
    for (key, share) in wanted {
        let found = count(key) as f64;
        let deviation = (n * share * (1.0 - share)).sqrt();
        if (found - n * share).abs() > SIGMAS * deviation {
            wrong.push(format!(
                "{what} {key}: expected {:.0} ± {:.0} of {n}, got {found}",
                n * share,
                SIGMAS * deviation
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(status: u16, from: &str) -> Observation {
        Observation {
            statuses: vec![status],
            headers: vec![("x-from".to_owned(), from.to_owned())],
            ..Observation::default()
        }
    }

    #[test]
    fn what_is_written_is_checked() {
        let expect: Expect =
            serde_yaml_ng::from_str("{status: 200, cluster: a, headers: {x-from: ~, x-b: null}}")
                .unwrap();
        assert!(expect.headers["x-from"].is_null());
        let expect: Expect = serde_yaml_ng::from_str(
            "{status: 200, cluster: a, headers: {x-from: '~^a/', x-b: null}}",
        )
        .unwrap();
        assert_eq!(expect.check(&[observed(200, "a/0")]), Vec::<String>::new());
        assert_eq!(expect.check(&[observed(404, "b/0")]).len(), 3);
        let broken = Expect {
            broken: true,
            ..Expect::default()
        };
        assert_eq!(broken.check(&[observed(200, "a/0")]).len(), 1);
    }

    #[test]
    fn a_spread_allows_four_standard_deviations() {
        let expect: Expect = serde_yaml_ng::from_str("{spread: {a: 0.5, b: 0.5}}").unwrap();
        let of = |a: usize| {
            let all = (0..100).map(|n| observed(200, if n < a { "a/0" } else { "b/0" }));
            expect.check(&all.collect::<Vec<_>>())
        };
        assert!(of(50).is_empty() && of(31).is_empty());
        assert!(!of(25).is_empty());
    }
}
