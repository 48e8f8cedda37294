//! The attempts to have a request answered: each within its own time and that of the request, and
//! again after a pause where the route wants that and the cluster has room for it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::answer::Answered;
use super::body::RequestBody;
use super::flight::Expired;
use super::flow::Flow;
use super::forward::{Plan, count, request, shorter, trace};
use super::replay::Replay;
use super::reply::Reply;
use crate::grpc::DEADLINE_EXCEEDED;
use crate::grpc::text::Unreadable;
use crate::model::endpoint::Endpoint;
use crate::route::retry::{self, Decision, Outcome};
use crate::route::timeout;
use crate::telemetry::Flags;
use crate::upstream::{Choice, Failure, FailureKind, Reached, Refused, Reset, RetryPlace, Sent};

/// Tells a client that a limit of the cluster was reached.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
/// Tells a client that the control plane has requests dropped.
const DROPPED: HeaderName = HeaderName::from_static("x-envoy-drop-overload");

/// A request with what its attempts need.
pub(super) struct Attempts {
    pub(super) plan: Plan,
    /// The body, where it may be sent again.
    pub(super) replay: Option<Replay>,
    /// The body of the only attempt, or none.
    pub(super) first: Option<RequestBody>,
    /// The request has no body.
    pub(super) complete: bool,
    /// Doing it twice does no harm (RFC 9110, section 9.2.2).
    pub(super) harmless: bool,
}

/// How an attempt ended.
enum Ended {
    /// With an answer.
    Answered(Box<Sent>),
    /// Without one.
    Failed(Failure),
    /// The attempt's own time was over.
    OutOfTime,
}

/// Has the request answered.
pub(super) async fn run(flow: &mut Flow<'_>, mut this: Attempts) -> Result<Answered, Reply> {
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    let mut place: Option<RetryPlace> = None;
    let mut made = 0;
    loop {
        made += 1;
        let ended = this.attempt(flow, &tried, made).await?;
        drop(place.take());
        let decision = this.decide(&ended);
        let again = match decision {
            Decision::Again => {
                let upstreams = &flow.http.connection.local.upstreams;
                place = upstreams.retry(&this.plan.cluster);
                place.is_some()
            }
            Decision::No | Decision::LimitReached => false,
        };
        if !again {
            let flag = match decision {
                Decision::No => Flags::NONE,
                Decision::LimitReached => Flags::RETRY_LIMIT,
                Decision::Again => Flags::UPSTREAM_OVERFLOW,
            };
            flow.flight.exchange.borrow_mut().flags |= flag;
            return this.conclude(flow, ended);
        }
        this.told(flow, &ended);
        match ended {
            Ended::Answered(sent) => tried.push(sent.endpoint),
            Ended::Failed(failure) => tried.extend(failure.endpoint),
            Ended::OutOfTime => {}
        }
        this.pause(flow).await?;
        let elapsed = flow.flight.asked_at().elapsed();
        let plan = &this.plan;
        let headers = &mut flow.asked.headers;
        timeout::tell(&plan.timeouts, elapsed, headers, plan.tells_grpc);
    }
}

