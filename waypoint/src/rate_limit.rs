//! Buckets of tokens, shared by all workers without a lock: one number says when a bucket would have
//! been empty, had it been filled evenly since. Which buckets a request takes from is [`describe`]'s.
//! Time is an argument.

pub mod describe;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Where time begins: a bucket is full before anybody has taken from it.
const BEGINNING: u64 = 1 << 62;

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    /// What a token costs, in nanoseconds of filling.
    token: u64,
    /// What a full bucket is worth, in nanoseconds.
    full: u64,
    /// When it would have been empty.
    empty: AtomicU64,
}

impl Bucket {
    /// A full bucket of so many tokens, to which so many come in each interval. None where a token
    /// would cost nothing, or more than can be counted.
    #[must_use]
    pub fn new(most: u32, per_fill: u32, interval: Duration) -> Option<Self> {
        let interval = u64::try_from(interval.as_nanos()).ok()?;
        let token = interval.checked_div(u64::from(per_fill))?;
        let full = token.checked_mul(u64::from(most))?;
        let counts = token > 0 && full > 0 && full < BEGINNING;
        counts.then(|| Self {
            token,
            full,
            empty: AtomicU64::new(0),
        })
    }

    /// Takes a token if there is one; `now` is since any moment that stays the same.
    pub fn take(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(BEGINNING);
        let fuller = now - self.full.min(now);
        let take = |empty: u64| {
            let after = empty.max(fuller).saturating_add(self.token);
            (after <= now).then_some(after)
        };
        let (set, fetched) = (Ordering::Relaxed, Ordering::Relaxed);
        self.empty.fetch_update(set, fetched, take).is_ok()
    }
}

/// The tokens of a descriptor.
#[derive(Debug)]
pub enum Buckets {
    /// One for all that it describes.
    One(Bucket),
    /// One for each value of its entries. The lock is held for a look-up, by requests that such a
    /// descriptor is about.
    Each {
        /// What a token costs and a full bucket is worth, in nanoseconds.
        token: u64,
        /// See `token`.
        full: u64,
        /// How many are kept: the one that was looked up longest ago goes, and comes back full.
        most: usize,
        /// Those of values that came, with when they did.
        known: Mutex<Known>,
    },
}

/// The values of a descriptor's entries.
type Values = Box<[Box<str>]>;

/// Buckets by values with their last look-up, and a count of those.
#[derive(Debug, Default)]
pub struct Known {
    buckets: HashMap<Values, (Arc<Bucket>, u64)>,
    looked_up: u64,
}

impl Buckets {
    /// One such bucket for each value, but no more than so many.
    #[must_use]
    pub fn each(like: &Bucket, most: usize) -> Self {
        Self::Each {
            token: like.token,
            full: like.full,
            most: most.max(1),
            known: Mutex::default(),
        }
    }

    /// What a token costs, in nanoseconds of filling.
    #[must_use]
    pub fn token(&self) -> u64 {
        match self {
            Self::One(bucket) => bucket.token,
            Self::Each { token, .. } => *token,
        }
    }

    /// Takes a token of these values, if there is one.
    pub fn take<'v>(&self, values: impl Iterator<Item = &'v str>, now: Duration) -> bool {
        let (token, full, most, known) = match self {
            Self::One(bucket) => return bucket.take(now),
            Self::Each {
                token,
                full,
                most,
                known,
            } => (*token, *full, *most, known),
        };
        let values: Values = values.map(Into::into).collect();
        let bucket = {
            let known = &mut *known.lock();
            known.looked_up += 1;
            if known.buckets.len() >= most && !known.buckets.contains_key(&values) {
                let oldest = known.buckets.iter().min_by_key(|(_, (_, at))| *at);
                let oldest = oldest.map(|(values, _)| values.clone());
                oldest.map(|values| known.buckets.remove(&values));
            }
            let entry = known.buckets.entry(values);
            let (bucket, at) = entry.or_insert_with(|| {
                let empty = AtomicU64::new(0);
                (Arc::new(Bucket { token, full, empty }), 0)
            });
            *at = known.looked_up;
            Arc::clone(bucket)
        };
        bucket.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_tokens_and_the_oldest_makes_room() {
        let like = Bucket::new(1, 1, Duration::from_secs(3_600)).unwrap();
        let buckets = Buckets::each(&like, 2);
        let take = |value: &str| buckets.take([value].into_iter(), Duration::from_secs(1));
        assert!(take("a") && take("b"));
        assert!(!take("b") && !take("a"));
        // `b` was looked up before `a`.
        assert!(take("c"));
        assert!(!take("a"));
        assert!(take("b"));
        let Buckets::Each { known, .. } = &buckets else {
            panic!("one for all");
        };
        assert_eq!(known.lock().buckets.len(), 2);
    }

    fn taken(bucket: &Bucket, at: u64, tries: usize) -> usize {
        let now = Duration::from_millis(at);
        (0..tries).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn it_begins_full_and_fills_evenly_up_to_its_size() {
        let bucket = Bucket::new(4, 2, Duration::from_secs(1)).unwrap();
        assert_eq!(taken(&bucket, 0, 9), 4);
        assert_eq!(taken(&bucket, 499, 9), 0);
        assert_eq!(taken(&bucket, 500, 9), 1);
        assert_eq!(taken(&bucket, 1_500, 9), 2);
        assert_eq!(taken(&bucket, 3_600_000, 9), 4);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_twice() {
        let bucket = Bucket::new(1, 1, Duration::from_secs(1)).unwrap();
        assert_eq!(taken(&bucket, 10_000, 5), 1);
        assert_eq!(taken(&bucket, 9_000, 5), 0);
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let bucket = Bucket::new(1_000, 1, Duration::from_secs(3_600)).unwrap();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| taken(&bucket, 1, 500)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(all, 1_000);
    }

    #[test]
    fn what_cannot_be_counted_is_no_bucket() {
        for (most, per_fill, seconds) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (u32::MAX, 1, 1 << 40)] {
            assert!(Bucket::new(most, per_fill, Duration::from_secs(seconds)).is_none());
        }
    }
}
