//! Starts processes in their place (network namespace, cgroup, capabilities) and ends them. Owns
//! the few system calls that must run between fork and exec.
#![allow(unsafe_code)] // pre_exec: a child must be in its cgroup and namespace before its first socket.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::netns::Netns;
use crate::patience;

/// Where a process runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network namespace.
    pub netns: Netns,
    /// The cgroup folder it joins before it opens a socket.
    pub cgroup: PathBuf,
    /// Capabilities (by number) that it shall not have.
    pub without: Vec<u32>,
}

/// A child process; killed when dropped, and when the lab's process ends in any way.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` in its place.
    ///
    /// # Errors
    /// When the program is missing or the place can't be entered.
    pub fn start(mut command: Command, place: &Place) -> Result<Self> {
        let what = format!("starting {}", command.get_program().display());
        let procs = place.cgroup.join("cgroup.procs");
        let cgroup = OpenOptions::new()
            .write(true)
            .open(&procs)
            .with_context(|| format!("opening {}", procs.display()))?;
        let netns = place.netns.clone();
        let without = place.without.clone();
        // SAFETY: between fork and exec only async-signal-safe calls are made: write(2) on an open
        // descriptor, setns(2) and prctl(2); nothing allocates and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                let wrote = libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
                if wrote != 1 {
                    return Err(std::io::Error::last_os_error());
                }
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
                set_pdeathsig(Signal::SIGKILL)?;
                for capability in &without {
                    if libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Self::spawn(command, what)
    }

    /// Starts `command` where its parent is, for a program that needs no place of its own.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn start_here(mut command: Command) -> Result<Self> {
        let what = format!("starting {}", command.get_program().display());
        // SAFETY: prctl(2) is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        Self::spawn(command, what)
    }

    fn spawn(mut command: Command, what: String) -> Result<Self> {
        let child = on_the_spawner(move || command.spawn())?.context(what)?;
        Ok(Self {
            pid: child.id(),
            child: Mutex::new(child),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The pipes, once.
    #[must_use]
    pub fn pipes(&self) -> Pipes {
        let mut child = self.child.lock();
        Pipes {
            input: child.stdin.take(),
            output: child.stdout.take(),
            errors: child.stderr.take(),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub async fn end(&self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("process {} to end", self.pid);
        patience::some(&what, limit, async || self.ended()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        // A process that ended by itself can't be killed; both are fine here.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The child's ends of its pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Writes to its stdin.
    pub input: Option<std::process::ChildStdin>,
    /// Reads its stdout.
    pub output: Option<std::process::ChildStdout>,
    /// Reads its stderr.
    pub errors: Option<std::process::ChildStderr>,
}

/// `killed by SIGKILL`, `exit code 1`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The parent-death signal is sent when the *thread* that forked ends, so one thread that never
/// ends forks every child.
fn on_the_spawner<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    let (answer, result) = mpsc::channel();
    spawner
        .send(Box::new(move || drop(answer.send(work()))))
        .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    result
        .recv()
        .context("the thread that starts processes panicked")
}
