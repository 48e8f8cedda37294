//! What gRPC says in its own words: statuses for those of HTTP, messages as headers carry them, and
//! gRPC-Web ([`web`]), by which browsers speak it. Pure.

pub mod text;
pub mod web;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// The header or trailer with a call's status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The header or trailer with what is said of it.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Nobody says what went wrong.
pub const UNKNOWN: u32 = 2;
/// A call's own time is over.
pub const DEADLINE_EXCEEDED: u32 = 4;
/// There is too much of something.
pub const RESOURCE_EXHAUSTED: u32 = 8;
/// It went wrong on the way.
pub const INTERNAL: u32 = 13;
/// There is nobody to ask.
pub const UNAVAILABLE: u32 = 14;

/// What is escaped in `grpc-message`, as Envoy does it: what isn't printable ASCII, the tilde, and the
/// escape itself.
const ESCAPED: AsciiSet = CONTROLS.add(b'%').add(b'~');

/// The names of statuses by their numbers, as Envoy writes them.
const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// gRPC's status for an HTTP status, as gRPC's own mapping has it.
#[must_use]
pub fn status_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The names of a status, `DeadlineExceeded` and `DEADLINE_EXCEEDED`, where it is a known one.
#[must_use]
pub fn names(status: u32) -> Option<(&'static str, &'static str)> {
    NAMES.get(usize::try_from(status).ok()?).copied()
}

/// A call's status, where headers or trailers tell it.
#[must_use]
pub fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// A message as a call carries it, not compressed; none where it is longer than can be said.
#[must_use]
pub fn framed(message: &[u8]) -> Option<Bytes> {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.extend_from_slice(message);
    Some(framed.freeze())
}

/// A text as `grpc-message` carries it.
#[must_use]
pub fn message(text: &[u8]) -> HeaderValue {
    let escaped = percent_encode(text, &ESCAPED).to_string();
    // What was escaped is printable ASCII.
    HeaderValue::try_from(escaped).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(message(b"100% ~ok"), "100%25 %7Eok");
        assert_eq!(message("é\r\n".as_bytes()), "%C3%A9%0D%0A");
        assert_eq!(message(&[0xff]), "%FF");
    }

    #[test]
    fn a_frame_is_its_length_and_the_message() {
        assert_eq!(&*framed(b"one").unwrap(), b"\0\0\0\0\x03one");
        assert_eq!(&*framed(b"").unwrap(), [0; 5]);
    }

    #[test]
    fn statuses_are_those_of_grpcs_own_mapping() {
        let of = |status| status_of(StatusCode::from_u16(status).unwrap());
        assert_eq!([400, 401, 403, 404].map(of), [13, 16, 7, 12]);
        assert_eq!([429, 502, 503, 504].map(of), [14; 4]);
        assert_eq!([200, 418, 500].map(of), [2; 3]);
    }
}
