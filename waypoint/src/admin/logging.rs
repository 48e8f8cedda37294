//! The log level, read and changed: Envoy's `/logging`, whose loggers are our rooms.

use http::StatusCode;
use mesh::pages::{Response, text};

use super::PLAIN;
use crate::log::LogFilter;

/// Says what is logged; before that, with `level=` or `paths=` in the query, changes it.
pub(super) fn answer(log: &LogFilter, change: bool, query: &str) -> Response {
    let wanted = match directives(query) {
        Ok(wanted) => wanted,
        Err(problem) => return text(StatusCode::BAD_REQUEST, PLAIN, problem),
    };
    if wanted.is_some() && !change {
        let problem = "a level is changed by POST\n";
        return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, problem);
    }
    let changed = wanted.map_or(Ok(()), |wanted| log.change(&wanted));
    match changed.and_then(|()| log.read()) {
        Ok(filter) => text(StatusCode::OK, PLAIN, active(&filter)),
        Err(error) => text(StatusCode::BAD_REQUEST, PLAIN, format!("{error}\n")),
    }
}

/// The filter in Envoy's layout: a logger a line.
fn active(filter: &str) -> String {
    let lines = filter.split(',').map(|directive| {
        let (room, level) = directive.split_once('=').unwrap_or(("waypoint", directive));
        format!("  {room}: {level}\n")
    });
    format!("active loggers:\n{}", lines.collect::<String>())
}

/// The filter that a query asks for: `level=debug` for all rooms, `paths=http:debug,upstream:info`
/// for some, others at info.
fn directives(query: &str) -> Result<Option<String>, String> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if let Some(name) = value("level") {
        return level(name).map(|level| Some(level.to_owned()));
    }
    let Some(paths) = value("paths") else {
        return Ok(None);
    };
    let mut filter = String::from("info");
    let paths = paths.replace("%2C", ",").replace("%3A", ":");
    for path in paths.split(',') {
        let (room, name) = path
            .split_once(':')
            .ok_or_else(|| format!("{path:?} is no room:level\n"))?;
        let room = room.trim_start_matches("waypoint::");
        if !room
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
        {
            return Err(format!("{room:?} is no room\n"));
        }
        filter.push_str(&format!(",waypoint::{room}={}", level(name)?));
    }
    Ok(Some(filter))
}

/// Envoy's name of a level in our words.
fn level(name: &str) -> Result<&'static str, String> {
    match name {
        "trace" => Ok("trace"),
        "debug" => Ok("debug"),
        "info" => Ok("info"),
        "warning" | "warn" => Ok("warn"),
        "error" | "critical" => Ok("error"),
        "off" => Ok("off"),
        _ => Err(format!(
            "{name:?} is no level: trace, debug, info, warning, error, critical, off\n"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_a_filter() {
        let of = |query: &str| directives(query).unwrap();
        assert_eq!(of(""), None);
        assert_eq!(of("level=warning").as_deref(), Some("warn"));
        assert_eq!(
            of("paths=http:debug%2Cupstream:trace").as_deref(),
            Some("info,waypoint::http=debug,waypoint::upstream=trace")
        );
        assert!(directives("level=loud").unwrap_err().contains("loud"));
        assert!(directives("paths=http").unwrap_err().contains("room:level"));
        assert!(directives("paths=a b:debug").is_err());
    }

    #[test]
    fn a_filter_is_said_a_logger_a_line() {
        assert_eq!(
            active("info,waypoint::http=debug"),
            "active loggers:\n  waypoint: info\n  waypoint::http: debug\n"
        );
    }
}
