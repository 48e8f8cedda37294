//! Ctrl-C while a cluster is made: noted here, looked at by every wait, so that what was made goes away.
//!
//! The signal handlers are in place only while a [`Watch`] lives; before and after, the signals do
//! what the program that uses this library has them do.
#![allow(unsafe_code, reason = "sigaction(2) is how a signal is noted")]

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The signal that came, or 0.
static CAME: AtomicI32 = AtomicI32::new(0);
/// Several clusters may be made at once in one program: who watches, and what the handlers were.
static WATCHES: Mutex<(usize, Vec<SigAction>)> = Mutex::new((0, Vec::new()));

/// While it lives, interruptions are noted and [`check`] reports them.
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        let mut watches = watches();
        if watches.0 == 0 {
            CAME.store(0, Ordering::SeqCst);
            let handler = SigHandler::Handler(note);
            let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
            for signal in SIGNALS {
                // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
                let before = unsafe { sigaction(signal, &action) }?;
                watches.1.push(before);
            }
        }
        watches.0 += 1;
        Ok(Self(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = watches();
        watches.0 -= 1;
        if watches.0 == 0 {
            for (signal, before) in SIGNALS.iter().zip(watches.1.drain(..)) {
                // SAFETY: it puts back what sigaction gave for this very signal.
                let _ = unsafe { sigaction(*signal, &before) };
            }
        }
    }
}

/// Fails once an interruption has come.
pub(crate) fn check() -> Result<()> {
    match CAME.load(Ordering::SeqCst) {
        0 => Ok(()),
        number => match Signal::try_from(number) {
            Ok(signal) => bail!("interrupted by {signal}"),
            Err(_) => bail!("interrupted"),
        },
    }
}

extern "C" fn note(signal: c_int) {
    CAME.store(signal, Ordering::SeqCst);
}

fn watches() -> MutexGuard<'static, (usize, Vec<SigAction>)> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}
