//! The admin interface, for `istioctl ztunnel-config` and people: what this proxy knows, its log
//! filter, and a way to stop it. Only on the loopback of ztunnel's own network.

mod dump;

use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::pod::Shared;
use crate::telemetry::log::LogFilter;
use mesh::pages::{Request, Response, serve, text};
use mesh::stop::AskToStop;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PAGES: &str = "GET  /config_dump        what this proxy knows, as JSON
GET  /logging             the log filter
POST /logging?level=TEXT  changes it, such as debug or info,access=off
POST /quitquitquit        stops gracefully, as SIGTERM does
";

/// What the admin interface can see and do.
#[derive(Debug)]
pub struct Admin {
    shared: Shared,
    log: LogFilter,
    stop: AskToStop,
}

impl Admin {
    /// An interface to this process.
    #[must_use]
    pub fn new(shared: Shared, log: LogFilter, stop: AskToStop) -> Self {
        Self { shared, log, stop }
    }

    /// Answers on `listener`.
    pub async fn serve(self, listener: TcpListener) {
        serve(listener, move |request| {
            std::future::ready(self.answer(&request))
        })
        .await;
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/config_dump") => self.config_dump(),
            (&Method::GET, "/logging") => self.logging(None),
            (&Method::POST, "/logging") => self.logging(request.uri().query()),
            (&Method::POST, "/quitquitquit") => {
                self.stop.ask();
                text(StatusCode::OK, PLAIN, "stopping\n")
            }
            (_, "/config_dump" | "/logging" | "/quitquitquit") => {
                text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, PAGES)
            }
            (_, "/") => text(StatusCode::OK, PLAIN, PAGES),
            _ => text(StatusCode::NOT_FOUND, PLAIN, PAGES),
        }
    }

    fn config_dump(&self) -> Response {
        let dump = dump::everything(&self.shared);
        match serde_json::to_vec_pretty(&dump) {
            Ok(json) => text(StatusCode::OK, JSON, json),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                PLAIN,
                format!("{error}\n"),
            ),
        }
    }

    /// Says what the filter is; before that, with `level=` in the query, changes it.
    fn logging(&self, query: Option<&str>) -> Response {
        let changed = match query.and_then(level) {
            Some(level) => self.log.change(&level),
            None => Ok(()),
        };
        match changed.and_then(|()| self.log.read()) {
            Ok(filter) => text(
                StatusCode::OK,
                PLAIN,
                format!("current log level is {filter}\n"),
            ),
            Err(error) => text(StatusCode::BAD_REQUEST, PLAIN, format!("{error}\n")),
        }
    }
}

/// The value of `level` in a query, its percent signs resolved.
fn level(query: &str) -> Option<String> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("level="))?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_found_and_decoded() {
        assert_eq!(level("level=debug").as_deref(), Some("debug"));
        assert_eq!(
            level("reset&level=info%2Caccess%3Doff").as_deref(),
            Some("info,access=off")
        );
        assert_eq!(level("level=100%").as_deref(), Some("100%"));
        assert_eq!(level("other=1"), None);
    }
}
