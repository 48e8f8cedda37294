//! When to ask for which certificate: the decisions of [`super::Certificates`], without IO and
//! with time as an argument.
//!
//! ```text
//!            ┌────────── due and one of 8 requests free ─────────┐
//!  Waiting(at, why) ◀──── failed: back-off, 0.5 s → 150 s ──── Requesting
//!            ▲                                                   │
//!            └──────────── issued: half of the life, ± jitter ───┘
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::identity::Identity;

/// Requests to the CA at the same time.
pub(super) const MAX_REQUESTS: usize = 8;
/// First wait after a failure; each further one doubles it.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait after a failure.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(150);
/// While a connection waits for a certificate, a failed request is repeated after this time at the
/// latest, so that a CA that is back is used at once.
pub(super) const BACKOFF_WANTED: Duration = Duration::from_secs(2);
/// A certificate is renewed at half of its life, plus or minus this part of its life.
pub(super) const JITTER: f64 = 0.05;

/// How soon an entry matters; the order is that in which requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// A connection waits.
    Wanted,
    /// A pod is here whose connections will come.
    Prefetch,
    /// The present certificate is still valid.
    Renewal,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for this certificate now; answer with `issued` or `failed`.
    Request(Identity),
    /// Nothing before this time, unless something is wanted or answered.
    SleepUntil(Instant),
    /// Nothing, unless something is wanted or answered.
    Sleep,
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: HashMap<Identity, Entry>,
    requests: usize,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    failures: u32,
    /// Start of the last request that failed.
    failed_at: Option<Instant>,
    /// Forgotten while it was being requested; the answer is dropped.
    forgotten: bool,
}

#[derive(Debug)]
enum Phase {
    Waiting { at: Instant, urgency: Urgency },
    Requesting,
}

impl Schedule {
    /// Somebody needs a certificate for `identity`.
    pub(super) fn want(&mut self, identity: &Identity, urgency: Urgency, now: Instant) {
        let entry = self
            .entries
            .entry(identity.clone())
            .or_insert_with(|| Entry {
                phase: Phase::Waiting { at: now, urgency },
                failures: 0,
                failed_at: None,
                forgotten: false,
            });
        entry.forgotten = false;
        if let Phase::Waiting {
            at,
            urgency: present,
        } = &mut entry.phase
        {
            *present = urgency.min(*present);
            if urgency == Urgency::Wanted {
                let soonest = entry
                    .failed_at
                    .map_or(now, |failed| failed + BACKOFF_WANTED);
                *at = soonest.min(*at);
            }
        }
    }

    /// Nobody needs it any more.
    pub(super) fn forget(&mut self, identity: &Identity) {
        match self.entries.get_mut(identity) {
            Some(Entry {
                phase: Phase::Requesting,
                forgotten,
                ..
            }) => *forgotten = true,
            Some(_) => drop(self.entries.remove(identity)),
            None => {}
        }
    }

