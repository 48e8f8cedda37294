//! Outlier detection: which endpoints fail so much more than they should that they are left out for
//! a while. The rules are Envoy's (docs: *outlier detection*); time and dice are arguments. Counts
//! are atomics, since every worker has its part of them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use crate::model::cluster::Outlier;

/// What is known of one endpoint's failures.
#[derive(Debug, Default)]
pub(super) struct Record {
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// Requests, and good ones, in the present interval.
    total: AtomicU32,
    good: AtomicU32,
    local_total: AtomicU32,
    local_good: AtomicU32,
    ejected: AtomicBool,
    /// When it was ejected last, in milliseconds of the process.
    ejected_at: AtomicU64,
    /// How many times the base time the next ejection lasts, less one.
    backoff: AtomicU32,
}

/// Why an endpoint is to be ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocal,
    SuccessRate,
    FailurePercentage,
}

/// A failure that no answer told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalFailure {
    /// Connecting failed.
    Connect,
    /// It took too long.
    Timeout,
    /// The connection or stream ended before an answer.
    Reset,
}

impl Cause {
    /// In how many percent of cases it is acted upon.
    fn enforced(self, outlier: &Outlier) -> u32 {
        match self {
            Self::Consecutive5xx => outlier.enforcing_consecutive_5xx,
            Self::ConsecutiveGateway => outlier.enforcing_consecutive_gateway_failure,
            Self::ConsecutiveLocal => outlier.enforcing_consecutive_local_origin_failure,
            Self::SuccessRate => outlier.enforcing_success_rate,
            Self::FailurePercentage => outlier.enforcing_failure_percentage,
        }
    }
}

impl Record {
    /// Whether it is left out at present.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode, outlier: &Outlier) -> Option<Cause> {
        if outlier.split_external_local {
            self.local_failures.store(0, Relaxed);
            self.local_total.fetch_add(1, Relaxed);
            self.local_good.fetch_add(1, Relaxed);
        }
        let code = status.as_u16();
        let failed = match &outlier.errors {
            None => code >= 500,
            Some(errors) => errors.contains(code),
        };
        self.count(code, failed, outlier)
    }

    /// Counts a failure that no answer told of: by itself where such are split off, else as the
    /// status that the client got for it.
    pub(super) fn failed(&self, failure: LocalFailure, outlier: &Outlier) -> Option<Cause> {
        if outlier.split_external_local {
            self.local_total.fetch_add(1, Relaxed);
            let limit = outlier.consecutive_local_origin_failure;
            return reached(&self.local_failures, limit).then_some(Cause::ConsecutiveLocal);
        }
        let code = match failure {
            LocalFailure::Connect | LocalFailure::Reset => 503,
            LocalFailure::Timeout => 504,
        };
        self.count(code, true, outlier)
    }

    fn count(&self, code: u16, failed: bool, outlier: &Outlier) -> Option<Cause> {
        self.total.fetch_add(1, Relaxed);
        if !failed {
            self.good.fetch_add(1, Relaxed);
            // A store to a line that is read by all workers costs them; most find zero.
            for count in [&self.errors, &self.gateway_errors] {
                if count.load(Relaxed) != 0 {
                    count.store(0, Relaxed);
                }
            }
            return None;
        }
        let mut cause = None;
        if matches!(code, 502..=504) {
            let limit = outlier.consecutive_gateway_failure;
            if reached(&self.gateway_errors, limit) {
                cause = Some(Cause::ConsecutiveGateway);
            }
        } else {
            self.gateway_errors.store(0, Relaxed);
        }
        if reached(&self.errors, outlier.consecutive_5xx) {
            // Both at once count as this one unless it isn't enforced at all.
            if cause.is_none() || outlier.enforcing_consecutive_5xx > 0 {
                cause = Some(Cause::Consecutive5xx);
            }
        }
        cause
    }

    /// Leaves the endpoint out, of `members` of which `ejected` are left out already, unless the
    /// dice (0 to 99) or the limit say otherwise.
    pub(super) fn eject(
        &self,
        cause: Cause,
        outlier: &Outlier,
        (ejected, members): (usize, usize),
        now: Duration,
        dice: u32,
    ) -> bool {
        if self.is_ejected() || dice >= cause.enforced(outlier) {
            return false;
        }
        let percent = 100.0 * ejected as f64 / members.max(1) as f64;
        let first = outlier.always_eject_one && ejected == 0;
        if percent >= f64::from(outlier.max_ejection_percent) && !first {
            return false;
        }
        self.backoff.fetch_add(1, Relaxed);
        self.ejected_at.store(millis(now), Relaxed);
        self.ejected.store(true, Relaxed);
        true
    }

    /// Takes the endpoint back whatever it did; whether it was left out.
    pub(super) fn pardon(&self) -> bool {
        self.backoff.store(0, Relaxed);
        for count in [&self.errors, &self.gateway_errors, &self.local_failures] {
            count.store(0, Relaxed);
        }
        self.ejected.swap(false, Relaxed)
    }

    /// Takes the endpoint back once its time is over; whether it was.
    fn uneject(&self, outlier: &Outlier, now: Duration) -> bool {
        let backoff = self.backoff.load(Relaxed);
        if !self.is_ejected() {
            // It behaved for an interval: its next ejection is shorter.
            self.backoff.store(backoff.saturating_sub(1), Relaxed);
            return false;
        }
        let longest = outlier.max_ejection_time.max(outlier.base_ejection_time);
        let time = outlier
            .base_ejection_time
            .saturating_mul(backoff)
            .min(longest);
        let over = millis(now).saturating_sub(self.ejected_at.load(Relaxed)) >= millis(time);
        if over {
            for count in [&self.errors, &self.gateway_errors, &self.local_failures] {
                count.store(0, Relaxed);
            }
            self.ejected.store(false, Relaxed);
        }
        over
    }
}

