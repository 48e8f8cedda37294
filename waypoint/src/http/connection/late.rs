//! Heads of HTTP/1 that begin and don't become whole: how long they may take, and what the client is
//! told then. As Envoy's timers, each of which runs from a request's first byte; a connection that
//! only rests is none of their business.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use mesh::cork::Corked;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Sleep, sleep, timeout};

use crate::http::raw::Raw;
use crate::listen::io::Io;
use crate::model::http::{HttpLimits, ServerHeader};
use crate::telemetry::Flags;

/// How long the answer, and the client's own end, are waited for: a close while bytes of the head are
/// still coming is a reset, which could overtake the answer. Envoy's `delayed_close_timeout`.
const FAREWELL: Duration = Duration::from_secs(1);

/// Which limit a head came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// That of heads.
    Head,
    /// That of requests as a whole.
    Request,
    /// Nothing moved on the stream, of which headers would have been the first.
    Idle,
}

/// How long the present head may take.
pub(super) struct HeadClock {
    limit: Option<(Duration, Late)>,
    /// Of the head with this number.
    clock: Option<(u32, Pin<Box<Sleep>>)>,
}

impl HeadClock {
    pub(super) fn new(limits: &HttpLimits) -> Self {
        let all = [
            (limits.request_headers, Late::Head),
            (limits.request, Late::Request),
            (limits.stream_idle, Late::Idle),
        ];
        let all = all
            .into_iter()
            .filter_map(|(limit, late)| Some((limit?, late)));
        Self {
            limit: all.min_by_key(|(limit, _)| *limit),
            clock: None,
        }
    }

    /// Whether a head is late; if not, the task is woken when it would be. Most heads come in one
    /// piece, and have no clock.
    pub(super) fn poll(&mut self, raw: &Raw, cx: &mut Context<'_>) -> Poll<Late> {
        let (Some((limit, late)), Some(head)) = (self.limit, raw.unfinished()) else {
            self.clock = None;
            return Poll::Pending;
        };
        if self.clock.as_ref().is_none_or(|(of, _)| *of != head) {
            self.clock = Some((head, Box::pin(sleep(limit))));
        }
        match &mut self.clock {
            Some((_, clock)) => clock.as_mut().poll(cx).map(|()| late),
            None => Poll::Pending,
        }
    }
}

impl Late {
    /// Of all of them, since no head was there.
    pub(super) const STATUS: StatusCode = StatusCode::REQUEST_TIMEOUT;

    pub(super) fn flags(self) -> Flags {
        match self {
            Self::Head | Self::Request => Flags::NONE,
            Self::Idle => Flags::IDLE_TIMEOUT,
        }
    }

    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Head => "request_header_timeout",
            Self::Request => "request_overall_timeout",
            Self::Idle => "stream_idle_timeout",
        }
    }

    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Head => "request header timeout",
            Self::Request => "request timeout",
            Self::Idle => "stream timeout",
        }
    }

    /// Answers, and ends the connection.
    pub(super) async fn answer(self, server: &ServerHeader, mut io: Corked<Io>) {
        let (status, body) = (Self::STATUS, self.body());
        let date = httpdate::fmt_http_date(SystemTime::now());
        let server = server.ours().and_then(|name| name.to_str().ok());
        let server = server.map(|name| format!("server: {name}\r\n"));
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\ndate: {date}\r\n\
             {}connection: close\r\n\r\n{body}",
            body.len(),
            server.unwrap_or_default()
        );
        let farewell = async {
            io.write_all(answer.as_bytes()).await?;
            io.shutdown().await?;
            let mut rest = [0; 1024];
            while io.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Whether the client is still there to hear it makes no difference.
        let _ = timeout(FAREWELL, farewell).await;
    }
}
