//! Sticky sessions: the answer names its endpoint in a cookie or header, in base64, and a request
//! that brings it goes there again. Envoy's stateful_session filter.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};

use super::flow::Flow;
use crate::model::endpoint::{Address, Endpoint};
use crate::model::route::{SessionPlace, StatefulSession};
use crate::route::hash::set_cookie;
use crate::upstream::Session;

/// What is known of a request's session.
#[derive(Debug, Clone)]
pub(super) struct Sticky {
    rules: Arc<StatefulSession>,
    /// The endpoint that the request names.
    pub(super) named: Option<SocketAddr>,
}

/// Finds out whether a request has a session, and which.
pub(super) fn find(flow: &mut Flow<'_>, filter: Option<&Arc<StatefulSession>>) {
    let of_route = flow.route().and_then(|(host, route)| {
        let own = route.filters.session.as_ref();
        own.or(host.filters.session.as_ref())
    });
    let Some(rules) = of_route.or(filter).cloned() else {
        return;
    };
    let head = flow.asked.head();
    let text = match &rules.place {
        SessionPlace::Cookie { name, path, .. } => match covers(path, head.path_only()) {
            true => head.cookie(name).map(str::to_owned),
            false => return,
        },
        SessionPlace::Header(name) => head.header(name).map(std::borrow::Cow::into_owned),
    };
    let named = text.and_then(|text| {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    });
    flow.sticky = Some(Sticky { rules, named });
}

impl Sticky {
    /// What the choice of an endpoint is to heed.
    pub(super) fn session(&self) -> Option<Session> {
        self.named.map(|address| Session {
            address,
            strict: self.rules.strict,
        })
    }

    /// What the answer says, unless the client knows it already.
    pub(super) fn tell(&self, endpoint: &Endpoint) -> Option<(http::HeaderName, HeaderValue)> {
        let address = match &endpoint.address {
            Address::Socket(address) => *address,
            Address::Tunnel { to, .. } => *to,
            Address::Name(..) | Address::DoubleTunnel { .. } => return None,
        };
        if self.named == Some(address) {
            return None;
        }
        let text = STANDARD.encode(address.to_string());
        match &self.rules.place {
            SessionPlace::Cookie { name, ttl, path } => {
                let cookie = set_cookie(name, &text, *ttl, path, &[])?;
                Some((header::SET_COOKIE, cookie))
            }
            SessionPlace::Header(name) => Some((name.clone(), HeaderValue::try_from(text).ok()?)),
        }
    }
}

/// Whether a cookie's path covers a request's, as RFC 6265, section 5.1.4 says.
fn covers(cookie: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(cookie) else {
        return false;
    };
    cookie.is_empty() || cookie.ends_with('/') || rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_cookie_covers_whole_segments() {
        for (cookie, path, expected) in [
            ("", "/a", true),
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/", "/a", false),
        ] {
            assert_eq!(covers(cookie, path), expected, "{cookie} {path}");
        }
    }
}