impl Attempts {
    /// One attempt. An error is the request's own end.
    async fn attempt(
        &mut self,
        flow: &mut Flow<'_>,
        tried: &[Arc<Endpoint>],
        made: u32,
    ) -> Result<Ended, Reply> {
        if self.plan.count_attempts {
            count(&mut flow.asked.headers, made);
        }
        {
            let exchange = &mut *flow.flight.exchange.borrow_mut();
            exchange.upstream.attempts = made;
            exchange.marks.upstream_start = Some(std::time::Instant::now());
        }
        trace(flow);
        let body = match &self.replay {
            Some(replay) => RequestBody::Kept(replay.attempt()),
            None => self.first.take().unwrap_or(RequestBody::Empty),
        };
        let last = !self.may_retry();
        let request = request(flow, body, last);
        let plan = &self.plan;
        let limit = self.limit(flow);
        let authority = flow.asked.authority.to_str().ok();
        let rules = plan.rules.as_deref();
        let reached = RefCell::default();
        let choice = Choice {
            hash: plan.hash,
            tried,
            avoid_tried: rules.is_some_and(|rules| rules.avoid_previous_hosts),
            host_attempts: rules.map_or(1, |rules| rules.host_attempts),
            previous_priorities: rules.and_then(|rules| rules.previous_priorities),
            session: flow.sticky.as_ref().and_then(|sticky| sticky.session()),
            metadata: metadata(&plan.route),
            authority,
            destination: plan.destination,
            rewrite_host: plan.rewrite_host,
            timeout: limit,
            reached: Some(&reached),
            ..Choice::new(&flow.http.connection.down)
        };
        let local = &flow.http.connection.local;
        // Pinned where it is made: moved, it would take its room twice.
        let permit = plan.permit.clone();
        let mut sending = pin!(
            local
                .upstreams
                .send(&plan.cluster, &choice, permit, request)
        );
        let flight = &flow.flight;
        let done = std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => flight.poll_expired(cx).map(Err),
        });
        let done = done.await;
        if !matches!(done, Ok(Ok(_))) {
            note_reached(flow, &reached.borrow());
        }
        match done {
            Ok(Ok(sent)) => Ok(Ended::Answered(Box::new(sent))),
            Ok(Err(Refused { failure, .. })) => {
                if let Some(unreadable) = flow.flight.unreadable() {
                    return Err(expire(unreadable, self.complete));
                }
                let transport = failure.transport_failure().map(Box::from);
                flow.flight.exchange.borrow_mut().upstream.failure = transport;
                match failure.kind {
                    FailureKind::Timeout if self.time_left(flow) != Some(Duration::ZERO) => {
                        Ok(Ended::OutOfTime)
                    }
                    _ => Ok(Ended::Failed(failure)),
                }
            }
            Err(Expired::Attempt) => Ok(Ended::OutOfTime),
            Err(expired) => Err(expire(expired, self.complete)),
        }
    }

    /// Tells of an attempt that another one follows.
    fn told(&self, flow: &Flow<'_>, ended: &Ended) {
        let exchange = &mut *flow.flight.exchange.borrow_mut();
        let status = match ended {
            Ended::Answered(sent) => {
                exchange.upstream.remote = sent.peer;
                Some(sent.response.status())
            }
            Ended::Failed(_) | Ended::OutOfTime => None,
        };
        let telemetry = &flow.http.connection.local.telemetry;
        telemetry.attempted(&flow.view.chain, exchange, status);
    }

    /// How long the attempt may take up to the answer's head, where that counts from now. Where
    /// the request is still coming the flight's own clock counts from its end.
    fn limit(&self, flow: &Flow<'_>) -> Option<Duration> {
        let timeouts = &self.plan.timeouts;
        if self.complete {
            return shorter(self.per_try(), self.time_left(flow));
        }
        let (now, per_try) = (Instant::now(), self.per_try());
        flow.flight.limit(|limit| {
            limit.total = timeouts.total;
            limit.attempt = per_try.map(|limit| (now, limit));
        });
        None
    }

    /// How long one attempt may take to its answer's head: nothing moves before that.
    fn per_try(&self) -> Option<Duration> {
        let timeouts = &self.plan.timeouts;
        shorter(timeouts.per_try, timeouts.per_try_idle)
    }

    /// What is left of the request's time.
    fn time_left(&self, flow: &Flow<'_>) -> Option<Duration> {
        let total = self.plan.timeouts.total?;
        Some(total.saturating_sub(flow.flight.asked_at().elapsed()))
    }

    /// Whether the head must be kept for another attempt.
    fn may_retry(&self) -> bool {
        self.plan
            .retry
            .as_ref()
            .is_some_and(|state| !state.is_spent())
    }

    fn decide(&mut self, ended: &Ended) -> Decision {
        let possible = self.replay.as_ref().is_none_or(Replay::is_possible);
        let Some(state) = self.plan.retry.as_mut().filter(|_| possible) else {
            return Decision::No;
        };
        match ended {
            Ended::Answered(sent) => {
                let response = &sent.response;
                state.decide(Outcome::Answer(response.status(), response.headers()))
            }
            Ended::OutOfTime => state.decide(Outcome::Reset {
                kind: retry::Reset::Local,
                sent: true,
            }),
            Ended::Failed(failure) => {
                let kind = match &failure.kind {
                    FailureKind::NoHealthyUpstream
                    | FailureKind::Dropped
                    | FailureKind::Overflow
                    | FailureKind::Request(_)
                    | FailureKind::Timeout => return Decision::No,
                    FailureKind::Connect(_) | FailureKind::ConnectTimeout => retry::Reset::Connect,
                    FailureKind::Reset(Reset::RefusedStream) => retry::Reset::Refused,
                    FailureKind::Reset(_) => retry::Reset::Remote,
                };
                // The server closed a kept connection while it was idle, and never read the request:
                // where doing it twice does no harm, it counts as one that was never sent.
                let (kind, sent) = match failure.stale() && self.harmless {
                    true => (retry::Reset::Connect, false),
                    false => (kind, !failure.untouched()),
                };
                state.decide(Outcome::Reset { kind, sent })
            }
        }
    }

    /// Waits a little before the next attempt.
    async fn pause(&mut self, flow: &Flow<'_>) -> Result<(), Reply> {
        let Some(state) = &mut self.plan.retry else {
            return Ok(());
        };
        let pause = state.pause(rand::random());
        let left = self.time_left(flow);
        tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        match left {
            Some(left) if left <= pause => Err(out_of_time("response_timeout")),
            _ => Ok(()),
        }
    }

    /// The answer, or what is answered in its place.
    fn conclude(&self, flow: &mut Flow<'_>, ended: Ended) -> Result<Answered, Reply> {
        match ended {
            Ended::Answered(sent) => Ok(self.take(flow, *sent)),
            Ended::OutOfTime => Err(out_of_time("upstream_per_try_timeout")),
            Ended::Failed(failure) => {
                let mut reply = failed(&failure);
                if flow.flight.exchange.borrow().upstream.attempts > 1 {
                    reply.say_retried();
                }
                Err(reply)
            }
        }
    }

    fn take(&self, flow: &mut Flow<'_>, sent: Sent) -> Answered {
        {
            let upstream = &mut flow.flight.exchange.borrow_mut().upstream;
            upstream.endpoint = Some(sent.endpoint.clone());
            upstream.remote = sent.peer;
            upstream.local = sent.local;
        }
        if let Some(sticky) = &flow.sticky {
            flow.afterwards.session = sticky.tell(&sent.endpoint);
        }
        flow.flight.exchange.borrow_mut().upstream_protocol = Some(sent.response.version());
        // From here on the body has to come within what is left.
        flow.flight.limit(|limit| {
            limit.total = self.plan.timeouts.total;
            limit.attempt = None;
        });
        Answered::plain(sent.response)
    }
}

