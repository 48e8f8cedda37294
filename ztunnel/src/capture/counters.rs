//! The counters, for metrics: the kernel programs' and the one that is ours.

use ebpf_contract::Reason;

use super::Shared;

/// One counter: what became of connections, why, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `captured`, `passed` or `refused`.
    pub verdict: &'static str,
    /// The stable name of the reason.
    pub reason: &'static str,
    /// Connections since the programs were first pinned; for `no_original`, since this process
    /// started.
    pub value: u64,
}

/// All counters, in the order of the contract's table. One that cannot be read is left out: a
/// gap in the metrics says what a wrong number would hide.
pub(super) fn read(shared: &Shared) -> Vec<Counter> {
    let value = |reason: Reason| match reason {
        Reason::NoOriginal => Some(shared.unknown_originals()),
        _ => match shared.maps.counters.sum(reason as u32, shared.cpus) {
            Ok(sum) => Some(sum),
            Err(error) => {
                tracing::debug!(%error, reason = reason.name(), "a counter cannot be read");
                None
            }
        },
    };
    let counter = |reason: &Reason| {
        Some(Counter {
            verdict: reason.verdict().name(),
            reason: reason.name(),
            value: value(*reason)?,
        })
    };
    Reason::ALL.iter().filter_map(counter).collect()
}
