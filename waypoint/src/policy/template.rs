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
        Segment::One => !segment.is_empty(),
        Segment::Many(_) => false,
    };
    here && match behind {
        None => rest.is_empty(),
        Some(behind) => !rest.is_empty() && fits(rest, behind),
    }
}

/// Whether any number of segments, ending so, lead to the rest of a template.
fn many(end: &str, rest: &[Segment], path: &str) -> bool {
    if rest.is_empty() {
        return path.ends_with(end);
    }
    path.match_indices('/')
        .any(|(at, _)| path[..at].ends_with(end) && fits(rest, &path[at + 1..]))
}
