//! Keys of token issuers: fetched from where a RequestAuthentication says (`jwksUri`, or what the
//! issuer's OpenID configuration names), kept fresh, and handed to the index, which writes them into
//! waypoints' configuration. So no waypoint needs a way out of the mesh.
//!
//! ```text
//! index ─ wanted sources → run ─ fetch → Report::Keys → pilot → index
//! ```
//!
//! As istiod does it (`pilot/pkg/model/jwks_resolver.go`): keys are renewed every 20 minutes, the last
//! good ones stay while a renewal fails, and where there were never any, every token is refused.

pub mod fetch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::watch::Report;
use crate::metrics::Metrics;
use fetch::Fetcher;

/// Fetches at a time.
const AT_ONCE: usize = 16;
/// Sources that are kept; what is wanted beyond is refused, and said so.
const MOST: usize = 1000;

/// When what is done.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How old keys become.
    pub renewal: Duration,
    /// The pauses after failures grow from the first to the second.
    pub pause: (Duration, Duration),
    /// How long a first configuration waits for keys.
    pub first: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            renewal: Duration::from_secs(20 * 60),
            pause: (Duration::from_secs(1), Duration::from_secs(60)),
            first: Duration::from_secs(10),
        }
    }
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The issuer: where no address is said, its OpenID configuration names one.
    pub issuer: String,
    /// The address, or nothing.
    pub uri: String,
}

/// What is wanted: each source with the time that a fetch may take.
pub type Wanted = BTreeMap<Source, Duration>;

/// The keys, or why there are none.
pub type Outcome = Result<Arc<str>, String>;

/// Fetches what is wanted, until `stop` or until nobody listens any more.
pub async fn run(
    (fetcher, timing): (Fetcher, Timing),
    mut wanted: watch::Receiver<Wanted>,
    reports: mpsc::WeakSender<Report>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let (fetcher, slots) = (Arc::new(fetcher), Arc::new(Semaphore::new(AT_ONCE)));
    let mut running: BTreeMap<Source, (Duration, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let sources = wanted.borrow_and_update().clone();
        running.retain(|source, (timeout, task)| {
            let stays = sources.get(source) == Some(timeout);
            if !stays {
                task.abort();
            }
            stays
        });
        for (source, timeout) in sources {
            if running.contains_key(&source) {
                continue;
            }
            if running.len() >= MOST {
                let full = Err(format!(
                    "more than {MOST} sources of keys are wanted: this one is not fetched"
                ));
                tell(&reports, source, full).await;
                continue;
            }
            let keeper = Keeper {
                source: source.clone(),
                timeout,
                timing,
                fetcher: fetcher.clone(),
                slots: slots.clone(),
                reports: reports.clone(),
                metrics: metrics.clone(),
            };
            let task = tasks.spawn(keeper.keep());
            running.insert(source, (timeout, task));
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(_ended) = tasks.join_next() => {}
            }
        }
    }
}

/// Keeps one source's keys fresh.
struct Keeper {
    source: Source,
    timeout: Duration,
    timing: Timing,
    fetcher: Arc<Fetcher>,
    slots: Arc<Semaphore>,
    reports: mpsc::WeakSender<Report>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    async fn keep(self) {
        let mut told: Option<Outcome> = None;
        let mut pause = self.timing.pause.0;
        let begun = Instant::now();
        loop {
            let attempt = self.attempt();
            let fetched = if told.is_none() {
                // Who waits for its first configuration does not wait for ever.
                let left = self.timing.first.saturating_sub(begun.elapsed());
                tokio::time::timeout(left, attempt)
                    .await
                    .unwrap_or_else(|_| Err("no answer yet".to_owned()))
            } else {
                attempt.await
            };
            self.metrics.key_fetch(fetched.is_ok());
            let next = match &fetched {
                Ok(_) => {
                    pause = self.timing.pause.0;
                    self.timing.renewal
                }
                Err(error) => {
                    let Source { issuer, uri } = &self.source;
                    tracing::warn!(
                        issuer,
                        uri,
                        error,
                        "keys could not be fetched; the last good ones stay, if there were any"
                    );
                    let now = pause;
                    pause = (pause * 2).min(self.timing.pause.1);
                    now
                }
            };
            // Good keys stay in force while they can't be renewed.
            let news = match (&told, &fetched) {
                (Some(Ok(_)), Err(_)) => false,
                (told, fetched) => told.as_ref() != Some(fetched),
            };
            if news {
                told = Some(fetched.clone());
                tell(&self.reports, self.source.clone(), fetched).await;
            }
            tokio::time::sleep(next).await;
        }
    }

    async fn attempt(&self) -> Outcome {
        let _slot = self.slots.acquire().await;
        let fetched = tokio::time::timeout(self.timeout, self.fetcher.keys(&self.source)).await;
        match fetched {
            Ok(keys) => keys.map_err(|error| fetch::told(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

async fn tell(reports: &mpsc::WeakSender<Report>, source: Source, outcome: Outcome) {
    if let Some(reports) = reports.upgrade() {
        // Nobody listens only at the very end.
        let _ = reports.send(Report::Keys(source, outcome)).await;
    }
}

#[cfg(test)]
mod tests;
