//! Runs test programs, one after the other or side by side, each bounded in time, and adds up what they
//! report. A program that hangs is asked to end, so that it can clean up, and killed if it does not.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program that overran its time may take to clean up.
const GRACE: Duration = Duration::from_secs(30);

/// What a part of the suite reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// The parts that have run, in order.
#[derive(Default)]
pub(crate) struct Suite {
    parts: Vec<Part>,
}

struct Part {
    name: String,
    count: Count,
    took: Duration,
    trouble: Option<String>,
}

impl Suite {
    /// Runs one check that has no tests of its own: it passes or fails as a whole.
    pub(crate) fn check(
        &mut self,
        name: &str,
        command: &mut Command,
        limit: Duration,
    ) -> Result<()> {
        self.part(name, command, limit, |_, succeeded| Count {
            passed: succeeded.into(),
            failed: (!succeeded).into(),
            skipped: 0,
        })
    }

    /// Runs one check of our own; what it says when it fails is printed at once.
    pub(crate) fn check_with(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        println!("\n── {name}");
        let begun = Instant::now();
        let result = check();
        if let Err(error) = &result {
            println!("{error:#}");
        }
        let count = Count {
            passed: result.is_ok().into(),
            failed: result.is_err().into(),
            skipped: 0,
        };
        self.parts.push(Part {
            name: name.to_owned(),
            count,
            took: begun.elapsed(),
            trouble: None,
        });
    }

    /// Runs one test program, and counts what its closing lines say.
    pub(crate) fn tests(
        &mut self,
        name: &str,
        command: &mut Command,
        limit: Duration,
    ) -> Result<()> {
        self.part(name, command, limit, tests_counted)
    }

    /// Runs test programs that mostly wait side by side; each of their lines says whose it is.
    pub(crate) fn tests_side_by_side(
        &mut self,
        programs: &mut [(String, Command)],
        limit: Duration,
    ) -> Result<()> {
        let names: Vec<_> = programs.iter().map(|(name, _)| name.as_str()).collect();
        println!("\n── {}, side by side", names.join(" and "));
        let parts = thread::scope(|scope| {
            let started: Vec<_> = programs
                .iter_mut()
                .map(|(name, command)| {
                    let whose = format!("[{name}] ");
                    scope.spawn(move || Part::run(name, command, limit, &whose, tests_counted))
                })
                .collect();
            started
                .into_iter()
                .map(|one| {
                    one.join()
                        .map_err(|_| anyhow::anyhow!("a watching thread panicked"))?
                })
                .collect::<Result<Vec<_>>>()
        })?;
        self.parts.extend(parts);
        Ok(())
    }

    /// Prints the closing summary; the last line is the plain one that every reader of logs knows.
    pub(crate) fn close(self) -> bool {
        println!("\nsummary");
        let mut all = Count::default();
        for part in &self.parts {
            let Count {
                passed,
                failed,
                skipped,
            } = part.count;
            let mark = if failed == 0 { "ok    " } else { "FAILED" };
            let trouble = part.trouble.as_deref().unwrap_or_default();
            println!(
                "  {mark} {:<34} {passed:>4} passed {failed:>3} failed {:>6.1} s {trouble}",
                part.name,
                part.took.as_secs_f32()
            );
            all = Count {
                passed: all.passed + passed,
                failed: all.failed + failed,
                skipped: all.skipped + skipped,
            };
        }
        println!(
            "\n{} passed, {} failed, {} skipped",
            all.passed, all.failed, all.skipped
        );
        all.failed == 0 && all.passed > 0
    }

    fn part(
        &mut self,
        name: &str,
        command: &mut Command,
        limit: Duration,
        judge: impl Fn(Count, bool) -> Count,
    ) -> Result<()> {
        println!("\n── {name}");
        self.parts.push(Part::run(name, command, limit, "", judge)?);
        Ok(())
    }
}

impl Part {
    fn run(
        name: &str,
        command: &mut Command,
        limit: Duration,
        whose: &str,
        judge: impl Fn(Count, bool) -> Count,
    ) -> Result<Self> {
        let begun = Instant::now();
        let (seen, ended) =
            watch(command, limit, whose).with_context(|| format!("{name} could not be started"))?;
        let (succeeded, trouble) = match ended {
            Ended::WithStatus(status) if status.success() => (true, None),
            Ended::WithStatus(status) => (false, Some(status.to_string())),
            Ended::OutOfTime => (
                false,
                Some(format!("did not end within {} s", limit.as_secs())),
            ),
        };
        Ok(Self {
            name: name.to_owned(),
            count: judge(seen, succeeded),
            took: begun.elapsed(),
            trouble,
        })
    }
}

/// What a test program counted. One that dies without a closing line has failed, whatever it counted.
fn tests_counted(count: Count, succeeded: bool) -> Count {
    let silent = count.passed + count.failed == 0;
    Count {
        failed: count.failed.max((!succeeded).into()),
        ..if silent { Count::default() } else { count }
    }
}

