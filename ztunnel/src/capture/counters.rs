//! The counters, for metrics: the kernel programs' and the one that is ours.

use ebpf_contract::{Reason, map};

use super::Shared;
use super::error::Error;
use super::programs::map_error;

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

/// All counters, in the order of the contract's table.
pub(super) fn read(shared: &Shared) -> Result<Vec<Counter>, Error> {
    let failed = map_error(map::COUNTERS, "reading it");
    Reason::ALL
        .iter()
        .map(|reason| {
            let value = match reason {
                Reason::NoOriginal => shared.unknown_originals(),
                _ => {
                    let sum = shared.maps.counters.sum(*reason as u32, shared.cpus);
                    sum.map_err(&failed)?
                }
            };
            Ok(Counter {
                verdict: reason.verdict().name(),
                reason: reason.name(),
                value,
            })
        })
        .collect()
}
