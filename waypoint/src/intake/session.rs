//! Envoy's `StatefulSession` → [`model::route::StatefulSession`](crate::model::route::StatefulSession).

use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3 as session;
use envoy_types::pb::envoy::extensions::http::stateful_session as session_kind;
use envoy_types::pb::envoy::r#type::http::v3::Cookie;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::route::{SessionPlace, StatefulSession};
use crate::unserved;

/// Sticky sessions; none where the filter has none by itself.
///
/// # Errors
/// They are kept elsewhere than in a cookie or header.
pub(super) fn of(
    session: session::StatefulSession,
    notes: &mut Notes,
) -> Result<Option<StatefulSession>, Refused> {
    let session::StatefulSession {
        session_state,
        strict,
        stat_prefix: _,
        status_on_strict_destination_not_found,
    } = session;
    unserved!(notes, "StatefulSession": status_on_strict_destination_not_found);
    let Some(state) = session_state else {
        return Ok(None);
    };
    let config = need(state.typed_config, "session_state.typed_config")?;
    let place = match typed::name(&config) {
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState" => {
            let session_kind::cookie::v3::CookieBasedSessionState { cookie } =
                typed::unpack(&config, notes).at("session_state.typed_config")?;
            let Cookie {
                name,
                ttl,
                path,
                attributes,
            } = need(cookie, "session_state.typed_config.cookie")?;
            unserved!(notes, "Cookie": attributes);
            if name.is_empty() {
                let field = "session_state.typed_config.cookie.name";
                return Err(Refused::new("must not be empty").under(field));
            }
            SessionPlace::Cookie {
                name: name.into(),
                ttl: plain::maybe_duration(ttl, "session_state.typed_config.cookie.ttl")?
                    .unwrap_or_default(),
                path: path.into(),
            }
        }
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState" => {
            let session_kind::header::v3::HeaderBasedSessionState { name } =
                typed::unpack(&config, notes).at("session_state.typed_config")?;
            let name = plain::header_name(&name).at("session_state.typed_config.name")?;
            SessionPlace::Header(name)
        }
        other => {
            let reason = format!("{other}: sessions are kept in cookies and headers");
            return Err(Refused::new(reason).under("session_state.typed_config"));
        }
    };
    Ok(Some(StatefulSession { place, strict }))
}
