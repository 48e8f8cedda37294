//! Gives memory back to the system that nothing needs any more: what a start, a push or a burst of
//! load took. jemalloc does that only while somebody allocates (the thread it could have for a
//! process at rest is not supported with musl), and knows nothing of the program's own pages.

mod program;

use std::time::Duration;

use tikv_jemalloc_ctl::{Access, AsName, Mib, Result};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::model::snapshot::Current;
pub use program::unmap;

/// How often a thread looks. What it does then costs some tens of microseconds under load, mostly
/// for pages that are wanted again, and next to nothing at rest.
const PERIOD: Duration = Duration::from_secs(1);

/// Gives back what the thread that it runs on keeps at hand: megabytes after a burst, since the
/// thread would let go of them only while it goes on allocating.
pub async fn tend() {
    let mut period = period();
    loop {
        period.tick().await;
        if let Err(error) = let_go() {
            warn!(%error, "the allocator keeps what this thread had at hand");
            return;
        }
    }
}

/// The same for its own thread, and for what threads share: the allocator's free pages each time,
/// the program's pages once a configuration is in force and no other follows it, since reading one
/// takes much of the program that carrying traffic doesn't.
pub async fn keep(current: Current) {
    let mut period = period();
    let mut changes = current.changes();
    let mut changed = true;
    loop {
        period.tick().await;
        if let Err(error) = let_go().and_then(|()| purge()) {
            warn!(%error, "the allocator keeps its free pages");
            return;
        }
        if changes.has_changed().is_ok_and(|changed| changed) {
            changes.mark_unchanged();
            changed = true;
        } else if std::mem::take(&mut changed) {
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
