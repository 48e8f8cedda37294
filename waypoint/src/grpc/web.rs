//! gRPC-Web ↔ gRPC, as Envoy's filter translates it: heads both ways, and trailers as the last frame of
//! a body, for browsers show none to their programs. What comes or goes as text is [`super::text`]'s.
//! Pure.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};

use super::text::Encoder;
use super::{MESSAGE, STATUS, message, status_of};
use crate::head::{is_grpc, joined};

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const BINARY: [&str; 2] = ["application/grpc-web", "application/grpc-web+proto"];
const TEXT: [&str; 2] = [
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];
/// The flag of a frame that has trailers and no message.
const TRAILERS: u8 = 0x80;

/// The most of an upstream's plain words that is told in `grpc-message`, in bytes.
pub const MOST_WORDS: usize = 16 << 10;

/// How a caller speaks gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Web {
    /// Its request is base64.
    pub asks_in_text: bool,
    /// So is the answer to be.
    pub wants_text: bool,
}

impl Web {
    /// Makes the head of a gRPC request from one of gRPC-Web; none where it isn't any.
    #[must_use]
    pub fn translate(headers: &mut HeaderMap) -> Option<Self> {
        let is = |name, kinds: [&str; 2]| {
            let value = joined(headers, name);
            value.is_some_and(|value| kinds.contains(&value.as_ref()))
        };
        let asks_in_text = is(&header::CONTENT_TYPE, TEXT);
        if !asks_in_text && !is(&header::CONTENT_TYPE, BINARY) {
            return None;
        }
        let wants_text = is(&header::ACCEPT, TEXT);
        // It was that of the text, or of a body that goes in frames now.
        headers.remove(header::CONTENT_LENGTH);
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let encodings = headers.entry(ACCEPT_ENCODING);
        encodings.or_insert(HeaderValue::from_static("identity"));
        Some(Self {
            asks_in_text,
            wants_text,
        })
    }

    /// Changes the head of an answer.
    pub fn answer(self, headers: &mut HeaderMap) {
        headers.remove(header::CONTENT_LENGTH);
        let kind = match self.wants_text {
            true => TEXT[1],
            false => BINARY[1],
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }

    /// The body of an answer.
    #[must_use]
    pub fn body(self) -> Body {
        Body(self.wants_text.then(Encoder::default))
    }
}

/// Whether an answer with a body is neither gRPC nor gRPC-Web, so that the caller could make nothing of
/// it.
#[must_use]
pub fn is_foreign(status: StatusCode, headers: &HeaderMap) -> bool {
    status != StatusCode::OK || !(is_grpc(headers) || is_binary(headers))
}

fn is_binary(headers: &HeaderMap) -> bool {
    let value = joined(headers, &header::CONTENT_TYPE);
    let kind = value.as_deref().and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| {
        let mut known = BINARY.iter();
        known.any(|known| known.eq_ignore_ascii_case(kind.trim_end()))
    })
}

