//! A request's head as the flow owns and changes it. It is validated here once, so that everything
//! behind may take for granted what a proxy must not pass on broken: one host, a path, no doubt
//! about where the request ends.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderName, Method, Uri, Version};
use hyper::ext::Protocol;

use super::raw::Quirks;
use super::reply::Refusal;
use crate::head::Head;
use crate::model::http::{HttpChain, StripPort};
use crate::path::{Normalised, normalise};

/// Headers that count for one hop only (RFC 9110, section 7.6.1, and what Envoy takes for such).
const HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::TRANSFER_ENCODING,
];

/// A request's head.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// `:authority`, which is text; empty where HTTP/1.0 has none.
    pub(super) authority: HeaderValue,
    /// Nothing for a CONNECT without a path.
    pub(super) path: Option<PathAndQuery>,
    /// All others; `Host` is among them with HTTP/1, and again before the request is sent.
    pub(super) headers: HeaderMap,
    pub(super) version: Version,
    /// hyper's: the case of names, the upgrade.
    pub(super) extensions: Extensions,
    /// The protocol that the connection is to be changed to, in lower case.
    pub(super) upgrade: Option<Box<str>>,
}

/// What becomes of a request that can't go on as it is.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is refused.
    Refused(Refusal),
    /// The client is sent to this path.
    Redirect(String),
}

impl Asked {
    /// Takes a head as hyper read it. Nothing is checked yet, so that what is refused can be
    /// logged.
    pub(super) fn new(parts: Parts, secure: bool) -> Self {
        let Parts {
            method,
            uri,
            version,
            headers,
            extensions,
            ..
        } = parts;
        let scheme = if secure { "https" } else { "http" };
        let (authority, path) = split(uri);
        let mut headers = headers;
        if let Some(authority) = &authority
            && version < Version::HTTP_2
        {
            // The URL's host counts, whatever the header says.
            headers.insert(header::HOST, authority.clone());
        }
        let authority = authority
            .or_else(|| headers.get(header::HOST).cloned())
            .unwrap_or_else(|| HeaderValue::from_static(""));
        let upgrade = upgrade(&method, &headers, &extensions, version);
        Self {
            method,
            scheme,
            authority,
            path,
            headers,
            version,
            extensions,
            upgrade,
        }
    }

    /// The head as decisions see it.
    pub(super) fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            scheme: self.scheme,
            authority: self.authority.to_str().unwrap_or_default(),
            path: self.path.as_ref().map_or("", PathAndQuery::as_str),
            headers: &self.headers,
        }
    }

    /// Checks what must hold of every request, and normalises host and path as the chain says.
    pub(super) fn check(
        &mut self,
        chain: &HttpChain,
        port: u16,
        quirks: Quirks,
    ) -> Result<(), Stop> {
        let refused = |refusal| Err(Stop::Refused(refusal));
        if quirks.length_and_encoding && !chain.http1.allow_chunked_length {
            return refused(Refusal::LengthAndEncoding);
        }
        if quirks.fragment {
            return refused(Refusal::Fragment);
        }
        if self.version == Version::HTTP_10 && !chain.http1.accept_http10 {
            return refused(Refusal::LowVersion);
        }
        if self.headers.len() > chain.limits.max_headers as usize && chain.limits.max_headers > 0 {
            return refused(Refusal::TooManyHeaders);
        }
        let coding = self.headers.get(header::TRANSFER_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return refused(Refusal::Coding);
        }
        let hosts = self.headers.get_all(header::HOST).iter().count();
        if hosts > 1 || !is_host(&self.authority) {
            return refused(Refusal::BadHost);
        }
        if self.authority.is_empty() && self.version != Version::HTTP_10 {
            return refused(Refusal::NoHost);
        }
        let connect = self.method == Method::CONNECT;
        match &self.path {
            Some(path) if path.as_str().starts_with('/') => {}
            None if connect => {}
            None => return refused(Refusal::NoPath),
            Some(_) => return refused(Refusal::NotAbsolute),
        }
        self.strip_host(chain, port);
        self.normalise_path(chain)
    }

    fn strip_host(&mut self, chain: &HttpChain, port: u16) {
        let Ok(before) = self.authority.to_str() else {
            return;
        };
        let mut host = before;
        if chain.strip_trailing_dot {
            let (name, rest) = match host.rfind(':') {
                Some(at) if !host.ends_with(']') => host.split_at(at),
                _ => (host, ""),
            };
            if let Some(name) = name.strip_suffix('.') {
                let stripped = format!("{name}{rest}");
                if let Ok(value) = HeaderValue::try_from(stripped) {
                    self.set_authority(value);
                }
                return self.strip_port(chain, port);
            }
        }
        if chain.strip_port == StripPort::No {
            return;
        }
        let without = crate::route::select::without_port(host);
        let strips = match chain.strip_port {
            StripPort::No => false,
            StripPort::Any => true,
            StripPort::Matching => {
                host[without.len()..].strip_prefix(':') == Some(&*port.to_string())
            }
        };
        if strips && without.len() < host.len() {
            host = without;
            if let Ok(value) = HeaderValue::from_str(host) {
                self.set_authority(value);
            }
        }
    }

    fn strip_port(&mut self, chain: &HttpChain, port: u16) {
        if chain.strip_port == StripPort::No {
            return;
        }
        let host = self.authority.to_str().unwrap_or_default();
        let without = crate::route::select::without_port(host);
        let same = host[without.len()..].strip_prefix(':') == Some(&*port.to_string());
        if (chain.strip_port == StripPort::Any || same)
            && let Ok(value) = HeaderValue::from_str(without)
        {
            self.set_authority(value);
        }
    }

    fn normalise_path(&mut self, chain: &HttpChain) -> Result<(), Stop> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        match normalise(path.as_str(), &chain.paths) {
            Normalised::Path(std::borrow::Cow::Borrowed(_)) => Ok(()),
            Normalised::Path(std::borrow::Cow::Owned(new)) => match self.set_path(new) {
                true => Ok(()),
                false => Err(Stop::Refused(Refusal::BadPath)),
            },
            Normalised::Redirect(path) => Err(Stop::Redirect(path)),
            Normalised::Refused => Err(Stop::Refused(Refusal::BadPath)),
        }
    }

    /// Another path; `false`, and nothing changed, where it is none.
    pub(super) fn set_path(&mut self, path: String) -> bool {
        let path = PathAndQuery::try_from(path);
        match path {
            Ok(path) => {
                self.path = Some(path);
                true
            }
            Err(_) => false,
        }
    }

    /// Another host.
    pub(super) fn set_authority(&mut self, host: HeaderValue) {
        if self.version < Version::HTTP_2 || self.headers.contains_key(header::HOST) {
            self.headers.insert(header::HOST, host.clone());
        }
        self.authority = host;
    }

    /// Makes one line of several `cookie` headers, into which HTTP/2 may split one (RFC 9113, section
    /// 8.2.3): matchers and HTTP/1 upstreams know only one.
    pub(super) fn join_cookies(&mut self) {
        if self.version < Version::HTTP_2 {
            return;
        }
        let lines = self.headers.get_all(header::COOKIE).iter();
        let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
        if lines.len() > 1
            && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
        {
            self.headers.insert(header::COOKIE, joined);
        }
    }

    /// Takes away what counts for this hop only. Those of an upgrade stay.
    pub(super) fn remove_hop_by_hop(&mut self) {
        if !has_hop_by_hop(&self.headers) {
            return;
        }
        if let Some(named) = self.headers.get(header::CONNECTION)
            && !is_plain(named)
        {
            remove_named(&mut self.headers);
        }
        let headers = &mut self.headers;
        if self.upgrade.is_none() {
            headers.remove(header::CONNECTION);
            headers.remove(header::UPGRADE);
        }
        for name in &HOP {
            headers.remove(name);
        }
        // `te: trailers` is all that may go on.
        if let Some(te) = headers.get(header::TE) {
            let trailers = te
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"));
            match trailers {
                true => headers.insert(header::TE, HeaderValue::from_static("trailers")),
                false => headers.remove(header::TE),
            };
        }
    }
}

