//! Why an attempt brought no answer, in the words of Envoy's response flags and details, and
//! whether another attempt is safe.

use std::fmt;
use std::sync::Arc;

use http::{Request, StatusCode};

use crate::model::endpoint::Endpoint;

/// Why an attempt brought no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The endpoint that was chosen, if it came to that.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The connection had carried requests before: it may have been closed by a peer that found it
    /// idle, which says nothing about the endpoint.
    pub reused: bool,
    /// Bytes of the request may have left.
    pub sent: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// The cluster has no endpoint that may be used.
    NoHealthyUpstream,
    /// The control plane has this share of the cluster's requests dropped.
    Dropped,
    /// A limit of the cluster is reached.
    Overflow,
    /// Connecting failed: what was seen.
    Connect(Arc<str>),
    /// Connecting took too long.
    ConnectTimeout,
    /// The connection or the stream ended before the head of an answer.
    Reset(Reset),
    /// The attempt's time is over.
    Timeout,
    /// The request's own body broke: the client's fault, or its going away.
    Request(Arc<str>),
}

/// How it ended before the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The connection was closed or broke.
    Connection,
    /// The peer reset the stream.
    Remote,
    /// The peer refused the stream unprocessed.
    RefusedStream,
    /// What the peer sent is no HTTP.
    Protocol,
}

/// A failure with the request, where it was never begun: it can be sent again as it is.
#[derive(Debug)]
pub struct Refused<B> {
    /// Why.
    pub failure: Failure,
    /// The request, if nothing of its body was taken.
    pub request: Option<Box<Request<B>>>,
}

impl Failure {
    /// A failure before any endpoint was chosen.
    #[must_use]
    pub fn early(kind: FailureKind) -> Self {
        Self {
            kind,
            endpoint: None,
            reused: false,
            sent: false,
        }
    }

    /// A failure at this endpoint, with nothing sent.
    #[must_use]
    pub fn at(kind: FailureKind, endpoint: Arc<Endpoint>) -> Self {
        Self {
            kind,
            endpoint: Some(endpoint),
            reused: false,
            sent: false,
        }
    }

    /// The status that the client is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            FailureKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Reset(Reset::Protocol) => StatusCode::BAD_GATEWAY,
            FailureKind::Request(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Envoy's response flag.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self.kind {
            FailureKind::NoHealthyUpstream => "UH",
            FailureKind::Dropped => "DO",
            FailureKind::Overflow => "UO",
            FailureKind::Connect(_) | FailureKind::ConnectTimeout => "UF",
            FailureKind::Reset(Reset::Connection) => "UC",
            FailureKind::Reset(Reset::Remote | Reset::RefusedStream) => "UR",
            FailureKind::Reset(Reset::Protocol) => "UPE",
            FailureKind::Timeout => "UT",
            FailureKind::Request(_) => "DC",
        }
    }

    /// The reason as Envoy words it in the body of its answer.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FailureKind::NoHealthyUpstream => "no healthy upstream",
            FailureKind::Dropped => "drop overload",
            FailureKind::Overflow => "overflow",
            FailureKind::Connect(_) => "remote connection failure",
            FailureKind::ConnectTimeout => "connection timeout",
            FailureKind::Reset(Reset::Connection) => "connection termination",
            FailureKind::Reset(Reset::Remote) => "remote reset",
            FailureKind::Reset(Reset::RefusedStream) => "remote refused stream reset",
            FailureKind::Reset(Reset::Protocol) => "protocol error",
            FailureKind::Timeout => "upstream request timeout",
            FailureKind::Request(_) => "downstream local disconnect",
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    #[must_use]
    pub fn details(&self) -> String {
        match &self.kind {
            FailureKind::NoHealthyUpstream => "no_healthy_upstream".to_owned(),
            FailureKind::Dropped => "drop_overload".to_owned(),
            FailureKind::Timeout => "response_timeout".to_owned(),
            FailureKind::Request(_) => "downstream_remote_disconnect".to_owned(),
            FailureKind::Connect(text) => format!(
                "upstream_reset_before_response_started{{remote_connection_failure|{}}}",
                text.replace(' ', "_")
            ),
            _ => format!(
                "upstream_reset_before_response_started{{{}}}",
                self.reason().replace(' ', "_")
            ),
        }
    }

    /// Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%`: why connecting failed.
    #[must_use]
    pub fn transport_failure(&self) -> Option<&str> {
        match &self.kind {
            FailureKind::Connect(text) => Some(text),
            _ => None,
        }
    }

    /// The body of the answer, as Envoy writes it.
    #[must_use]
    pub fn body(&self) -> String {
        match &self.kind {
            FailureKind::NoHealthyUpstream | FailureKind::Dropped | FailureKind::Timeout => {
                self.reason().to_owned()
            }
            _ => {
                let mut body = format!(
                    "upstream connect error or disconnect/reset before headers. reset reason: {}",
                    self.reason()
                );
                if let Some(transport) = self.transport_failure() {
                    body.push_str(", transport failure reason: ");
                    body.push_str(transport);
                }
                body
            }
        }
    }

    /// A connection that had been kept was closed before it answered anything. Nearly always it was
    /// closed while it was idle, and the request never read: what may be done twice can be sent
    /// again, even where no retry was asked for.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.reused && self.kind == FailureKind::Reset(Reset::Connection)
    }

    /// Nothing of the request left, or the peer said that it did nothing with it: any request may
    /// be sent again.
    #[must_use]
    pub fn untouched(&self) -> bool {
        !self.sent || self.kind == FailureKind::Reset(Reset::RefusedStream)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        if let Some(transport) = self.transport_failure() {
            write!(f, ": {transport}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_speak_as_envoy_does() {
        let refused = Failure::early(FailureKind::Connect(
            "delayed connect error: Connection refused".into(),
        ));
        assert_eq!(refused.flag(), "UF");
        assert_eq!(
            refused.details(),
            "upstream_reset_before_response_started{remote_connection_failure|\
             delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(
            refused.body(),
            "upstream connect error or disconnect/reset before headers. reset reason: remote \
             connection failure, transport failure reason: delayed connect error: Connection refused"
        );
        let timeout = Failure::early(FailureKind::Timeout);
        assert_eq!(timeout.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(timeout.body(), "upstream request timeout");
        let nobody = Failure::early(FailureKind::NoHealthyUpstream);
        assert_eq!(
            (nobody.flag(), &*nobody.body()),
            ("UH", "no healthy upstream")
        );
    }

    #[test]
    fn what_was_sent_is_touched_unless_the_peer_refused_it() {
        let mut failure = Failure::early(FailureKind::Reset(Reset::Connection));
        assert!(failure.untouched());
        failure.sent = true;
        assert!(!failure.untouched());
        failure.kind = FailureKind::Reset(Reset::RefusedStream);
        assert!(failure.untouched());
    }
}
