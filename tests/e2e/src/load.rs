//! `bookinfo load` in a pod of the cluster, followed line by line: what a story looks at to say that
//! nothing failed, or what did, or who answered.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::stage::Stage;

/// Longest wait for a line: the load prints four in a second while requests are answered.
const SILENCE: Duration = Duration::from_secs(45);

/// A load that runs, or has ended.
pub struct Load {
    child: Child,
    lines: Receiver<Value>,
    total: Option<Outcomes>,
}

/// How many requests had which outcome: a status, with a word of the answer behind it where one was
/// asked for, or `exit-N` with curl's exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes(pub BTreeMap<String, u64>);

impl Load {
    /// Starts it in a pod of deployment `from`; `words` are those of `bookinfo load`.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn start(stage: &Stage, from: &str, words: &[&str]) -> Result<Self> {
        let mut child = stage
            .kubectl_command()
            .args(["exec", "-i", &format!("deploy/{from}"), "--"])
            .args(["bookinfo", "load", "--until-eof"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("kubectl exec could not be started")?;
        let stdout = child.stdout.take().context("kubectl has no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            total: None,
        })
    }

    /// Runs a load to its end.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn run(stage: &Stage, from: &str, words: &[&str]) -> Result<Outcomes> {
        Self::start(stage, from, words)?.finish()
    }

    /// Reads on until the outcomes of one line, a quarter of a second, are as `wanted`.
    ///
    /// # Errors
    /// When the load ends before, or half a minute is over.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Outcomes) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        let mut last = Value::Null;
        while Instant::now() < end {
            let Ok(line) = self.lines.recv_timeout(Duration::from_secs(10)) else {
                bail!("the load ended or says nothing while waiting for {what}; last: {last}");
            };
            if line.get("total").is_some() {
                self.total = Some(Outcomes::of(&line["total"]));
                bail!("the load is over, and there was not: {what}; last: {last}");
            }
            if wanted(&Outcomes::of(&line["outcomes"])) {
                return Ok(());
            }
            last = line;
        }
        bail!("not within 30 s: {what}; last: {last}")
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        for line in self.lines.try_iter() {
            if line.get("total").is_some() {
                self.total = Some(Outcomes::of(&line["total"]));
            }
        }
        self.total.is_none() && matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the load at once; gives all its outcomes.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn end(mut self) -> Result<Outcomes> {
        drop(self.child.stdin.take());
        self.finish()
    }

    /// Lets the load come to its end; gives all its outcomes.
    ///
    /// # Errors
    /// When it says nothing for too long, or ends without a total.
    pub fn finish(mut self) -> Result<Outcomes> {
        while self.total.is_none() {
            let line = self
                .lines
                .recv_timeout(SILENCE)
                .context("the load did not come to its end")?;
            if line.get("total").is_some() {
                self.total = Some(Outcomes::of(&line["total"]));
            }
        }
        self.child.wait()?;
        self.total.take().context("no total")
    }
}

impl Outcomes {
    fn of(outcomes: &Value) -> Self {
        let counts = outcomes.as_object().into_iter().flatten();
        Self(
            counts
                .filter_map(|(outcome, count)| Some((outcome.clone(), count.as_u64()?)))
                .collect(),
        )
    }

    /// Whether there is this outcome and no other.
    #[must_use]
    pub fn only(&self, outcome: &str) -> bool {
        self.0.len() == 1 && self.0.contains_key(outcome)
    }

    /// Whether a request got no answer.
    #[must_use]
    pub fn any_failure(&self) -> bool {
        self.0.keys().any(|outcome| outcome.starts_with("exit-"))
    }

    /// How many outcomes begin so.
    #[must_use]
    pub fn of_kind(&self, beginning: &str) -> u64 {
        let of_it = self.0.iter().filter(|(key, _)| key.starts_with(beginning));
        of_it.map(|(_, count)| count).sum()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// One outcome's.
    #[must_use]
    pub fn get(&self, outcome: &str) -> u64 {
        self.0.get(outcome).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told: Vec<_> = self
            .0
            .iter()
            .map(|(key, n)| format!("{n} × {key}"))
            .collect();
        f.write_str(&told.join(", "))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ended already, if it fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_apart() {
        let line =
            r#"{"200 reviews-v1-a": 3, "200 reviews-v1-b": 2, "503 no JSON": 1, "exit-56": 1}"#;
        let outcomes = Outcomes::of(&serde_json::from_str(line).unwrap());
        assert_eq!(outcomes.of_kind("200 reviews-v1"), 5);
        assert_eq!((outcomes.all(), outcomes.get("exit-56")), (7, 1));
        assert!(outcomes.any_failure() && !outcomes.only("200"));
    }
}
