//! A TCP connection that is held open through everything a story does: lines go back and forth on
//! it, each answered with the checksum of all before, so a story can say that nothing of it was lost.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::stage::Stage;
use crate::until::until;

/// How long a line may take to come back before the connection counts as stuck.
const LINE: Duration = Duration::from_secs(20);

/// A connection held open by `bookinfo hold` in a pod. Ended when dropped.
pub struct Held {
    child: Child,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    lines: u64,
    last: String,
    ended: bool,
}

impl Held {
    /// Connects from a pod of deployment `from` to `to` (HOST:PORT of an echo) and waits until the
    /// first line has come back. `payload` goes with every line.
    ///
    /// # Errors
    /// When no line comes back.
    pub fn open(stage: &Stage, from: &str, to: &str, payload: &str) -> Result<Self> {
        let deployment = format!("deploy/{from}");
        stage.narrator().command(&format!(
            "kubectl exec -i {deployment} -- bookinfo hold {to}"
        ));
        let mut child = stage
            .kubectl_command()
            .args([
                "exec",
                "-i",
                &deployment,
                "--",
                "bookinfo",
                "hold",
                to,
                "--payload",
                payload,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl exec could not be started")?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        follow(child.stdout.take(), progress.clone(), true);
        follow(child.stderr.take(), progress.clone(), false);
        let mut held = Self { child, progress };
        held.goes_on(1)
            .with_context(|| format!("a connection from {from} to {to}"))?;
        Ok(held)
    }

    /// How many lines have come back right.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.now().lines
    }

    /// Waits until `more` further lines have come back right.
    ///
    /// # Errors
    /// When the connection ends or gets stuck instead.
    pub fn goes_on(&mut self, more: u64) -> Result<()> {
        let target = self.lines() + more;
        until("the next lines on the held connection", LINE, || {
            let now = self.now();
            let lines = format!("{} of {target} lines: {}", now.lines, now.last);
            match (now.lines >= target, now.ended) {
                (true, _) => Ok(Ok(())),
                // No more will come: no use in waiting on.
                (false, true) => Ok(Err(anyhow!("the connection ended after {lines}"))),
                (false, false) => bail!(lines),
            }
        })?
    }

    /// Waits until the connection was closed by someone else; gives what its holder said.
    ///
    /// # Errors
    /// When it is still open after `limit`.
    pub fn closed_within(&mut self, limit: Duration) -> Result<String> {
        until("the end of the held connection", limit, || {
            let status = self.child.try_wait()?;
            let now = self.now();
            ensure!(
                status.is_some() && now.ended,
                "line {} came back",
                now.lines
            );
            Ok(now.last)
        })
    }

    /// Ends it in order; gives the holder's own closing words.
    ///
    /// # Errors
    /// When it was not intact to the end.
    pub fn finish(mut self) -> Result<String> {
        self.goes_on(1)?;
        drop(self.child.stdin.take());
        let status = until("the holder to end", LINE, || {
            self.child.try_wait()?.context("it still runs")
        })?;
        let said = until("the holder's last words", LINE, || {
            let now = self.now();
            ensure!(now.ended, "they are still being read");
            Ok(now.last)
        })?;
        ensure!(
            status.success() && said.starts_with("held "),
            "the connection broke: {said}"
        );
        Ok(said)
    }

    fn now(&self) -> Progress {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Ended already, if it fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the holder says until it ends.
fn follow(
    pipe: Option<impl std::io::Read + Send + 'static>,
    progress: Arc<Mutex<Progress>>,
    is_stdout: bool,
) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut now = progress.lock().unwrap_or_else(PoisonError::into_inner);
            match line
                .strip_prefix("line ")
                .and_then(|number| number.parse().ok())
            {
                Some(number) => now.lines = number,
                None if line.starts_with("connected ") => {}
                // kubectl's own remark about an exit code is not what the holder said.
                None if line.starts_with("command terminated") => {}
                None => now.last = line,
            }
        }
        if is_stdout {
            progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ended = true;
        }
    });
}