/// Says in the head, in gRPC's words, what stood in the body of a foreign answer.
pub fn tell(headers: &mut HeaderMap, status: StatusCode, body: &[u8]) {
    let words = &body[..body.len().min(MOST_WORDS)];
    headers.insert(MESSAGE, message(words));
    headers.insert(STATUS, HeaderValue::from(status_of(status)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
}

/// The body of an answer on its way: as it is, or as text.
#[derive(Debug)]
pub struct Body(Option<Encoder>);

impl Body {
    /// What the next bytes become; `last` where no more follow. Empty where they wait for more.
    #[must_use]
    pub fn data(&mut self, bytes: Bytes, last: bool) -> Bytes {
        let Some(encoder) = &mut self.0 else {
            return bytes;
        };
        let mut text = encoder.take(&bytes);
        if last {
            text.push_str(&encoder.end());
        }
        text.into()
    }

    /// What still waited: no trailers follow.
    #[must_use]
    pub fn end(&mut self) -> Bytes {
        self.data(Bytes::new(), true)
    }

    /// The last frame: the answer's trailers.
    #[must_use]
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Bytes {
        let mut lines = Vec::new();
        for (name, value) in trailers {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        // Trailers are bounded by what a head may have.
        let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(5 + lines.len());
        frame.push(TRAILERS);
        frame.extend(length.to_be_bytes());
        frame.append(&mut lines);
        let Some(encoder) = &mut self.0 else {
            return frame.into();
        };
        // A frame of its own, whatever the one before lacks.
        let mut text = encoder.end();
        let mut apart = Encoder::default();
        text.push_str(&apart.take(&frame));
        text.push_str(&apart.end());
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(named).collect()
    }

    #[test]
    fn four_content_types_are_of_grpc_web() {
        for (kind, accept, expected) in [
            ("application/grpc-web", "*/*", Some((false, false))),
            ("application/grpc-web+proto", "", Some((false, false))),
            (
                "application/grpc-web-text",
                "application/grpc-web-text",
                Some((true, true)),
            ),
            (
                "application/grpc-web-text+proto",
                "application/grpc-web+proto",
                Some((true, false)),
            ),
            (
                "application/grpc-web",
                "application/grpc-web-text+proto",
                Some((false, true)),
            ),
            ("application/grpc-web+json", "", None),
            ("application/grpc-web; charset=utf-8", "", None),
            ("Application/grpc-web", "", None),
            ("application/grpc", "", None),
            ("application/json", "application/grpc-web-text", None),
        ] {
            let mut head = headers(&[
                ("content-type", kind),
                ("accept", accept),
                ("content-length", "7"),
                ("te", "gzip"),
            ]);
            let before = head.clone();
            let found = Web::translate(&mut head);
            let found = found.map(|web| (web.asks_in_text, web.wants_text));
            assert_eq!(found, expected, "{kind}");
            match expected {
                None => assert_eq!(head, before),
                Some(_) => {
                    assert_eq!(head["content-type"], "application/grpc");
                    assert_eq!(head["te"], "trailers");
                    assert_eq!(head["grpc-accept-encoding"], "identity");
                    assert!(!head.contains_key("content-length"));
                }
            }
        }
    }

    #[test]
    fn encodings_that_the_caller_names_stay() {
        let mut head = headers(&[
            ("content-type", "application/grpc-web"),
            ("grpc-accept-encoding", "gzip"),
        ]);
        assert!(Web::translate(&mut head).is_some());
        assert_eq!(head["grpc-accept-encoding"], "gzip");
    }

    #[test]
    fn only_what_the_caller_can_read_is_not_foreign() {
        for (status, kind, foreign) in [
            (200, "application/grpc", false),
            (200, "application/grpc+proto", false),
            (200, "application/grpc-web+proto; charset=x", false),
            (200, "APPLICATION/GRPC-WEB", false),
            (200, "application/grpc-web-text", true),
            (200, "text/html", true),
            (503, "application/grpc", true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let head = headers(&[("content-type", kind)]);
            assert_eq!(is_foreign(status, &head), foreign, "{status} {kind}");
        }
        assert!(is_foreign(StatusCode::OK, &HeaderMap::new()));
    }

    #[test]
    fn a_foreign_answer_is_told_in_its_head() {
        let mut head = headers(&[("content-type", "text/plain"), ("content-length", "3")]);
        tell(&mut head, StatusCode::FORBIDDEN, "no%\n".as_bytes());
        assert_eq!(head["grpc-status"], "7");
        assert_eq!(head["grpc-message"], "no%25%0A");
        assert_eq!(head["content-length"], "0");
        tell(&mut head, StatusCode::OK, &vec![b'x'; MOST_WORDS + 1]);
        assert_eq!(head["grpc-message"].len(), MOST_WORDS);
    }

    #[test]
    fn trailers_are_the_last_frame() {
        let trailers = headers(&[("grpc-status", "0"), ("x-y", "z")]);
        let expected = b"\x80\0\0\0\x16grpc-status:0\r\nx-y:z\r\n";
        let web = |wants_text| Web {
            asks_in_text: false,
            wants_text,
        };
        let mut binary = web(false).body();
        let bytes = Bytes::from_static(b"\0\0");
        assert_eq!(binary.data(bytes.clone(), false), bytes);
        assert_eq!(binary.trailers(&trailers), expected.as_slice());
        assert!(binary.end().is_empty());
        let mut text = web(true).body();
        assert!(text.data(bytes, false).is_empty());
        let told = [STANDARD.encode([0, 0]), STANDARD.encode(expected)].concat();
        assert_eq!(text.trailers(&trailers), told);
        let mut cut = web(true).body();
        assert_eq!(cut.data(Bytes::from_static(b"\0"), true), "AA==");
    }
}
