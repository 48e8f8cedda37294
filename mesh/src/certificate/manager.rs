//! The keeper of certificates: answers connections from memory, and runs [`super::schedule`]
//! against an issuer in the background.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use super::schedule::{Next, Schedule, Urgency};
use super::{Certificate, CertificateError};
use crate::ca::{IssueError, Issuer};
use crate::identity::{Identity, TrustDomain};

/// Keeps a certificate for each identity that is asked for, renews it at half of its life, and
/// keeps a valid one when the renewal fails. Cheap to clone; its background task ends with the
/// last clone.
#[derive(Clone)]
pub struct Certificates(Arc<Handle>);

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GetError {
    /// The last request failed; it goes on being repeated.
    #[error("no certificate for {identity}: {cause}")]
    Issue {
        /// For whom.
        identity: Identity,
        /// Why the request failed.
        cause: Arc<IssueError>,
    },
    /// The issuer answered, but not with a certificate of this identity.
    #[error("no certificate for {identity}: {cause}")]
    Unfit {
        /// For whom.
        identity: Identity,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// The identity was given up while its certificate was waited for.
    #[error("no certificate for {0}: its workload has left this node")]
    Forgotten(Identity),
}

/// What is held for an identity, for people to look at.
#[derive(Debug, Clone)]
pub enum Held {
    /// Asked for, not answered yet.
    Requested,
    /// Usable.
    Certificate(Arc<Certificate>),
    /// The last request failed and there is no valid one.
    Failed(GetError),
}

struct Handle {
    shared: Arc<Shared>,
    worker: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    /// The worker has something to look at.
    work: Notify,
    also_accepted: Vec<TrustDomain>,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    slots: HashMap<Identity, Slot>,
}

struct Slot {
    current: Option<Arc<Certificate>>,
    /// The last answer; those who wait for the next one watch it.
    answer: watch::Sender<Option<Answer>>,
}

type Answer = Result<Arc<Certificate>, GetError>;

impl Certificates {
    /// Starts with nothing. Peers of other trust domains are accepted if they are `also_accepted`.
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn new(issuer: Arc<dyn Issuer>, also_accepted: Vec<TrustDomain>) -> Self {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared {
            state,
            work: Notify::new(),
            also_accepted,
        });
        let worker = tokio::spawn(work(shared.clone(), issuer)).abort_handle();
        Self(Arc::new(Handle { shared, worker }))
    }

    /// The certificate of `identity`: at once where a valid one is held, otherwise the answer to
    /// the request that runs or is made for it. One request at a time for an identity, however
    /// many wait. May be cancelled at any time.
    ///
    /// # Errors
    /// See [`GetError`]. There is no time limit here: the issuer has its own.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<Certificate>, GetError> {
        let mut answer = {
            let mut state = self.0.shared.state.lock();
            let slot = state.slot(identity);
            if let Some(current) = slot.valid() {
                return Ok(current);
            }
            let answer = slot.answer.subscribe();
            state
                .schedule
                .want(identity, Urgency::Wanted, Instant::now());
            answer
        };
        self.0.shared.work.notify_one();
        match answer.changed().await {
            Ok(()) => answer
                .borrow()
                .clone()
                .unwrap_or_else(|| Err(GetError::Forgotten(identity.clone()))),
            Err(_) => Err(GetError::Forgotten(identity.clone())),
        }
    }

    /// The certificate of `identity` if a valid one is held; asks for none.
    #[must_use]
    pub fn current(&self, identity: &Identity) -> Option<Arc<Certificate>> {
        self.0.shared.state.lock().slots.get(identity)?.valid()
    }

    /// Asks for a certificate that will be needed soon.
    pub fn prefetch(&self, identity: &Identity) {
        let mut state = self.0.shared.state.lock();
        state.slot(identity);
        state
            .schedule
            .want(identity, Urgency::Prefetch, Instant::now());
        drop(state);
        self.0.shared.work.notify_one();
    }

    /// Gives up an identity: its key is dropped with the last connection that uses it.
    pub fn forget(&self, identity: &Identity) {
        let mut state = self.0.shared.state.lock();
        state.slots.remove(identity);
        state.schedule.forget(identity);
    }

    /// Everything that is held, ordered by identity.
    #[must_use]
    pub fn held(&self) -> Vec<(Identity, Held)> {
        let state = self.0.shared.state.lock();
        let mut held: Vec<_> = state
            .slots
            .iter()
            .map(|(identity, slot)| (identity.clone(), slot.held()))
            .collect();
        held.sort_by(|(a, _), (b, _)| a.cmp(b));
        held
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Certificates({})",
            self.0.shared.state.lock().slots.len()
        )
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl State {
    fn slot(&mut self, identity: &Identity) -> &mut Slot {
        self.slots.entry(identity.clone()).or_insert_with(|| Slot {
            current: None,
            answer: watch::Sender::new(None),
        })
    }
}

