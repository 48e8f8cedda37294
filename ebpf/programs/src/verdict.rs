//! The one place where an outcome is counted and becomes a verdict.

use ebpf_contract::Reason;

use crate::maps::COUNTERS;

/// What the logic of a program returns: `Ok(None)` is a connection that is none of our business,
/// `Ok(Some(reason))` one that we sent somewhere or let pass knowingly, `Err(reason)` a refusal.
pub(crate) type Outcome = Result<Option<Reason>, Reason>;

/// Counts the outcome, and picks the program's word for it.
#[inline(always)]
pub(crate) fn verdict<T>(outcome: Outcome, allow: T, refuse: T) -> T {
    match outcome {
        Ok(None) => allow,
        Ok(Some(reason)) => {
            count(reason);
            allow
        }
        Err(reason) => {
            count(reason);
            refuse
        }
    }
}

/// Counts something that has no verdict of its own.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the place belongs to this CPU, and programs of these types do not interrupt
        // each other on one CPU while they write it; a count lost to an interrupt would be only that.
        unsafe { *counter += 1 }
    }
}