enum Ended {
    WithStatus(std::process::ExitStatus),
    OutOfTime,
}

/// Starts the command, passes its output on, each line after `whose`, and counts as it goes by. The command stays in our own
/// process group, so that an interruption at the keyboard reaches it too.
fn watch(command: &mut Command, limit: Duration, whose: &str) -> Result<(Count, Ended)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let program = Pid::from_raw(i32::try_from(child.id())?);
    let output = child.stdout.take().context("no standard output")?;
    let whose = whose.to_owned();
    let reader = thread::spawn(move || {
        let mut count = Count::default();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("{whose}{line}");
            count = add(count, closing_line(&line));
        }
        count
    });
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // The watcher may have left already, its time being up.
        let _ = ended.send(());
        status
    });
    let mut in_time = true;
    if end.recv_timeout(limit).is_err() {
        in_time = false;
        let _ = kill(program, Signal::SIGTERM);
        if end.recv_timeout(GRACE).is_err() {
            let _ = kill(program, Signal::SIGKILL);
        }
    }
    let status = waiter
        .join()
        .map_err(|_| anyhow::anyhow!("the waiting thread panicked"))??;
    let count = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    Ok((
        count,
        if in_time {
            Ended::WithStatus(status)
        } else {
            Ended::OutOfTime
        },
    ))
}

fn add(one: Count, other: Option<Count>) -> Count {
    let other = other.unwrap_or_default();
    Count {
        passed: one.passed + other.passed,
        failed: one.failed + other.failed,
        skipped: one.skipped + other.skipped,
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …` and the plain `3 passed, 0 failed, 1 skipped`.
fn closing_line(line: &str) -> Option<Count> {
    let text = match line.strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ")?.1,
        None => line,
    };
    let mut count = Count::default();
    let mut named = [false; 2];
    for item in text.split([';', ',']) {
        let (number, word) = item.trim().split_once(' ')?;
        let Ok(number) = number.parse() else {
            // libtest ends its line with the time it took.
            break;
        };
        match word {
            "passed" => (count.passed, named[0]) = (number, true),
            "failed" => (count.failed, named[1]) = (number, true),
            "ignored" | "skipped" => count.skipped = number,
            _ => {}
        }
    }
    (named == [true, true]).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_closing_line_are_counted() {
        let expected = Some(Count {
            passed: 12,
            failed: 1,
            skipped: 2,
        });
        let libtest = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.1s";
        assert_eq!(closing_line(libtest), expected);
        assert_eq!(closing_line("12 passed, 1 failed, 2 skipped"), expected);
        assert_eq!(closing_line("12 apples, 1 pear"), None);
        assert_eq!(closing_line("test a_policy_is_refused ... ok"), None);
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_fails() {
        let mut suite = Suite::default();
        suite
            .tests(
                "hangs",
                Command::new("sleep").arg("600"),
                Duration::from_millis(50),
            )
            .unwrap();
        assert_eq!(
            suite.parts[0].count,
            Count {
                passed: 0,
                failed: 1,
                skipped: 0
            }
        );
        assert!(
            suite.parts[0]
                .trouble
                .as_deref()
                .is_some_and(|text| text.contains("did not end"))
        );
    }

    #[test]
    fn programs_side_by_side_are_counted_apart() {
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let folder = tempfile::tempdir().unwrap();
        let met = folder.path().join("met");
        // The first ends only if the second runs beside it.
        let waits = format!(
            "until [ -e {0} ]; do sleep 0.01; done; echo '2 passed, 0 failed'",
            met.display()
        );
        let meets = format!("touch {}; echo '3 passed, 1 failed'; exit 1", met.display());
        let mut suite = Suite::default();
        suite
            .tests_side_by_side(
                &mut [
                    ("waits".to_owned(), script(&waits)),
                    ("meets".to_owned(), script(&meets)),
                ],
                Duration::from_secs(20),
            )
            .unwrap();
        let counts: Vec<_> = suite
            .parts
            .iter()
            .map(|part| (part.name.as_str(), part.count.passed, part.count.failed))
            .collect();
        assert_eq!(counts, [("waits", 2, 0), ("meets", 3, 1)]);
    }

    #[test]
    fn a_program_that_fails_without_a_closing_line_fails() {
        let mut suite = Suite::default();
        suite
            .tests("dies", &mut Command::new("false"), Duration::from_secs(5))
            .unwrap();
        suite
            .tests(
                "counts",
                Command::new("echo").arg("3 passed, 0 failed"),
                Duration::from_secs(5),
            )
            .unwrap();
        assert_eq!(suite.parts[0].count.failed, 1);
        assert_eq!(
            suite.parts[1].count,
            Count {
                passed: 3,
                failed: 0,
                skipped: 0
            }
        );
        assert!(!suite.close());
    }
}
