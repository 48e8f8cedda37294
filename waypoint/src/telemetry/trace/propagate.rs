//! Trace headers, read and written: W3C `traceparent`/`tracestate`, B3 in one header (`b3`) and in
//! several (`x-b3-*`). Malformed ones count as none.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The forms in which the next hop is told; in none it isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms {
    w3c: bool,
    b3: bool,
    b3_multi: bool,
}

impl Forms {
    /// W3C's alone.
    pub const W3C: Self = Self {
        w3c: true,
        b3: false,
        b3_multi: false,
    };
    /// B3 in several headers alone.
    pub const B3_MULTI: Self = Self {
        w3c: false,
        b3: false,
        b3_multi: true,
    };
}

/// What the caller said of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: u128,
    /// The caller's span.
    pub span: u64,
    /// Whether it is sampled; none where that is left to us.
    pub sampled: Option<bool>,
    /// `tracestate`
    pub state: Option<HeaderValue>,
    /// The forms that were there.
    pub forms: Forms,
}

/// What the caller said. W3C's form counts before B3's single header, and that before the several.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Option<Parent> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let w3c = text(&TRACEPARENT).and_then(traceparent);
    let b3 = text(&B3).and_then(single);
    let b3_multi = multi(headers);
    let forms = Forms {
        w3c: w3c.is_some(),
        b3: b3.is_some(),
        b3_multi: b3_multi.is_some(),
    };
    let (trace, span, sampled) = w3c.or(b3).or(b3_multi)?;
    Some(Parent {
        trace,
        span,
        sampled,
        state: headers.get(TRACESTATE).filter(|_| forms.w3c).cloned(),
        forms,
    })
}

/// Tells the next hop.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    let sampled = u8::from(span.sampled);
    let mut put = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    if span.forms.w3c {
        let text = format!("00-{:032x}-{:016x}-{sampled:02x}", span.trace, span.id);
        put(TRACEPARENT, text);
    }
    if span.forms.b3 {
        let parent = span.parent.map(|parent| format!("-{parent:016x}"));
        let parent = parent.unwrap_or_default();
        let text = format!("{:032x}-{:016x}-{sampled}{parent}", span.trace, span.id);
        put(B3, text);
    }
    if span.forms.b3_multi {
        put(B3_TRACE, format!("{:032x}", span.trace));
        put(B3_SPAN, format!("{:016x}", span.id));
        put(B3_SAMPLED, sampled.to_string());
        if let Some(parent) = span.parent {
            put(B3_PARENT, format!("{parent:016x}"));
        }
    }
    if let Some(state) = span.state.clone().filter(|_| span.forms.w3c) {
        headers.insert(TRACESTATE, state);
    }
}

type Ids = (u128, u64, Option<bool>);

/// `version-trace-parent-flags`. A later version may have more parts behind.
fn traceparent(text: &str) -> Option<Ids> {
    let mut parts = text.trim().split('-');
    let version = hex(parts.next()?, 2..=2)?;
    let trace = hex(parts.next()?, 32..=32)?;
    let span = hex(parts.next()?, 16..=16)?;
    let flags = hex(parts.next()?, 2..=2)?;
    let is_known = version != 0xff && (version != 0 || parts.next().is_none());
    is_known.then_some(())?;
    ids(trace, span, Some(flags & 1 == 1))
}

/// `trace-span-sampled-parent`, of which the last two may be missing.
fn single(text: &str) -> Option<Ids> {
    let mut parts = text.trim().split('-');
    let trace = hex(parts.next()?, 16..=32)?;
    let span = hex(parts.next()?, 16..=16)?;
    let sampled = match parts.next() {
        None => None,
        Some("1" | "d") => Some(true),
        Some("0") => Some(false),
        Some(_) => return None,
    };
    ids(trace, span, sampled)
}

fn multi(headers: &HeaderMap) -> Option<Ids> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let trace = hex(text(&B3_TRACE)?, 16..=32)?;
    let span = hex(text(&B3_SPAN)?, 16..=16)?;
    let sampled = match (text(&B3_FLAGS), text(&B3_SAMPLED)) {
        (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
        (_, Some("0" | "false")) => Some(false),
        _ => None,
    };
    ids(trace, span, sampled)
}

/// Zero is no trace and no span.
fn ids(trace: u128, span: u128, sampled: Option<bool>) -> Option<Ids> {
    let span = u64::try_from(span).ok()?;
    (trace != 0 && span != 0).then_some((trace, span, sampled))
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits.contains(&text.len()) && is_hex).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests;
