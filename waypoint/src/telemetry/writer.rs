//! Who writes access logs: one thread for each target, which takes what all workers appended and
//! writes it at once. A worker only ever copies its line into memory; where the target is slower
//! than the traffic, lines are dropped and counted rather than requests held up.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::model::log::LogTarget;

/// The most bytes that wait for a target.
const MOST_WAITING: usize = 1 << 20;

/// So many bytes are written at once without waiting for more.
const ENOUGH: usize = 64 << 10;

/// How long lines wait for others to be written with.
const GATHER: Duration = Duration::from_millis(50);

/// All targets that anybody writes to.
#[derive(Debug, Default)]
pub(super) struct Writers {
    known: Mutex<HashMap<LogTarget, Arc<Writer>>>,
}

/// One target.
#[derive(Debug, Default)]
pub(super) struct Writer {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing what it took.
    writing: bool,
    /// Everything is to be written now.
    flush: bool,
    /// The file is to be opened again.
    reopen: bool,
}

impl Writers {
    /// The writer of a target; its thread starts with the first line.
    pub(super) fn of(&self, target: &LogTarget) -> Arc<Writer> {
        let mut known = self.known.lock();
        if let Some(writer) = known.get(target) {
            return Arc::clone(writer);
        }
        let writer = Arc::new(Writer::default());
        known.insert(target.clone(), Arc::clone(&writer));
        let (thread, target) = (Arc::clone(&writer), target.clone());
        let started = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || thread.run(&target));
        if let Err(error) = started {
            tracing::warn!(%error, "an access log has no thread to write it: the process has reached its limit of threads");
        }
        writer
    }

    /// Has files opened again, after somebody moved them away.
    pub(super) fn reopen(&self) {
        for writer in self.known.lock().values() {
            writer.state.lock().reopen = true;
        }
    }

    /// Waits until everything that was appended is written, but not longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let writers: Vec<Arc<Writer>> = self.known.lock().values().cloned().collect();
        for writer in writers {
            writer.flush(deadline);
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        let known = self.known.lock();
        let dropped = known
            .values()
            .map(|writer| writer.dropped.load(Ordering::Relaxed));
        dropped.sum()
    }
}

impl Writer {
    /// Hands a line over, or drops it where too much waits already.
    pub(super) fn append(&self, line: &str) {
        let mut state = self.state.lock();
        if state.waiting.len() + line.len() > MOST_WAITING {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = state.waiting.len();
        state.waiting.extend_from_slice(line.as_bytes());
        let after = state.waiting.len();
        drop(state);
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.changed.notify_all();
        }
    }

    fn flush(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while !state.waiting.is_empty() || state.writing {
            state.flush = true;
            self.changed.notify_all();
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Takes what waits and writes it, for as long as the process lives.
    fn run(&self, target: &LogTarget) {
        let mut out = None;
        let mut taken = Vec::new();
        loop {
            let reopen = self.take(&mut taken);
            if reopen {
                out = None;
            }
            let written = match &mut out {
                Some(open) => write(open, &taken),
                None => open(target).and_then(|mut open| {
                    write(&mut open, &taken)?;
                    out = Some(open);
                    Ok(())
                }),
            };
            if let Err(error) = written {
                out = None;
                let lines = taken.split_inclusive(|byte| *byte == b'\n').count();
                let lines = u64::try_from(lines).unwrap_or(u64::MAX);
                if self.dropped.fetch_add(lines, Ordering::Relaxed) == 0 {
                    tracing::warn!(?target, %error, "an access log can't be written: its folder is missing, read-only or full; its lines are dropped and counted");
                }
            }
            taken.clear();
            self.state.lock().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes them; says whether the file is to be opened again.
    fn take(&self, taken: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            self.changed.wait(&mut state);
        }
        let until = Instant::now() + GATHER;
        while state.waiting.len() < ENOUGH && !state.flush {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut state.waiting, taken);
        state.flush = false;
        state.writing = true;
        std::mem::take(&mut state.reopen)
    }
}

/// An open target.
enum Open {
    File(File),
    Stdout,
    Stderr,
}

fn open(target: &LogTarget) -> std::io::Result<Open> {
    Ok(match target {
        LogTarget::Stdout => Open::Stdout,
        LogTarget::Stderr => Open::Stderr,
        LogTarget::File(path) => match path.to_str() {
            // The names of the standard streams, which a read-only container can't open again.
            Some("/dev/stdout") => Open::Stdout,
            Some("/dev/stderr") => Open::Stderr,
            _ => Open::File(OpenOptions::new().create(true).append(true).open(path)?),
        },
    })
}

fn write(open: &mut Open, bytes: &[u8]) -> std::io::Result<()> {
    match open {
        Open::File(file) => file.write_all(bytes),
        Open::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Open::Stderr => std::io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests;