/// Whether any header counts for one hop only, in a request or an answer. Most have none, and to look
/// through the names once costs less than to look for each.
pub(super) fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    let mut names = headers.keys().map(HeaderName::as_str);
    names.any(|name| {
        matches!(
            name,
            "connection"
                | "upgrade"
                | "keep-alive"
                | "proxy-connection"
                | "http2-settings"
                | "transfer-encoding"
                | "te"
                | "trailer"
        )
    })
}

/// The characters of an authority, by their codes: RFC 3986, section 3.2, without a user.
const OF_HOST: [bool; 256] = {
    let mut of_host = [false; 256];
    let mut code = 0;
    while code < 128 {
        of_host[code] = (code as u8).is_ascii_alphanumeric();
        code += 1;
    }
    let others = b"-._~%!$&'()*+,;=:[]";
    let mut at = 0;
    while at < others.len() {
        of_host[others[at] as usize] = true;
        at += 1;
    }
    of_host
};

/// Whether a value can be an authority.
fn is_host(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .iter()
        .all(|byte| OF_HOST[usize::from(*byte)])
}

/// The authority and the path of a URI, in whichever form HTTP/1 or HTTP/2 brought it.
fn split(uri: Uri) -> (Option<HeaderValue>, Option<PathAndQuery>) {
    let parts = uri.into_parts();
    let authority = parts.authority.and_then(|authority| {
        // A user's name and password are no part of the host.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        HeaderValue::from_str(host).ok()
    });
    (authority, parts.path_and_query)
}

/// `Connection` values that name no header of their own.
fn is_plain(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// Takes away the headers that `Connection` names, but those that a proxy needs itself.
fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| {
            ![
                header::UPGRADE,
                header::CONNECTION,
                header::HOST,
                header::TE,
            ]
            .contains(name)
                && !name.as_str().starts_with("x-forwarded-")
                && *name != header::AUTHORIZATION
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// The protocol that a request wants the connection changed to.
fn upgrade(
    method: &Method,
    headers: &HeaderMap,
    extensions: &Extensions,
    version: Version,
) -> Option<Box<str>> {
    if *method == Method::CONNECT {
        let protocol = extensions.get::<Protocol>().map(Protocol::as_str);
        return Some(protocol.unwrap_or("connect").to_ascii_lowercase().into());
    }
    if version != Version::HTTP_11 {
        return None;
    }
    // HTTP/2 in the clear is not begun this way any more: the request goes on as it is.
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if upgrade.eq_ignore_ascii_case("h2c") {
        return None;
    }
    let mut named = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','));
    named
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
        .then(|| upgrade.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests;
