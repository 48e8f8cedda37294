//! Processes that outlive the one who started them: known by id and start time, so that none but
//! the very process is ever ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often a condition that nothing announces is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A process, distinguished from any later one with the same id by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: i32,
    /// Clock ticks after boot: field 22 of /proc/PID/stat (proc(5)).
    start: u64,
}

impl Process {
    /// The running process `pid`, from now on known as `name`.
    pub(crate) fn of(name: &str, pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).context("a process id")?;
        let (_, start) = stat(pid).with_context(|| format!("{name} ended at once"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            start,
        })
    }

    /// Whether it still runs; a zombie doesn't.
    pub(crate) fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| start == self.start && state != 'Z')
    }

    /// A file of its /proc folder, such as `ns/net`.
    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }

    /// Ends it at once, if it is still that process, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.alive() {
            match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => bail!("can't end {} (process {}): {e}", self.name, self.pid),
            }
            if Instant::now() > deadline {
                bail!("{} (process {}) doesn't end", self.name, self.pid);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// State letter and start time, or nothing when there is no such process.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in brackets, and may itself hold blanks and brackets.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_trouble() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 98765 1000 10";
        assert_eq!(parse_stat(line), Some(('S', 98765)));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn only_the_very_process_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of("sleep", child.id()).unwrap();
        let mut other = process.clone();
        other.start += 1;
        assert!(!other.alive());
        other.kill().unwrap();
        assert!(
            process.alive(),
            "a process with another start time was ended"
        );
        process.kill().unwrap();
        assert!(!process.alive());
        child.wait().unwrap();
        assert!(!process.alive());
    }
}
