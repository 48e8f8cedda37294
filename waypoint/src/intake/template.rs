//! Envoy's path templates (`/a/*/b/**`, `/a/{name}/{rest=**}`) →
//! [`model::policy::PathTemplate`](crate::model::policy::PathTemplate). Variables have names only for
//! rewriting, which isn't served, so that only their patterns are kept.

use super::error::Refused;
use crate::model::policy::{PathTemplate, Segment};

/// Envoy's limit to variables of one template.
const VARIABLES: usize = 5;

/// A template.
///
/// # Errors
/// It doesn't begin with a slash, has an unpaired bracket, a wildcard beside text, or anything but
/// text after `**`.
pub fn parse(source: &str) -> Result<PathTemplate, Refused> {
    let bad = |why: &str| Refused::new(format!("{source:?} {why}"));
    let path = source
        .strip_prefix('/')
        .ok_or_else(|| bad("doesn't begin with a slash"))?;
    let flat = without_variables(path).map_err(bad)?;
    let mut segments = Vec::new();
    let mut many = false;
    for text in flat.split('/') {
        let wildcard = text.contains('*');
        if wildcard && many {
            return Err(bad("has a wildcard after **, which must be the last one"));
        }
        segments.push(match text.strip_prefix("**") {
            Some(end) if !end.contains('*') => {
                many = true;
                Segment::Many(end.into())
            }
            None if text == "*" => Segment::One,
            None if !wildcard => Segment::Literal(text.into()),
            _ => return Err(bad("has a wildcard beside text in a segment")),
        });
    }
    Ok(PathTemplate { segments })
}

/// Puts the patterns of variables in place of them: `{name}` is `*`.
fn without_variables(path: &str) -> Result<String, &'static str> {
    let mut flat = String::with_capacity(path.len());
    let mut rest = path;
    let mut variables = 0;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, behind) = after.split_once('}').ok_or("has an unpaired bracket")?;
        variables += 1;
        if variables > VARIABLES {
            return Err("has more than five variables");
        }
        let (name, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        if name.is_empty() || pattern.is_empty() || variable.contains('{') {
            return Err("has a variable without a name or pattern");
        }
        flat.push_str(before);
        flat.push_str(pattern);
        rest = behind;
    }
    if rest.contains('}') || flat.contains('}') {
        return Err("has an unpaired bracket");
    }
    flat.push_str(rest);
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_segments() {
        let literal = |text: &str| Segment::Literal(text.into());
        let many = |end: &str| Segment::Many(end.into());
        for (source, segments) in [
            ("/", vec![literal("")]),
            ("/a/*/b", vec![literal("a"), Segment::One, literal("b")]),
            ("/a/**", vec![literal("a"), many("")]),
            ("/**.ts", vec![many(".ts")]),
            ("/**/b", vec![many(""), literal("b")]),
            ("/a/{id}", vec![literal("a"), Segment::One]),
            (
                "/{v=v1/*}/{rest=**}.m3u8",
                vec![literal("v1"), Segment::One, many(".m3u8")],
            ),
        ] {
            assert_eq!(parse(source).unwrap().segments, segments, "{source}");
        }
    }

    #[test]
    fn what_envoy_refuses_is_refused() {
        for source in [
            "a",
            "/{a",
            "/a}",
            "/a*",
            "/*b",
            "/**/*",
            "/**/**",
            "/{=*}",
            "/{}",
            "/{a={b}}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/***",
        ] {
            assert!(parse(source).is_err(), "{source}");
        }
    }
}
