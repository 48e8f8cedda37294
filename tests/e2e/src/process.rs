//! Running other programs to their end, with a limit on how long that may take and with everything
//! they said.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running program is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// What a program that ended left.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Ended {
    /// Its standard output, if it ended well.
    ///
    /// # Errors
    /// Names the command and what it said, if it did not.
    pub fn well(self, command: &str) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let code = self
            .code
            .map_or("by a signal".to_owned(), |code| format!("with {code}"));
        bail!("`{command}` ended {code}: {}", self.stderr.trim())
    }
}

/// Runs `command` with no input; kills it when `limit` is over.
///
/// # Errors
/// When it can't be started or doesn't end in time.
pub fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{shown}` could not be started"))?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill().with_context(|| format!("ending `{shown}`"))?;
            child.wait()?;
            bail!("`{shown}` did not end within {} s", limit.as_secs());
        }
        thread::sleep(EVERY);
    };
    Ok(Ended {
        code: status.code(),
        stdout: joined(stdout)?,
        stderr: joined(stderr)?,
    })
}

/// The command as one would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let mut words = vec![
        std::path::Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
    ];
    words.extend(
        command
            .get_args()
            .map(|word| quoted(&word.to_string_lossy())),
    );
    words.join(" ")
}

/// `word` for a shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

fn joined(reader: thread::JoinHandle<Vec<u8>>) -> Result<String> {
    let all = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_program_is_told_whole() {
        let ended = run(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 56"]),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(
            (ended.code, ended.stdout.trim(), ended.stderr.trim()),
            (Some(56), "out", "err")
        );
        assert!(
            ended
                .well("sh")
                .unwrap_err()
                .to_string()
                .contains("with 56: err")
        );
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let late = run(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(late.unwrap_err().to_string().contains("sleep 60"));
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let mut command = Command::new("/x/kubectl");
        command.args(["label", "namespace", "default", "a/b=c", "two words"]);
        assert_eq!(
            shown(&command),
            "kubectl label namespace default a/b=c 'two words'"
        );
    }
}