/// What an interval's end changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Endpoints were taken back.
    pub(super) returned: bool,
    /// These, by their place in the list, are to be ejected.
    pub(super) causes: Vec<(usize, Cause)>,
}

/// The end of an interval: takes back those whose time is over, and finds those that fail more
/// than the others.
pub(super) fn sweep(records: &[&Record], outlier: &Outlier, now: Duration) -> Swept {
    let mut swept = Swept::default();
    for record in records {
        swept.returned |= record.uneject(outlier, now);
    }
    let rates = |total: fn(&Record) -> &AtomicU32, good: fn(&Record) -> &AtomicU32| {
        let rates = records.iter().map(|record| {
            let (total, good) = (
                total(record).swap(0, Relaxed),
                good(record).swap(0, Relaxed),
            );
            (
                total,
                100.0 * f64::from(good.min(total)) / f64::from(total.max(1)),
            )
        });
        rates.collect::<Vec<_>>()
    };
    judge(
        &rates(|r| &r.total, |r| &r.good),
        outlier,
        &mut swept.causes,
    );
    let local = rates(|r| &r.local_total, |r| &r.local_good);
    if outlier.split_external_local {
        judge(&local, outlier, &mut swept.causes);
    }
    swept
}

/// Finds the outliers among endpoints with these numbers of requests and rates of success.
fn judge(rates: &[(u32, f64)], outlier: &Outlier, causes: &mut Vec<(usize, Cause)>) {
    let enough = |volume: u32| {
        let busy = rates
            .iter()
            .enumerate()
            .filter(move |(_, rate)| rate.0 >= volume.max(1));
        busy.map(|(place, (_, rate))| (place, *rate))
            .collect::<Vec<_>>()
    };
    let busy = enough(outlier.success_rate_request_volume);
    if !busy.is_empty() && busy.len() >= outlier.success_rate_minimum_hosts as usize {
        let count = busy.len() as f64;
        let mean = busy.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = busy
            .iter()
            .map(|(_, rate)| (rate - mean).powi(2))
            .sum::<f64>()
            / count;
        let least = mean - variance.sqrt() * f64::from(outlier.success_rate_stdev_factor) / 1000.0;
        let below = busy.iter().filter(|(_, rate)| *rate < least);
        causes.extend(below.map(|(place, _)| (*place, Cause::SuccessRate)));
    }
    let busy = enough(outlier.failure_percentage_request_volume);
    if !busy.is_empty() && busy.len() >= outlier.failure_percentage_minimum_hosts as usize {
        let most = f64::from(outlier.failure_percentage_threshold);
        let above = busy.iter().filter(|(_, rate)| 100.0 - rate >= most);
        causes.extend(above.map(|(place, _)| (*place, Cause::FailurePercentage)));
    }
}

/// Counts one more; whether it is as many as the limit, from where counting begins anew.
fn reached(count: &AtomicU32, limit: u32) -> bool {
    let before = count.fetch_add(1, Relaxed);
    let reached = before + 1 >= limit.max(1);
    if reached {
        count.store(0, Relaxed);
    }
    reached
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