    /// The next thing to do at `now`: call until it answers something else than a request.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.requests >= MAX_REQUESTS {
            return Next::Sleep;
        }
        let first = self
            .entries
            .iter_mut()
            .filter_map(|(identity, entry)| match entry.phase {
                Phase::Waiting { at, urgency } => {
                    let due = at <= now;
                    Some(((!due, due.then_some(urgency), at), identity, entry))
                }
                Phase::Requesting => None,
            })
            .min_by_key(|(order, ..)| *order);
        match first {
            Some(((false, ..), identity, entry)) => {
                entry.phase = Phase::Requesting;
                self.requests += 1;
                Next::Request(identity.clone())
            }
            Some(((true, _, at), ..)) => Next::SleepUntil(at),
            None => Next::Sleep,
        }
    }

    /// A request was answered with a certificate of `age` that lives for `life` in all. `random`
    /// is in 0..1. Returns whether it is still needed.
    pub(super) fn issued(
        &mut self,
        identity: &Identity,
        age: Duration,
        life: Duration,
        now: Instant,
        random: f64,
    ) -> bool {
        let part = 0.5 + JITTER * (2.0 * random - 1.0);
        // A certificate handed out past its half life is renewed, but not in a tight loop.
        let wait = life.mul_f64(part).saturating_sub(age).max(BACKOFF_FIRST);
        self.answered(identity, |entry| {
            entry.failures = 0;
            entry.failed_at = None;
            entry.phase = Phase::Waiting {
                at: now + wait,
                urgency: Urgency::Renewal,
            };
        })
    }

    /// A request failed. Returns whether the certificate is still needed.
    pub(super) fn failed(&mut self, identity: &Identity, now: Instant) -> bool {
        self.answered(identity, |entry| {
            let wait = BACKOFF_FIRST
                .saturating_mul(1 << entry.failures.min(16))
                .min(BACKOFF_MAX);
            entry.failures += 1;
            entry.failed_at = Some(now);
            entry.phase = Phase::Waiting {
                at: now + wait,
                urgency: Urgency::Renewal,
            };
        })
    }

    fn answered(&mut self, identity: &Identity, update: impl FnOnce(&mut Entry)) -> bool {
        let Some(entry) = self.entries.get_mut(identity) else {
            return false;
        };
        if !matches!(entry.phase, Phase::Requesting) {
            return false;
        }
        self.requests -= 1;
        if entry.forgotten {
            self.entries.remove(identity);
            return false;
        }
        update(entry);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Identity {
        format!("spiffe://td/ns/ns/sa/{name}").parse().unwrap()
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn one_request_for_an_identity_however_often_it_is_wanted() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&id("a"), Urgency::Wanted, now);
        schedule.want(&id("a"), Urgency::Wanted, now);
        assert_eq!(schedule.next(now), Next::Request(id("a")));
        schedule.want(&id("a"), Urgency::Wanted, now);
        assert_eq!(schedule.next(now), Next::Sleep);
    }

    #[test]
    fn eight_at_a_time_and_the_urgent_first() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for i in 0..20 {
            schedule.want(&id(&format!("later-{i}")), Urgency::Prefetch, now);
        }
        schedule.want(&id("now"), Urgency::Wanted, now);
        assert_eq!(schedule.next(now), Next::Request(id("now")));
        for _ in 1..MAX_REQUESTS {
            assert!(matches!(schedule.next(now), Next::Request(_)));
        }
        assert_eq!(schedule.next(now), Next::Sleep);
        assert!(schedule.issued(&id("now"), secs(0.0), DAY, now, 0.5));
        assert!(matches!(schedule.next(now), Next::Request(_)));
        assert_eq!(schedule.next(now), Next::Sleep);
    }

    #[test]
    fn renewed_at_half_life_with_jitter() {
        for (random, hours) in [(0.0, 10.8), (0.5, 12.0), (1.0, 13.2)] {
            let (mut schedule, now) = (Schedule::default(), Instant::now());
            schedule.want(&id("a"), Urgency::Wanted, now);
            schedule.next(now);
            schedule.issued(&id("a"), secs(0.0), DAY, now, random);
            let Next::SleepUntil(at) = schedule.next(now) else {
                panic!("nothing to wait for")
            };
            assert!(((at - now).as_secs_f64() - hours * 3600.0).abs() < 1.0);
            assert_eq!(schedule.next(at), Next::Request(id("a")));
        }
    }

    #[test]
    fn the_age_of_a_certificate_counts() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&id("a"), Urgency::Wanted, now);
        schedule.next(now);
        schedule.issued(&id("a"), DAY / 4, DAY, now, 0.5);
        assert_eq!(schedule.next(now), Next::SleepUntil(now + DAY / 4));
        assert_eq!(schedule.next(now + DAY / 4), Next::Request(id("a")));
        schedule.issued(&id("a"), DAY, DAY, now + DAY / 4, 0.5);
        assert_eq!(
            schedule.next(now + DAY / 4),
            Next::SleepUntil(now + DAY / 4 + BACKOFF_FIRST)
        );
    }

    #[test]
    fn failures_back_off_to_the_limit_and_success_starts_anew() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.want(&id("a"), Urgency::Prefetch, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(schedule.next(now), Next::Request(id("a")));
            assert!(schedule.failed(&id("a"), now));
            let Next::SleepUntil(at) = schedule.next(now) else {
                panic!("no retry")
            };
            waits.push((at - now).as_secs_f64());
            now = at;
        }
        assert_eq!(
            waits,
            [0.5, 1., 2., 4., 8., 16., 32., 64., 128., 150., 150., 150.]
        );
        assert_eq!(schedule.next(now), Next::Request(id("a")));
        schedule.issued(&id("a"), secs(0.0), DAY, now, 0.5);
        now += DAY / 2;
        assert_eq!(schedule.next(now), Next::Request(id("a")));
        schedule.failed(&id("a"), now);
        assert_eq!(schedule.next(now), Next::SleepUntil(now + BACKOFF_FIRST));
    }

    #[test]
    fn a_waiting_connection_shortens_the_back_off_but_not_to_nothing() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.want(&id("a"), Urgency::Prefetch, now);
        for _ in 0..10 {
            assert_eq!(schedule.next(now), Next::Request(id("a")));
            schedule.failed(&id("a"), now);
            if let Next::SleepUntil(at) = schedule.next(now) {
                now = at;
            }
        }
        assert_eq!(schedule.next(now), Next::Request(id("a")));
        schedule.failed(&id("a"), now);
        schedule.want(&id("a"), Urgency::Wanted, now + secs(0.1));
        assert_eq!(
            schedule.next(now + secs(0.1)),
            Next::SleepUntil(now + BACKOFF_WANTED)
        );
        assert_eq!(schedule.next(now + BACKOFF_WANTED), Next::Request(id("a")));
    }

    #[test]
    fn what_is_forgotten_is_neither_asked_for_nor_kept() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&id("a"), Urgency::Prefetch, now);
        schedule.forget(&id("a"));
        assert_eq!(schedule.next(now), Next::Sleep);
        schedule.want(&id("a"), Urgency::Prefetch, now);
        schedule.next(now);
        schedule.forget(&id("a"));
        assert!(!schedule.issued(&id("a"), secs(0.0), DAY, now, 0.5));
        assert_eq!(schedule.next(now + DAY), Next::Sleep);
        // Wanted again while the old request runs: its answer serves.
        schedule.want(&id("b"), Urgency::Prefetch, now);
        schedule.next(now);
        schedule.forget(&id("b"));
        schedule.want(&id("b"), Urgency::Wanted, now);
        assert!(schedule.issued(&id("b"), secs(0.0), DAY, now, 0.5));
    }
}
