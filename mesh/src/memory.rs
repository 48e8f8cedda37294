//! Gives memory back to the system that nothing needs any more: what a start, a push or a burst of
//! load took. jemalloc does that only while somebody allocates (the thread it could have for a
//! process at rest is not supported with musl), and knows nothing of the program's own pages.

#[cfg(target_arch = "x86_64")]
mod blocks;
mod limit;
mod program;

use std::cell::Cell;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use tikv_jemalloc_ctl::{Access, AsName, Mib, Result};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{debug, warn};

pub use limit::limit;
pub use program::unmap;

/// How often a thread looks.
const PERIOD: Duration = Duration::from_secs(1);
/// What computes for less of a period is at rest.
const LITTLE: Duration = Duration::from_millis(50);

/// Gives back what the thread that it runs on keeps at hand, once it is at rest: megabytes after a
/// burst, since the thread would let go of them only while it goes on allocating. One that is busy
/// needs them, and would take a millisecond to have them again.
pub async fn tend() {
    let mut rest = Rest::of(UsageWho::RUSAGE_THREAD);
    let mut period = period();
    loop {
        period.tick().await;
        if rest.lasts()
            && let Err(error) = let_go()
        {
            warn!(%error, "the allocator keeps what this thread had at hand");
            return;
        }
    }
}

/// The same for a thread of a runtime that moves its tasks between threads: to be called whenever the
/// thread has nothing to do. It costs the busy one that rests for a moment a second some blocks taken
/// from the arena again.
pub fn rest() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let due = |last: Instant| now.saturating_duration_since(last) >= PERIOD;
    if LAST.get().is_none_or(due) {
        LAST.set(Some(now));
        if let Err(error) = let_go() {
            debug!(%error, "the allocator keeps what this thread had at hand");
        }
    }
}

/// The same for its own thread, and for what threads share: the allocator's free pages each time,
/// the program's pages after one of `changes` and after a burst of load, since reading a configuration
/// takes much of the program that carrying traffic doesn't, and either more than being there.
pub async fn keep<T>(mut changes: watch::Receiver<T>) {
    let mut own = Rest::of(UsageWho::RUSAGE_THREAD);
    let mut all = Rest::of(UsageWho::RUSAGE_SELF);
    let mut period = period();
    let mut needed = true;
    loop {
        period.tick().await;
        let let_go = if own.lasts() { let_go() } else { Ok(()) };
        if let Err(error) = let_go.and_then(|()| purge()) {
            warn!(%error, "the allocator keeps its free pages");
            return;
        }
        let changed = changes.has_changed().unwrap_or_default();
        changes.mark_unchanged();
        if !all.lasts() || changed {
            needed = true;
        } else if std::mem::take(&mut needed) {
            match unmap() {
                Ok(bytes) => debug!(bytes, "unmapped the program's pages until they are needed"),
                Err(error) => debug!(%error, "the program's pages stay mapped"),
            }
        }
    }
}

fn period() -> Interval {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    period
}

/// Whether a thread, or the process, computes much.
struct Rest {
    who: UsageWho,
    /// Processor time at the last look.
    spent: TimeVal,
}

impl Rest {
    fn of(who: UsageWho) -> Self {
        let spent = TimeVal::new(0, 0);
        Self { who, spent }
    }

    /// Whether it has computed little since the last look.
    fn lasts(&mut self) -> bool {
        let Ok(usage) = getrusage(self.who) else {
            return true;
        };
        let spent = usage.user_time() + usage.system_time();
        let since = spent - std::mem::replace(&mut self.spent, spent);
        i128::from(since.num_microseconds()) < LITTLE.as_micros().cast_signed()
    }
}

/// Empties this thread's cache of free blocks: to turn it off is to empty it.
fn let_go() -> Result<()> {
    let cache = b"thread.tcache.enabled\0".name();
    if cache.update(false)? {
        cache.write(true)?;
    }
    Ok(())
}

/// Gives the system every free page that jemalloc keeps for later: a time to keep them of zero takes
/// effect at once, and the usual one is put back.
fn purge() -> Result<()> {
    let arenas: u32 = b"arenas.narenas\0".name().read()?;
    let mut decay: Mib<[usize; 3]> = b"arena.0.dirty_decay_ms\0".name().mib()?;
    for arena in 0..arenas as usize {
        decay[1] = arena;
        // One that no thread has needed yet does not exist.
        let usual: Result<isize> = decay.update(0);
        if let Ok(usual) = usual {
            decay.write(usual)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_rests_while_it_computes_little() {
        let mut rest = Rest::of(UsageWho::RUSAGE_THREAD);
        rest.lasts();
        assert!(rest.lasts());
        let mut busy = Rest::of(UsageWho::RUSAGE_THREAD);
        busy.lasts();
        // By the thread's own time, however long a busy machine lets it wait.
        while rest.lasts() {
            rest.spent = busy.spent;
            std::hint::black_box((0..10_000_u64).sum::<u64>());
        }
        assert!(!busy.lasts());
        assert!(busy.lasts());
    }

    #[test]
    fn the_allocator_knows_what_it_is_asked() -> Result<()> {
        let enabled: bool = b"thread.tcache.enabled\0".name().read()?;
        let_go()?;
        assert_eq!(b"thread.tcache.enabled\0".name().read(), Ok(enabled));
        let before: isize = b"arena.0.dirty_decay_ms\0".name().read()?;
        purge()?;
        assert_eq!(b"arena.0.dirty_decay_ms\0".name().read(), Ok(before));
        Ok(())
    }
}
