//! Who may lead, from what the Lease says and when it was seen to change. No IO, no clock.
//!
//! ```text
//! waiting ── nobody holds it, or its holder is silent for the lease's duration ──> leading
//!    ^                                                                                │
//!    └── it could not be renewed for the deadline, or another holds it ───────────────┘
//! ```
//!
//! Clocks of machines differ, so another's `renewTime` is never compared with our time: what counts
//! is how long, by our own clock, the Lease has not changed. The leader gives up after `deadline`,
//! counted from before its last successful request, and others wait for `duration`, counted from
//! after they saw it: since `deadline < duration`, there is a while in between in which nobody leads.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

/// The times of an election; client-go's, and what Kubernetes' own controllers use, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a silent leader is waited for.
    pub duration: Duration,
    /// How long a leader goes on that can't renew.
    pub deadline: Duration,
    /// How often the lease is looked at and renewed.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self::of(Duration::from_secs(15))
    }
}

impl Timing {
    /// The times that go with a lease of this duration, in client-go's proportions.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        Self {
            duration,
            deadline: duration * 2 / 3,
            retry: duration * 2 / 15,
        }
    }
}

/// What to do with the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing: somebody else leads.
    Wait,
    /// Make it: there is none.
    Create(Box<Lease>),
    /// Put this in its place, if it is still the version that was seen.
    Replace(Box<Lease>),
}

/// One replica's view of the election.
#[derive(Clone, Debug)]
pub struct Election {
    name: String,
    identity: String,
    timing: Timing,
    /// The version of the lease that was seen last, and when it was seen first.
    seen: Option<(String, Instant)>,
    /// The lease as we last wrote it, and until when we lead by it.
    held: Option<(Lease, Instant)>,
}

impl Election {
    /// A replica that knows nothing yet.
    #[must_use]
    pub fn new(name: &str, identity: String, timing: Timing) -> Self {
        Self {
            name: name.to_owned(),
            identity,
            timing,
            seen: None,
            held: None,
        }
    }

    /// Until when we lead, if we do.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// How often the lease changed hands.
    #[must_use]
    pub fn transitions(&self) -> i32 {
        let spec = self
            .held
            .as_ref()
            .and_then(|(lease, _)| lease.spec.as_ref());
        spec.and_then(|spec| spec.lease_transitions)
            .unwrap_or_default()
    }

    /// What follows from the lease as it is at `now`; `wall` is what it would say of that moment.
    pub fn decide(&mut self, lease: Option<Lease>, now: Instant, wall: Timestamp) -> Action {
        let Some(mut lease) = lease else {
            self.held = None;
            return Action::Create(Box::new(Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None, wall)),
            }));
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((known, since)) if *known == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let old = lease.spec.take().unwrap_or_default();
        let holder = old.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity {
            self.held = None;
            let duration = old.lease_duration_seconds.unwrap_or_default();
            let duration = Duration::from_secs(duration.max(0).unsigned_abs().into());
            if !holder.is_empty() && now.saturating_duration_since(since) < duration {
                return Action::Wait;
            }
        }
        lease.spec = Some(self.spec(Some(old), wall));
        Action::Replace(Box::new(lease))
    }

    fn spec(&self, old: Option<LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let old = old.unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(&*self.identity);
        let seconds = self.timing.duration.as_secs().max(1);
        LeaseSpec {
            acquire_time: if same {
                old.acquire_time
            } else {
                Some(MicroTime(wall))
            },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(!same)),
            renew_time: Some(MicroTime(wall)),
            ..LeaseSpec::default()
        }
    }

    /// The API server took what [`Self::decide`] said at `asked`.
    pub fn won(&mut self, lease: Lease, asked: Instant) {
        self.held = Some((lease, asked + self.timing.deadline));
    }

    /// It could not be renewed in time.
    pub fn lose(&mut self) {
        self.held = None;
    }

    /// The lease given back, if we hold it: nobody's, and to be had at once.
    pub fn release(&mut self) -> Option<Lease> {
        let (mut lease, _) = self.held.take()?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        Some(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn candidate(name: &str) -> Election {
        Election::new("lease", name.to_owned(), TIMING)
    }

    /// What the API server makes of a write: the next version.
    fn stored(action: Action, version: u32) -> Lease {
        let (Action::Create(mut lease) | Action::Replace(mut lease)) = action else {
            panic!("nothing was written")
        };
        lease.metadata.resource_version = Some(version.to_string());
        *lease
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_leader_is_followed_after_the_duration_by_our_own_clock() {
        let (start, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let lease = stored(a.decide(None, start, wall), 1);
        a.won(lease.clone(), start);
        assert_eq!(a.held_until(), Some(after(start, 10)));
        // However old it says it is: it is new to us.
        assert_eq!(b.decide(Some(lease.clone()), start, wall), Action::Wait);
        assert_eq!(
            b.decide(Some(lease.clone()), after(start, 14), wall),
            Action::Wait
        );
        let renewed = stored(a.decide(Some(lease), after(start, 14), wall), 2);
        assert_eq!(
            b.decide(Some(renewed.clone()), after(start, 16), wall),
            Action::Wait
        );
        let taken = stored(b.decide(Some(renewed), after(start, 31), wall), 3);
        let spec = taken.spec.clone().unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(2));
        b.won(taken.clone(), after(start, 31));
        assert_eq!(b.transitions(), 2);
        // The old leader sees that it is none any more.
        assert_eq!(a.decide(Some(taken), after(start, 32), wall), Action::Wait);
        assert_eq!(a.held_until(), None);
    }

    #[test]
    fn a_leader_gives_up_before_anybody_follows_it() {
        let start = Instant::now();
        let mut a = candidate("a");
        let lease = stored(a.decide(None, start, Timestamp::UNIX_EPOCH), 1);
        a.won(lease, start);
        let earliest_successor = after(start, TIMING.duration.as_secs());
        assert!(a.held_until().unwrap() < earliest_successor);
        for seconds in 1..600 {
            let timing = Timing::of(Duration::from_secs(seconds));
            assert!(timing.retry < timing.deadline && timing.deadline < timing.duration);
        }
    }

    #[test]
    fn a_lease_given_back_is_taken_at_once() {
        let (start, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let lease = stored(a.decide(None, start, wall), 1);
        a.won(lease, start);
        let mut released = a.release().unwrap();
        assert_eq!((a.held_until(), a.release()), (None, None));
        released.metadata.resource_version = Some("2".to_owned());
        assert!(matches!(
            b.decide(Some(released), start, wall),
            Action::Replace(_)
        ));
    }

    #[test]
    fn renewing_keeps_the_time_of_acquisition_and_the_version_seen() {
        let (start, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut a = candidate("a");
        let lease = stored(a.decide(None, start, wall), 7);
        a.won(lease.clone(), start);
        let later = Timestamp::from_second(60).unwrap();
        let Action::Replace(renewed) = a.decide(Some(lease), after(start, 2), later) else {
            panic!("not renewed")
        };
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        let spec = renewed.spec.unwrap();
        assert_eq!(spec.acquire_time, Some(MicroTime(wall)));
        assert_eq!(spec.renew_time, Some(MicroTime(later)));
        assert_eq!(spec.lease_transitions, Some(1));
    }
}