impl Slot {
    fn valid(&self) -> Option<Arc<Certificate>> {
        self.current
            .as_ref()
            .filter(|c| c.is_valid(SystemTime::now()))
            .cloned()
    }

    fn held(&self) -> Held {
        match (self.valid(), &*self.answer.borrow()) {
            (Some(current), _) => Held::Certificate(current),
            (None, Some(Err(error))) => Held::Failed(error.clone()),
            (None, _) => Held::Requested,
        }
    }
}

impl Shared {
    fn answered(&self, identity: &Identity, answer: Answer) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let needed = match &answer {
            Ok(certificate) => {
                let (from, to) = (certificate.not_before(), certificate.not_after());
                let age = SystemTime::now().duration_since(from).unwrap_or_default();
                let life = to.duration_since(from).unwrap_or_default();
                state
                    .schedule
                    .issued(identity, age, life, now, rand::random())
            }
            Err(_) => state.schedule.failed(identity, now),
        };
        let Some(slot) = state.slots.get_mut(identity).filter(|_| needed) else {
            return;
        };
        match &answer {
            Ok(certificate) => {
                debug!(%identity, serial = certificate.serial(), "certificate issued");
                slot.current = Some(certificate.clone());
            }
            Err(error) => warn!(%identity, valid = slot.valid().is_some(), "{error}"),
        }
        slot.answer.send_replace(Some(answer));
    }
}

/// Makes the requests that the schedule wants, until it is aborted.
async fn work(shared: Arc<Shared>, issuer: Arc<dyn Issuer>) {
    let mut requests = JoinSet::new();
    loop {
        let sleep = loop {
            let next = shared.state.lock().schedule.next(Instant::now());
            match next {
                Next::Request(identity) => {
                    let (issuer, also_accepted) = (issuer.clone(), shared.also_accepted.clone());
                    requests.spawn(request(issuer, identity, also_accepted));
                }
                Next::SleepUntil(at) => break Some(at),
                Next::Sleep => break None,
            }
        };
        let asleep = async {
            match sleep {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = shared.work.notified() => {}
            () = asleep => {}
            Some(done) = requests.join_next() => {
                if let Ok((identity, answer)) = done {
                    shared.answered(&identity, answer);
                }
            }
        }
    }
}

async fn request(
    issuer: Arc<dyn Issuer>,
    identity: Identity,
    also_accepted: Vec<TrustDomain>,
) -> (Identity, Answer) {
    let answer = match issuer.issue(&identity).await {
        Ok(material) => Certificate::new(&identity, material, &also_accepted)
            .and_then(
                |certificate| match certificate.is_valid(SystemTime::now()) {
                    true => Ok(Arc::new(certificate)),
                    false => Err(CertificateError::NotValidNow),
                },
            )
            .map_err(|cause| GetError::Unfit {
                identity: identity.clone(),
                cause,
            }),
        Err(cause) => Err(GetError::Issue {
            identity: identity.clone(),
            cause: Arc::new(cause),
        }),
    };
    (identity, answer)
}
