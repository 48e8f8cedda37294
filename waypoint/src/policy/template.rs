//! Paths by segments with wildcards, as `AuthorizationPolicy` writes them: `{*}` is one segment,
//! `{**}` any number of them.

use crate::model::policy::{PathTemplate, Segment};

/// Whether a path (without query) is like a template.
#[must_use]
pub fn template_matches(template: &PathTemplate, path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    fits(&template.segments, path)
}

/// Whether the rest of a path, after its slash, is like the rest of a template.
fn fits(segments: &[Segment], path: &str) -> bool {
    let Some((first, rest)) = segments.split_first() else {
        return path.is_empty();
    };
    if let Segment::Many(end) = first {
        return many(end, rest, path);
    }
    let (segment, behind) = match path.split_once('/') {
        Some((segment, behind)) => (segment, Some(behind)),
        None => (path, None),
    };
    let here = match first {
        Segment::Literal(text) => *segment == **text,
        Segment::One => !segment.is_empty() && is_wild(segment),
        Segment::Many(_) => false,
    };
    here && match behind {
        None => rest.is_empty(),
        Some(behind) => !rest.is_empty() && fits(rest, behind),
    }
}

/// Whether any number of segments, ending so, lead to the rest of a template.
fn many(end: &str, rest: &[Segment], path: &str) -> bool {
    let ends = |part: &str| part.strip_suffix(end).is_some_and(is_wild);
    if rest.is_empty() {
        return ends(path);
    }
    path.match_indices('/')
        .any(|(at, _)| ends(&path[..at]) && fits(rest, &path[at + 1..]))
}

/// Whether a wildcard may stand for this: slashes, and what RFC 3986 lets stand in a segment.
fn is_wild(text: &str) -> bool {
    const MARKS: &[u8] = b"/-._~%!$&'()*+,;=:@";
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || MARKS.contains(&byte))
}

#[cfg(test)]
mod tests;
