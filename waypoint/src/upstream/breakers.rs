//! Circuit breakers: how much of a cluster's limits is taken, across workers. A place is taken with
//! one atomic operation and free again when it is dropped.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::cluster::Breakers;

/// How much of one limit is taken.
#[derive(Debug, Default)]
pub(super) struct Taken(AtomicU32);

impl Taken {
    /// Takes one if fewer than `limit` are taken.
    pub(super) fn take(&self, limit: u32) -> bool {
        // Relaxed: the number is a limit, and orders nothing else. A short overshoot is taken back.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before < limit {
            return true;
        }
        self.give();
        false
    }

    /// Takes one whatever the limit.
    pub(super) fn take_anyway(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one back.
    pub(super) fn give(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more was given back than taken");
    }

    /// How many are taken now.
    pub(super) fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many retries may run at a time while so many requests and waiting ones do: Envoy's retry
/// budget, or else its fixed limit.
pub(super) fn retry_limit(breakers: &Breakers, active: u32) -> u32 {
    match breakers.retry_budget {
        None => breakers.retries,
        Some((percent, least)) => {
            let share = (f64::from(active) * percent.0 / 100.0).max(0.0);
            let share = share as u32;
            share.max(least)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::Percent;

    fn breakers(retry_budget: Option<(Percent, u32)>) -> Breakers {
        Breakers {
            connections: 1,
            pending: 1,
            requests: 1,
            retries: 3,
            retry_budget,
        }
    }

    #[test]
    fn a_limit_holds_and_what_is_given_back_can_be_taken_again() {
        let taken = Taken::default();
        assert!(taken.take(2) && taken.take(2));
        assert!(!taken.take(2));
        assert_eq!(taken.now(), 2);
        taken.give();
        assert!(taken.take(2));
        assert!(!Taken::default().take(0));
    }

    #[test]
    fn a_budget_is_a_share_of_what_runs_but_never_less_than_its_minimum() {
        assert_eq!(retry_limit(&breakers(None), 1000), 3);
        let budget = Some((Percent(20.0), 3));
        assert_eq!(retry_limit(&breakers(budget), 0), 3);
        assert_eq!(retry_limit(&breakers(budget), 100), 20);
        assert_eq!(retry_limit(&breakers(Some((Percent(0.2), 3))), 1000), 3);
    }
}
