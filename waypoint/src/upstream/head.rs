//! A request's head as the upstream's protocol wants it: HTTP/1 has the host in `Host` and only path
//! and query in its line, HTTP/2 has all of it in the URI. Pure.

use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Replaces the host.
pub(super) fn set_host<B>(request: &mut Request<B>, host: &str) {
    let Ok(value) = HeaderValue::from_str(host) else {
        return;
    };
    request.headers_mut().insert(HOST, value);
    if request.uri().authority().is_some() {
        let path = path_of(request.uri());
        *request.uri_mut() = Uri::from(path);
    }
}

/// Writes the head for HTTP/1.1.
pub(super) fn for_http1<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    if request.method() == Method::CONNECT {
        return;
    }
    if let Some(authority) = request.uri().authority() {
        if !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        let path = path_of(request.uri());
        *request.uri_mut() = Uri::from(path);
    }
}

/// Writes the head for HTTP/2, over TLS or not.
pub(super) fn for_http2<B>(request: &mut Request<B>, secure: bool) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        request.headers_mut().remove(name);
    }
    // RFC 9113, section 8.2.2: nothing but trailers.
    if request.headers().get(TE).is_some_and(|te| te != "trailers") {
        request.headers_mut().remove(TE);
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    // The host that was set is what counts; the URI's is what came.
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if host.is_some() {
        parts.authority = host;
    }
    if parts.authority.is_some() && request.method() != Method::CONNECT
        || request.extensions().get::<hyper::ext::Protocol>().is_some()
    {
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn http1_has_its_host_in_a_header_and_http2_in_the_uri() {
        let mut from_h2 = request("https://shop.example:8080/a?b=c", None);
        for_http1(&mut from_h2);
        assert_eq!(from_h2.uri(), "/a?b=c");
        assert_eq!(from_h2.headers()[HOST], "shop.example:8080");
        for_http2(&mut from_h2, false);
        assert_eq!(from_h2.uri(), "http://shop.example:8080/a?b=c");
        assert!(!from_h2.headers().contains_key(HOST));
    }

    #[test]
    fn a_host_that_was_set_wins_over_the_one_that_came() {
        let mut other = request("http://came.example/", Some("set.example"));
        for_http2(&mut other, true);
        assert_eq!(other.uri(), "https://set.example/");
        let mut other = request("http://came.example/x", None);
        set_host(&mut other, "set.example");
        for_http1(&mut other);
        assert_eq!(
            (other.uri().to_string(), &other.headers()[HOST]),
            ("/x".to_owned(), &HeaderValue::from_static("set.example"))
        );
    }

    #[test]
    fn http2_carries_no_connection_headers_and_no_te_but_trailers() {
        let mut grpc = request("/svc/Method", Some("a"));
        grpc.headers_mut()
            .insert(TE, HeaderValue::from_static("trailers"));
        grpc.headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        for_http2(&mut grpc, false);
        assert_eq!(grpc.headers()[TE], "trailers");
        assert!(!grpc.headers().contains_key(CONNECTION));
        grpc.headers_mut()
            .insert(TE, HeaderValue::from_static("gzip"));
        for_http2(&mut grpc, false);
        assert!(!grpc.headers().contains_key(TE));
    }

    #[test]
    fn the_asterisk_stays() {
        let mut options = request("*", Some("a"));
        *options.method_mut() = Method::OPTIONS;
        for_http1(&mut options);
        assert_eq!(options.uri(), "*");
    }
}
