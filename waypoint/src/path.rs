//! How a request's path is normalised before anything looks at it: RFC 3986's dot segments, merged
//! slashes, escaped slashes, as Envoy's `path_utility` does it. A policy that compares paths is
//! worth only as much as this.

use std::borrow::Cow;

use crate::model::http::{EscapedSlashes, PathNormalisation};

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normalised<'a> {
    /// It goes on, like this; borrowed where nothing changed.
    Path(Cow<'a, str>),
    /// The client is redirected to this path: 307, `location` is the path itself.
    Redirect(String),
    /// It is refused: 400, details `path_normalization_failed`.
    Refused,
}

/// Normalises a path with its query, which stays as it is. A path with a fragment, or with a
/// character beyond ASCII, is refused however paths are normalised: no client sends one, and
/// upstreams differ in what they make of it.
#[must_use]
pub fn normalise<'a>(path: &'a str, how: &PathNormalisation) -> Normalised<'a> {
    if is_plain(path) {
        return Normalised::Path(Cow::Borrowed(path));
    }
    if path.contains('#') || !path.is_ascii() {
        return Normalised::Refused;
    }
    let end = path.find('?').unwrap_or(path.len());
    let (only, rest) = path.split_at(end);
    let mut now = Cow::Borrowed(only);
    let mut redirect = false;
    match how.escaped_slashes {
        EscapedSlashes::Keep => {}
        EscapedSlashes::Reject if has_escaped_slash(only) => return Normalised::Refused,
        EscapedSlashes::Reject => {}
        EscapedSlashes::UnescapeAndForward | EscapedSlashes::UnescapeAndRedirect => {
            if has_escaped_slash(only) {
                now = Cow::Owned(unescape_slashes(only));
                redirect = how.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
            }
        }
    }
    if how.normalize {
        match canonical(&now) {
            Some(Cow::Owned(new)) => now = Cow::Owned(new),
            Some(Cow::Borrowed(_)) => {}
            None => return Normalised::Refused,
        }
    }
    if how.merge_slashes && now.contains("//") {
        now = Cow::Owned(merge_slashes(&now));
    }
    match now {
        Cow::Borrowed(_) => Normalised::Path(Cow::Borrowed(path)),
        Cow::Owned(new) if redirect => Normalised::Redirect(new + rest),
        Cow::Owned(new) => Normalised::Path(Cow::Owned(new + rest)),
    }
}

/// Whether nothing of a path can change, however paths are normalised: it has no query, only
/// characters that are always spelt as they are, and no segment that is empty or begins with a dot.
/// One look at each byte, which is enough for most paths.
fn is_plain(path: &str) -> bool {
    let Some(rest) = path.as_bytes().strip_prefix(b"/") else {
        return false;
    };
    let mut begins = true;
    rest.iter().all(|byte| {
        let first = std::mem::replace(&mut begins, *byte == b'/');
        match byte {
            b'/' | b'.' => !first,
            b'-' | b'_' | b'~' => true,
            byte => byte.is_ascii_alphanumeric(),
        }
    })
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes()
        .windows(3)
        .any(|window| escaped_slash(window).is_some())
}

/// The slash that three bytes stand for.
fn escaped_slash(three: &[u8]) -> Option<char> {
    match three {
        b"%2f" | b"%2F" => Some('/'),
        b"%5c" | b"%5C" => Some('\\'),
        _ => None,
    }
}

fn unescape_slashes(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        new.push_str(before);
        let slash = from.as_bytes().get(..3).and_then(escaped_slash);
        new.push(slash.unwrap_or('%'));
        rest = &from[if slash.is_some() { 3 } else { 1 }..];
    }
    new.push_str(rest);
    new
}

/// Neighbouring slashes as one. A path of nothing but slashes keeps two, as in Envoy.
fn merge_slashes(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        if !new.is_empty() || path.starts_with('/') {
            new.push('/');
        }
        new.push_str(segment);
    }
    match (new.is_empty(), path.ends_with('/')) {
        (true, _) => new.push_str("//"),
        (false, true) => new.push('/'),
        (false, false) => {}
    }
    new
}

/// The path in its canonical form, as Envoy's URL library has it: escapes that need none undone,
/// characters that need one escaped, backslashes as slashes, no dot segments. Nothing where it
/// isn't a path or has a zero byte; borrowed where it is canonical already.
fn canonical(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        return None;
    }
    let bytes = path.as_bytes();
    let is_odd = |byte: &u8| matches!(byte, b'%' | b'\\') || must_escape(*byte);
    let has_dot_segment = || bytes.windows(2).any(|two| two == b"/.");
    if !bytes.iter().any(is_odd) && !has_dot_segment() {
        return Some(Cow::Borrowed(path));
    }
    let spelt = spell(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = spelt[1..].split('/').peekable();
    while let Some(segment) = rest.next() {
        match without_parameters(segment) {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => {
                segments.push(segment);
                continue;
            }
        }
        if rest.peek().is_none() {
            segments.push("");
        }
    }
    let mut new = String::with_capacity(spelt.len());
    for segment in segments {
        new.push('/');
        new.push_str(segment);
    }
    Some(match new == path {
        true => Cow::Borrowed(path),
        false => Cow::Owned(new),
    })
}

/// A dot segment without its parameters: servers that know parameters (`/a/..;x/b`) take it for one. Envoy
/// does so where the dots are spelt as dots, ours also where they were escaped, for the upstream can't
/// tell any more. Any other segment is returned as it is.
fn without_parameters(segment: &str) -> &str {
    match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots,
        _ => segment,
    }
}

/// Every character in its one spelling.
fn spell(path: &str) -> Option<String> {
    let mut new = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (*first, escaped(behind)) {
            (b'%', Some(0)) => return None,
            (b'%', Some(byte)) if is_unreserved(byte) => {
                new.push(char::from(byte));
                rest = &behind[2..];
            }
            (b'\\', _) => new.push('/'),
            (byte, _) if must_escape(byte) => new.push_str(&format!("%{byte:02X}")),
            (byte, _) => new.push(char::from(byte)),
        }
    }
    Some(new)
}

/// The byte that two hexadecimal digits stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn must_escape(byte: u8) -> bool {
    byte <= b' '
        || byte == 0x7f
        || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests;
