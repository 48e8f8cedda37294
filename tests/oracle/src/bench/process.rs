//! The load and the server as processes of this same program, and what a process has used.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lab::process::Process;
use nix::unistd::{SysconfVar, sysconf};

use super::plan::{Order, Result as Told};

/// What a measurement may take beyond its time.
const EXTRA: Duration = Duration::from_secs(20);

/// What is resident after load is read so long after the last request or push: proxies give memory
/// back in their own time.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// This program again, in another role.
#[derive(Debug)]
pub(crate) struct Agent {
    _process: Process,
    output: Mutex<Option<std::process::ChildStdout>>,
}

impl Agent {
    pub(crate) fn start(role: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let process = Process::start_here(command)?;
        let output = process.pipes().output;
        Ok(Self {
            _process: process,
            output: Mutex::new(output),
        })
    }

    /// The first line that it prints.
    pub(crate) async fn line(&self) -> Result<String> {
        let output = self.output.lock().ok().and_then(|mut output| output.take());
        let output = output.context("the line was read already")?;
        tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line)?;
            ensure!(!line.is_empty(), "it ended without a word");
            Ok(line)
        })
        .await?
    }
}

/// Has the load's process carry an order out.
pub(crate) async fn load(order: &Order) -> Result<Told> {
    let text = serde_json::to_string(order)?;
    let command = tokio::process::Command::new(std::env::current_exe()?)
        .args(["load", &text])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let limit = Duration::from_millis(order.millis) + EXTRA;
    let output = tokio::time::timeout(limit, command)
        .await
        .map_err(|_| anyhow!("no end within {limit:?}"))??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_str(&said).with_context(|| format!("the load said {said:?}"))
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// What is resident now.
    pub resident: Resident,
}

/// Resident memory in megabytes (10^6 bytes).
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// All of it.
    pub all: f64,
    /// The part that isn't the program's own file: what it allocated, and its stacks.
    pub anonymous: f64,
}

impl Usage {
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        self.cpu.saturating_sub(earlier.cpu)
    }
}

/// Reads /proc.
///
/// # Errors
/// When there is no such process.
pub fn usage_of(pid: u32) -> Result<Usage> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.ok_or_else(|| anyhow!("no clock tick"))? as f64;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name in parentheses: utime and stime are the 12th and 13th field.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let mut ticks = 0.0;
    for field in fields.skip(11).take(2) {
        ticks += field.parse::<f64>().context("/proc/PID/stat")?;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6)
            .with_context(|| format!("no {name}"))
    };
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks / tick),
        resident: Resident {
            all: megabytes("VmRSS:")?,
            anonymous: megabytes("RssAnon:")?,
        },
    })
}