fn metadata(route: &crate::model::route::Route) -> &[(Box<str>, Box<str>)] {
    match &route.action {
        crate::model::route::RouteAction::Forward(forward) => &forward.endpoint_metadata,
        _ => &[],
    }
}

/// Logs name who an attempt without an answer went to, and by which connection.
fn note_reached(flow: &Flow<'_>, reached: &Reached) {
    let exchange = &mut *flow.flight.exchange.borrow_mut();
    let (upstream, connection) = (&mut exchange.upstream, reached.connection);
    upstream.endpoint.clone_from(&reached.endpoint);
    upstream.remote = connection.and_then(|connection| connection.peer);
    upstream.local = connection.and_then(|connection| connection.local);
    exchange.upstream_protocol = connection.map(|connection| connection.version);
}

/// What is answered where no attempt brought an answer.
pub(super) fn failed(failure: &Failure) -> Reply {
    let flag = Flags::by_name(failure.flag()).unwrap_or(Flags::NONE);
    let reply = Reply::new(failure.status(), failure.body(), failure.details()).flag(flag);
    let yes = HeaderValue::from_static("true");
    match failure.kind {
        FailureKind::Overflow => reply.header(OVERLOADED, yes),
        FailureKind::Dropped => reply.header(DROPPED, yes),
        _ => reply,
    }
}

fn out_of_time(details: &'static str) -> Reply {
    Reply::new(
        StatusCode::GATEWAY_TIMEOUT,
        "upstream request timeout",
        details,
    )
    .flag(Flags::UPSTREAM_TIMEOUT)
}

/// What is answered to gRPC-Web that can't be read.
pub(super) fn unreadable(why: Unreadable) -> Reply {
    let body = "Bad gRPC-web request, invalid base64 data.";
    Reply::new(StatusCode::BAD_REQUEST, body, why.details())
}

/// What is answered when the request's own time is over.
pub(super) fn expire(expired: Expired, complete: bool) -> Reply {
    let status = match complete {
        true => StatusCode::GATEWAY_TIMEOUT,
        false => StatusCode::REQUEST_TIMEOUT,
    };
    match expired {
        Expired::Total => out_of_time("response_timeout"),
        Expired::Attempt => out_of_time("upstream_per_try_timeout"),
        Expired::Idle => {
            Reply::new(status, "stream timeout", "stream_idle_timeout").flag(Flags::IDLE_TIMEOUT)
        }
        Expired::Whole => {
            let body = "downstream duration timeout";
            let mut reply = Reply::new(status, body, "max_duration_timeout");
            reply.grpc_status = Some(DEADLINE_EXCEEDED);
            reply
        }
        Expired::Request => Reply::new(
            StatusCode::REQUEST_TIMEOUT,
            "request timeout",
            "request_overall_timeout",
        ),
        Expired::Unreadable(why) => unreadable(why),
        // The plugin's own words take its place.
        Expired::Answered => Reply::new(StatusCode::SERVICE_UNAVAILABLE, "", "plugin_answered"),
    }
}
