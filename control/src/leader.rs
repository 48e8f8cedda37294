//! Which replica writes to the cluster. All replicas serve; the one that holds a Lease of
//! `coordination.k8s.io` writes statuses, waypoints and root certificates.
//!
//! The protocol is client-go's, so that `kubectl get lease` and every tool that knows it understand
//! ours: compare-and-swap of the whole Lease by its `resourceVersion`. Server-side apply, which the
//! published crates for this use, lets two replicas that share a field manager both believe that
//! they won; a replacement with a version can succeed only once.
//!
//! [`election`] decides (no IO, no clock), [`fence`] keeps a deposed leader from writing, this file
//! is the shell. When a leader stops it ends its duties first and empties the Lease after, and the
//! next takes it without waiting for it to run out.

pub mod election;
pub mod fence;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use election::{Action, Election, Timing};
use fence::Term;

/// The Lease's name, in the namespace of the installation.
pub const LEASE: &str = "culvert-control-leader";
/// How long duties have to end by themselves when the leader stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// A replica that would like to lead.
pub struct Candidate {
    leases: Api<Lease>,
    client: Client,
    election: Election,
    timing: Timing,
    metrics: Arc<Metrics>,
}

impl Candidate {
    /// A candidate in a namespace; `identity` must be its own alone, among all that ever ran.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        identity: String,
        timing: Timing,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            client,
            election: Election::new(LEASE, identity, timing),
            timing,
            metrics,
        }
    }

    /// Takes part until stopped. For each term the duties are started with a client that refuses to
    /// write once the term is over, and with a token that says so; they are dropped where they do
    /// not end with it.
    pub async fn run<D>(
        mut self,
        stop: CancellationToken,
        duties: impl Fn(Client, CancellationToken) -> D,
    ) where
        D: Future<Output = ()> + Send + 'static,
    {
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = self.attempt() => pause,
            };
            if let Some(term) = self.election.held_until().map(Term::until) {
                self.lead(&stop, term, &duties).await;
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn lead<D>(
        &mut self,
        stop: &CancellationToken,
        term: Term,
        duties: &impl Fn(Client, CancellationToken) -> D,
    ) where
        D: Future<Output = ()> + Send + 'static,
    {
        tracing::info!(
            lease = LEASE,
            transitions = self.election.transitions(),
            "this replica leads: it writes statuses, waypoints and root certificates"
        );
        self.metrics.leading.set(1);
        let over = CancellationToken::new();
        let mut work = tokio::spawn(duties(
            fence::fenced(self.client.clone(), term.clone()),
            over.clone(),
        ));
        let stopped = self.renew(stop, &term).await;
        self.metrics.leading.set(0);
        over.cancel();
        if stopped {
            let ended = tokio::time::timeout(FAREWELL, &mut work).await;
            term.end();
            if ended.is_err() {
                work.abort();
            }
            self.release().await;
            return;
        }
        // What is on its way is given up with the task: its time is over.
        term.end();
        work.abort();
        self.election.lose();
        tracing::warn!(
            lease = LEASE,
            "this replica leads no longer: the lease could not be renewed in time, or another took it"
        );
    }

    /// Renews for as long as it succeeds; says whether it ended because control stops.
    async fn renew(&mut self, stop: &CancellationToken, term: &Term) -> bool {
        loop {
            let Some(until) = self.election.held_until() else {
                return false;
            };
            term.extend(until);
            let next = Instant::now() + self.timing.retry;
            tokio::select! {
                biased;
                () = stop.cancelled() => return true,
                () = tokio::time::sleep_until(until.into()) => return false,
                () = tokio::time::sleep_until(next) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return true,
                () = tokio::time::sleep_until(until.into()) => return false,
                _ = self.attempt() => {}
            }
        }
    }

    /// One look at the lease, and what follows from it; says how long to wait for the next.
    async fn attempt(&mut self) -> Duration {
        let retry = self.timing.retry.mul_f64(1.0 + rand::random::<f64>() / 5.0);
        let seen = match self.leases.get_opt(LEASE).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(lease = LEASE, %error, "the lease could not be read; it is tried again");
                return retry;
            }
        };
        // Before the request: what it grants counts from here.
        let asked = std::time::Instant::now();
        let action = self
            .election
            .decide(seen, asked, k8s_openapi::jiff::Timestamp::now());
        let written = match action {
            Action::Wait => return retry,
            Action::Create(lease) => self.leases.create(&PostParams::default(), &lease).await,
            Action::Replace(lease) => {
                let params = PostParams::default();
                self.leases.replace(LEASE, &params, &lease).await
            }
        };
        match written {
            Ok(lease) => self.election.won(lease, asked),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(lease = LEASE, "another replica was faster");
                return Duration::ZERO.max(retry / 4);
            }
            Err(error) => {
                tracing::warn!(lease = LEASE, %error, "the lease could not be written: is the Role culvert-control bound in this namespace?");
            }
        }
        retry
    }

    async fn release(&mut self) {
        let Some(lease) = self.election.release() else {
            return;
        };
        match self
            .leases
            .replace(LEASE, &PostParams::default(), &lease)
            .await
        {
            Ok(_) => tracing::info!(lease = LEASE, "the lease is given back"),
            Err(error) => {
                tracing::warn!(lease = LEASE, %error, "the lease could not be given back: another replica takes it when it runs out");
            }
        }
    }
}
