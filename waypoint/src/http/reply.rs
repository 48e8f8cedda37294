//! Answers that are made here rather than by an upstream: status, body and details as Envoy's local
//! replies have them, and in gRPC's own words for a gRPC request.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderName, Response, StatusCode};

use crate::grpc;
use crate::telemetry::Flags;

/// An answer that is made here.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// `%RESPONSE_CODE_DETAILS%`
    pub(super) details: std::borrow::Cow<'static, str>,
    /// `%RESPONSE_FLAGS%`
    pub(super) flag: Flags,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// gRPC's status, where it isn't to be made from the HTTP status.
    pub(super) grpc_status: Option<u32>,
}

/// A request that can't be served by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// HTTP/1.0 where it isn't accepted.
    LowVersion,
    /// No host.
    NoHost,
    /// Several hosts, or one that is none.
    BadHost,
    /// No path.
    NoPath,
    /// The target is neither a path nor a URL.
    NotAbsolute,
    /// The path can't be normalised.
    BadPath,
    /// More headers than are accepted.
    TooManyHeaders,
    /// An upgrade that isn't allowed.
    Upgrade,
    /// A length and a transfer encoding: where the request ends is open to doubt.
    LengthAndEncoding,
    /// A transfer coding other than chunks.
    Coding,
    /// The path has a fragment, which policies would not see.
    Fragment,
}

impl Reply {
    /// An answer without more than a body.
    pub(super) fn new(
        status: StatusCode,
        body: impl Into<Bytes>,
        details: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            flag: Flags::NONE,
            headers: Vec::new(),
            grpc_status: None,
        }
    }

    pub(super) fn flag(mut self, flag: Flags) -> Self {
        self.flag |= flag;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says that it was tried more than once, as Envoy's answer does.
    pub(super) fn say_retried(&mut self) {
        const BEFORE: &str = "before headers. ";
        let text = String::from_utf8_lossy(&self.body);
        if let Some((start, reason)) = text.split_once(BEFORE) {
            let said = format!("{start}{BEFORE}retried and the latest {reason}");
            self.body = said.into();
        }
    }

    /// Another address; a location that is no header value is left out.
    pub(super) fn redirect(status: StatusCode, location: &str) -> Self {
        let reply = Self::new(status, Bytes::new(), "direct_response");
        match HeaderValue::from_str(location) {
            Ok(location) => reply.header(header::LOCATION, location),
            Err(_) => reply,
        }
    }

    /// The answer as it is sent; its body apart.
    pub(super) fn response(self, grpc: bool) -> (Response<()>, Bytes) {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.extend(self.headers);
        if !grpc {
            if !self.body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            }
            *response.status_mut() = self.status;
            return (response, self.body);
        }
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        let status = self.grpc_status;
        let status = status.unwrap_or_else(|| grpc::status_of(self.status));
        headers.insert(grpc::STATUS, HeaderValue::from(status));
        if !self.body.is_empty() {
            headers.insert(grpc::MESSAGE, grpc::message(&self.body));
        }
        (response, Bytes::new())
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        use Refusal as R;
        let (status, details, flag) = match refusal {
            R::LowVersion => (
                StatusCode::UPGRADE_REQUIRED,
                "low_version",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::NoHost => (
                StatusCode::BAD_REQUEST,
                "missing_host_header",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::BadHost => (
                StatusCode::BAD_REQUEST,
                "http1.invalid_host",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::NoPath => (
                StatusCode::NOT_FOUND,
                "missing_path_rejected",
                Flags::NO_ROUTE,
            ),
            R::NotAbsolute => (
                StatusCode::NOT_FOUND,
                "absolute_path_rejected",
                Flags::NO_ROUTE,
            ),
            R::BadPath => (
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
                Flags::NONE,
            ),
            R::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http1.too_many_headers",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::Coding => (
                StatusCode::NOT_IMPLEMENTED,
                "http1.invalid_transfer_encoding",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::LengthAndEncoding => (
                StatusCode::BAD_REQUEST,
                "http1.content_length_and_chunked_not_allowed",
                Flags::DOWNSTREAM_PROTOCOL_ERROR,
            ),
            R::Fragment => (
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
                Flags::NONE,
            ),
            R::Upgrade => (StatusCode::FORBIDDEN, "upgrade_failed", Flags::NONE),
        };
        Self::new(status, Bytes::new(), details).flag(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_hears_of_a_denial_in_its_own_words() {
        let denied = || Reply::new(StatusCode::FORBIDDEN, "RBAC: access denied 100%", "rbac");
        let (plain, body) = denied().response(false);
        assert_eq!(plain.status(), 403);
        assert_eq!(plain.headers()["content-type"], "text/plain");
        assert_eq!(body, "RBAC: access denied 100%");
        let (grpc, body) = denied().response(true);
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers()["grpc-status"], "7");
        assert_eq!(grpc.headers()["grpc-message"], "RBAC: access denied 100%25");
        assert_eq!(grpc.headers()["content-type"], "application/grpc");
        assert!(body.is_empty());
    }

    #[test]
    fn a_redirect_has_a_location_and_no_body() {
        let (response, body) =
            Reply::redirect(StatusCode::MOVED_PERMANENTLY, "https://a/b").response(false);
        assert_eq!(response.headers()["location"], "https://a/b");
        assert!(body.is_empty() && response.headers().len() == 1);
    }
}
