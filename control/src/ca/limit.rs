//! How often one caller may ask for a certificate: a token bucket each, by the caller's pod.
//!
//! A node proxy that starts asks for one certificate for each service account on its node, at most
//! some hundreds; then for renewals, spread over hours. Whoever asks more is broken or hostile, and
//! must not take the time of others. `now` is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Requests that a caller may make at once.
pub const BURST: f64 = 500.0;
/// Requests a second after that.
pub const RATE: f64 = 20.0;
/// Callers remembered; beyond, those that are at rest are forgotten.
const CALLER_LIMIT: usize = 10_000;

/// The buckets of all callers.
#[derive(Default)]
pub struct Limits {
    buckets: HashMap<String, Bucket>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn level(&self, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * RATE).min(BURST)
    }
}

impl Limits {
    /// Takes one token, or says when there will be one.
    pub fn take(&mut self, caller: &str, now: Instant) -> Result<(), Duration> {
        if self.buckets.len() >= CALLER_LIMIT && !self.buckets.contains_key(caller) {
            self.buckets.retain(|_, bucket| bucket.level(now) < BURST);
            if self.buckets.len() >= CALLER_LIMIT {
                return Err(Duration::from_secs_f64(1.0 / RATE));
            }
        }
        let bucket = self.buckets.entry(caller.to_owned()).or_insert(Bucket {
            tokens: BURST,
            at: now,
        });
        let level = bucket.level(now);
        if level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - level) / RATE));
        }
        *bucket = Bucket {
            tokens: level - 1.0,
            at: now,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        for _ in 0..BURST as usize {
            assert_eq!(limits.take("a", start), Ok(()));
        }
        let wait = limits.take("a", start).unwrap_err();
        assert!(wait <= Duration::from_secs_f64(1.0 / RATE));
        assert_eq!(limits.take("b", start), Ok(()));
        assert_eq!(
            limits.take("a", start + wait + Duration::from_millis(1)),
            Ok(())
        );
        assert!(
            limits
                .take("a", start + wait + Duration::from_millis(1))
                .is_err()
        );
    }

    #[test]
    fn callers_at_rest_are_forgotten() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        for caller in 0..CALLER_LIMIT {
            assert_eq!(limits.take(&caller.to_string(), start), Ok(()));
        }
        assert!(limits.take("one more", start).is_err());
        assert_eq!(
            limits.take("one more", start + Duration::from_secs(1)),
            Ok(())
        );
        assert_eq!(limits.buckets.len(), 1);
    }
}
