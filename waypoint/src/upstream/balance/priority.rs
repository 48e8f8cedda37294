//! How priorities share: as Envoy documents under *priority levels*, *panic threshold* and
//! *degraded endpoints*. All shares are percents in whole numbers, rounded as Envoy rounds.

use super::{MOST_PRIORITIES, Standing};

/// How many endpoints of a priority stand how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    pub(super) out: u32,
}

/// Which share of requests goes to each priority's healthy and degraded endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loads {
    healthy: [u8; MOST_PRIORITIES],
    degraded: [u8; MOST_PRIORITIES],
    /// Priorities in panic, as bits.
    panic: u32,
    count: usize,
}

impl Counts {
    pub(super) fn add(&mut self, standing: Standing) {
        match standing {
            Standing::Healthy => self.healthy += 1,
            Standing::Degraded => self.degraded += 1,
            Standing::Out => self.out += 1,
        }
    }

    fn all(&self) -> u32 {
        self.healthy + self.degraded + self.out
    }

    /// The share that `part` of them can take, in percent.
    fn able(&self, part: u32, overprovisioning: u32) -> u32 {
        match self.all() {
            0 => 0,
            all => (u64::from(overprovisioning) * u64::from(part) / u64::from(all)).min(100) as u32,
        }
    }

    fn panics(&self, threshold: f64) -> bool {
        let usable = f64::from(self.healthy + self.degraded);
        let percent = match self.all() {
            0 => 0.0,
            all => 100.0 * usable / f64::from(all),
        };
        percent < threshold
    }
}

impl Loads {
    /// The shares of priorities with these counts. `excluded` priorities (as bits) get nothing.
    pub(super) fn of(
        counts: &[Counts],
        overprovisioning: u32,
        panic_threshold: f64,
        excluded: u32,
    ) -> Self {
        let count = counts.len().min(MOST_PRIORITIES);
        let mut loads = Self {
            healthy: [0; MOST_PRIORITIES],
            degraded: [0; MOST_PRIORITIES],
            panic: 0,
            count,
        };
        let used = |priority: usize| excluded & (1 << priority) == 0;
        let counts = |priority: usize| match used(priority) {
            true => counts[priority],
            false => Counts::default(),
        };
        let healthy = |p: usize| counts(p).able(counts(p).healthy, overprovisioning);
        let degraded = |p: usize| counts(p).able(counts(p).degraded, overprovisioning);
        let total: u32 = (0..count).map(|p| healthy(p) + degraded(p)).sum();
        let total = total.min(100);
        if total > 0 {
            let rest = distribute(&mut loads.healthy[..count], healthy, 100, total);
            let rest = distribute(&mut loads.degraded[..count], degraded, rest, total);
            // What rounding left goes to the first that can take something.
            let first = |shares: &[u8]| shares.iter().position(|share| *share > 0);
            if let Some(first) = first(&loads.healthy) {
                loads.healthy[first] += rest as u8;
            } else if let Some(first) = first(&loads.degraded) {
                loads.degraded[first] += rest as u8;
            }
        }
        if panic_threshold > 0.0 && total < 100 {
            for p in (0..count).filter(|p| used(*p)) {
                if counts(p).panics(panic_threshold) {
                    loads.panic |= 1 << p;
                }
            }
            let all_panic = (0..count).filter(|p| used(*p)).all(|p| loads.panics(p));
            if all_panic {
                loads.share_by_size((0..count).map(|p| counts(p).all()));
            }
        }
        loads
    }

    /// Nothing can be used.
    pub(super) fn is_empty(&self) -> bool {
        self.healthy
            .iter()
            .chain(&self.degraded)
            .all(|share| *share == 0)
    }

    /// Whether a priority uses all its endpoints, whatever their health.
    pub(super) fn panics(&self, priority: usize) -> bool {
        self.panic & (1 << priority) != 0
    }

    /// The priority for a random number or a hash, and which of its endpoints.
    pub(super) fn choose(&self, hash: u64) -> Option<(usize, Standing)> {
        let point = (hash % 100) as u8;
        let mut sum = 0;
        let standings = [
            (&self.healthy, Standing::Healthy),
            (&self.degraded, Standing::Degraded),
        ];
        for (shares, standing) in standings {
            for (priority, share) in shares[..self.count].iter().enumerate() {
                sum += share;
                if point < sum {
                    return Some((priority, standing));
                }
            }
        }
        None
    }

    /// Nothing is healthy enough anywhere: priorities share by their sizes.
    fn share_by_size(&mut self, sizes: impl Iterator<Item = u32> + Clone) {
        self.healthy = [0; MOST_PRIORITIES];
        self.degraded = [0; MOST_PRIORITIES];
        let total: u64 = sizes.clone().map(u64::from).sum();
        if total == 0 {
            return;
        }
        let mut rest = 100;
        for (share, size) in self.healthy.iter_mut().zip(sizes.clone()) {
            *share = (u64::from(size) * 100 / total) as u8;
            rest -= *share;
        }
        if let Some(first) = sizes.clone().position(|size| size > 0) {
            self.healthy[first] += rest;
        }
    }
}

/// Gives each priority in turn as much of `rest` as it can take; what is left.
fn distribute(shares: &mut [u8], able: impl Fn(usize) -> u32, mut rest: u32, total: u32) -> u32 {
    for (priority, share) in shares.iter_mut().enumerate() {
        let given = (able(priority) * 100 / total).min(rest);
        *share = given as u8;
        rest -= given;
    }
    rest
}
