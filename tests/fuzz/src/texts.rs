//! The small languages that stand in resources, heads and tokens: paths, formats, templates, keys,
//! authorities, identities.

use std::str::FromStr;

use http::uri::PathAndQuery;
use mesh::hbone::Destination;
use mesh::identity::Identity;
use waypoint::expression;
use waypoint::intake::served::Notes;
use waypoint::intake::{format, template, text};
use waypoint::jwt::keys;
use waypoint::model::format::Operator;
use waypoint::model::http::{EscapedSlashes, PathNormalisation};
use waypoint::path::{Normalised, normalise};
use waypoint::route::headers::{Values, render};

/// Every way in which escaped slashes can be met.
const SLASHES: [EscapedSlashes; 4] = [
    EscapedSlashes::Keep,
    EscapedSlashes::Reject,
    EscapedSlashes::UnescapeAndForward,
    EscapedSlashes::UnescapeAndRedirect,
];

/// Of it everything is known, and is a small number.
struct Everything;

impl Values for Everything {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        match operator {
            Operator::Expression(expression) => expression::write(expression, self, out),
            _ => {
                out.push_str("42");
                true
            }
        }
    }
}

/// The input is a text, as far as it is one.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut notes = Notes::default();
    if let Ok(format) = format::parse(&text, &mut notes) {
        render(&format, &Everything, "-", &mut String::new());
    }
    let _ = template::parse(&text);
    let _ = keys::parse(bytes);
    let _ = text::header_key(&text);
    if let Ok(authority) = Destination::from_str(&text) {
        let again = Destination::from_str(&authority.to_string());
        assert_eq!(
            again.ok(),
            Some(authority),
            "an authority reads back as another"
        );
    }
    if let Ok(identity) = Identity::from_str(&text) {
        let again = Identity::from_str(&identity.to_string());
        assert_eq!(
            again.ok(),
            Some(identity),
            "an identity reads back as another"
        );
    }
    // No other path comes out of an HTTP head.
    if PathAndQuery::try_from(&*text).is_ok() {
        for escaped_slashes in SLASHES {
            paths(&text, escaped_slashes);
        }
    }
}

/// What went through once comes out the same when it goes through again: otherwise a policy sees
/// another path than the destination's own proxy.
fn paths(path: &str, escaped_slashes: EscapedSlashes) {
    let how = PathNormalisation {
        normalize: true,
        merge_slashes: true,
        escaped_slashes,
    };
    if let Normalised::Path(once) = normalise(path, &how) {
        assert!(path.starts_with('/') || !once.starts_with("/../"), "{once}");
        match normalise(&once, &how) {
            Normalised::Path(twice) => assert_eq!(once, twice, "of {path:?}"),
            other => panic!("{path:?} goes through as {once:?}, and that is {other:?}"),
        }
    }
}
