//! What a route answers itself → [`model::route::RouteAction`](crate::model::route::RouteAction): a
//! redirect, or a status with a body.

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3 as route;
use http::StatusCode;

use super::action::authority;
use super::error::{At as _, Refused};
use super::route::Scope;
use super::served::Notes;
use super::{plain, text};
use crate::model::route::{Redirect, RedirectPath, RouteAction};
use crate::unserved;

/// A redirect.
///
/// # Errors
/// Its status, port, host or path is none.
pub(super) fn redirect(action: route::RedirectAction) -> Result<Redirect, Refused> {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };

    let route::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = action;
    let status = match RedirectResponseCode::try_from(response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
        Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => {
            let reason = format!("{response_code} is no redirect");
            return Err(Refused::new(reason).under("response_code"));
        }
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            http::uri::Scheme::try_from(scheme.as_str())
                .map_err(|_| Refused::new(format!("{scheme:?} is no scheme")))
                .at("scheme_redirect")?;
            Some(scheme.into())
        }
    };
    let path = match path_rewrite_specifier {
        None => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            RedirectPath::Full(in_location(path, "path_redirect")?)
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            RedirectPath::Prefix(in_location(prefix, "prefix_rewrite")?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            let (regex, by) = text::substitution(regex).at("regex_rewrite")?;
            RedirectPath::Regex(regex, by)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            let reason = "paths are rewritten by prefix or expression, not by operators";
            return Err(Refused::new(reason).under("path_rewrite"));
        }
    };
    let host = match host_redirect.is_empty() {
        true => None,
        false => Some(authority(host_redirect, "host_redirect")?),
    };
    Ok(Redirect {
        status,
        scheme,
        host,
        port: match port_redirect {
            0 => None,
            port => Some(plain::port(port).at("port_redirect")?),
        },
        path,
        strip_query,
    })
}

/// What stands in a `location` header must be able to.
fn in_location(path: String, field: &str) -> Result<Box<str>, Refused> {
    match http::HeaderValue::from_str(&path) {
        Ok(_) => Ok(path.into()),
        Err(_) => Err(Refused::new(format!("{path:?} can't stand in a header")).under(field)),
    }
}

/// An answer from here.
///
/// # Errors
/// Its status is none, or its body is too long or elsewhere.
pub(super) fn direct(
    action: route::DirectResponseAction,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<RouteAction, Refused> {
    let route::DirectResponseAction {
        status,
        body,
        body_format,
    } = action;
    unserved!(notes, "DirectResponseAction": body_format);
    let body = body
        .map(plain::data)
        .transpose()
        .at("body")?
        .unwrap_or_default();
    if body.len() > scope.longest_body {
        let (length, longest) = (body.len(), scope.longest_body);
        let reason = format!(
            "is {length} bytes long, more than the {longest} of max_direct_response_body_size_bytes"
        );
        return Err(Refused::new(reason).under("body"));
    }
    Ok(RouteAction::Direct {
        status: plain::status(status, 200, 599).at("status")?,
        body: Bytes::from(body),
    })
}

#[cfg(test)]
mod tests;
