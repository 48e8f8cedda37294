//! Whether this node's pods can be served: `/healthz/ready` says 200 once capture stands, the first
//! workloads and policies have come, and every pod that the source named has been handled; and no
//! longer once this proxy stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;
use tokio::net::TcpListener;

use mesh::pages::{Request, Response, serve, text};

/// What has to happen before this proxy is ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Step {
    /// The kernel programs are attached.
    Capture = 1,
    /// Workloads, services and policies have come for the first time.
    Resources = 2,
    /// Every pod of the first listing has been handled.
    Pods = 4,
}

/// The bit that is set while this proxy stops.
const STOPPING: u8 = 128;

const STEPS: [(Step, &str); 3] = [
    (Step::Capture, "capture"),
    (
        Step::Resources,
        "workloads and policies from the control plane",
    ),
    (Step::Pods, "the list of pods"),
];

/// The steps that are still to come.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// Notes that a step is done; it stays done.
    pub fn done(&self, step: Step) {
        let before = self.0.fetch_or(step as u8, Ordering::Relaxed);
        if before & step as u8 == 0 && self.missing().is_empty() {
            tracing::info!("ready");
        }
    }

    /// Notes that this proxy stops: it takes no further connection.
    pub fn stopping(&self) {
        self.0.fetch_or(STOPPING, Ordering::Relaxed);
    }

    /// What is still to come, in words; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let done = self.0.load(Ordering::Relaxed);
        if done & STOPPING != 0 {
            return vec!["its end: it is stopping"];
        }
        STEPS
            .iter()
            .filter(|(step, _)| done & *step as u8 == 0)
            .map(|(_, name)| *name)
            .collect()
    }

    /// Answers probes on `listener`.
    pub async fn serve(self, listener: TcpListener) {
        serve(listener, move |request| {
            std::future::ready(self.answer(&request))
        })
        .await;
    }

    fn answer(&self, request: &Request) -> Response {
        let plain = "text/plain; charset=utf-8";
        match (request.uri().path(), self.missing().as_slice()) {
            ("/healthz/ready", []) => text(StatusCode::OK, plain, "ready\n"),
            ("/healthz/ready", missing) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                plain,
                format!("waiting for {}\n", missing.join(", ")),
            ),
            _ => text(
                StatusCode::NOT_FOUND,
                plain,
                "only /healthz/ready is here\n",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_step_is_done_in_whatever_order() {
        let readiness = Readiness::default();
        readiness.done(Step::Pods);
        readiness.done(Step::Capture);
        assert_eq!(
            readiness.missing(),
            ["workloads and policies from the control plane"]
        );
        readiness.done(Step::Resources);
        assert!(readiness.missing().is_empty());
        readiness.stopping();
        assert_eq!(readiness.missing(), ["its end: it is stopping"]);
    }
}
