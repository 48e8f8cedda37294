//! Lines go to standard output on a thread of their own: whoever reads them may be slow or stuck,
//! and traffic must never wait for it. What doesn't fit is dropped, and that is said.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written; later ones are dropped.
const WAITING_LINES: usize = 8192;
/// Bytes written at once.
const BATCH: usize = 64 << 10;
/// How long the last lines may take when the process ends.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before this shall be out when it is answered.
    End(Sender<()>),
}

/// Where log lines are handed in.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines in the queue.
    waiting: AtomicUsize,
    /// Lines that found it full.
    dropped: AtomicU64,
}

/// Sees to it that the last lines are written: to be dropped last.
#[derive(Debug)]
pub struct Flush {
    lines: Lines,
    /// How long it waits for them.
    farewell: Duration,
}

/// Starts the thread that writes to `output`. When the process ends, the last lines have as long as
/// `farewell`.
pub(super) fn start(
    output: impl Write + Send + 'static,
    farewell: Duration,
) -> io::Result<(Lines, Flush)> {
    let (queue, waiting) = channel();
    let lines = Lines {
        queue,
        counts: Arc::default(),
    };
    let counts = Arc::clone(&lines.counts);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(output, &waiting, &counts))?;
    let flush = Flush {
        lines: lines.clone(),
        farewell,
    };
    Ok((lines, flush))
}

/// Writes what comes, several lines at once where they come fast.
fn write(mut output: impl Write, waiting: &Receiver<Message>, counts: &Counts) {
    let mut batch = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        let mut ended = None;
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    counts.waiting.fetch_sub(1, Ordering::Relaxed);
                    batch.extend_from_slice(&line);
                }
                Message::End(answer) => ended = Some(answer),
            }
            next = if batch.len() < BATCH {
                waiting.try_recv().ok()
            } else {
                None
            };
        }
        let lost = counts.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            batch.extend_from_slice(
                format!("{lost} log lines dropped: standard output is read too slowly\n")
                    .as_bytes(),
            );
        }
        // Nobody to tell: this is where errors would be told.
        let _ = output.write_all(&batch).and_then(|()| output.flush());
        batch.clear();
        batch.shrink_to(BATCH);
        if let Some(answer) = ended {
            let _ = answer.send(());
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Write for &Lines {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_LINES {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            // It fails only if the thread is gone, and with it every place for lines.
            let _ = self.queue.send(Message::Line(line.to_vec()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (answer, out) = channel();
        if self.lines.queue.send(Message::End(answer)).is_ok() {
            // Too late is as good as never: the process ends.
            let _ = out.recv_timeout(self.farewell);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What a loaded machine may need for anything.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// An output that hands on what it gets. Before each write it says that it is there, and waits
    /// until it may.
    struct Slow {
        written: mpsc::Sender<Vec<u8>>,
        arrived: mpsc::Sender<()>,
        may: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.arrived.send(());
            let _ = self.may.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_holds_nobody_up_and_the_loss_is_told() {
        let (written, read) = mpsc::channel();
        let (allow, may) = mpsc::channel();
        let (arrived, stuck) = mpsc::channel();
        let slow = Slow {
            written,
            arrived,
            may,
        };
        let (lines, flush) = start(slow, PATIENCE).unwrap();
        (&lines).write_all(b"first\n").unwrap();
        // Only now does nothing leave the queue any more.
        stuck.recv().unwrap();
        for _ in 0..WAITING_LINES * 2 {
            (&lines).write_all(b"x\n").unwrap();
        }
        drop(allow);
        drop(flush);
        let all: Vec<u8> = read.try_iter().flatten().collect();
        let text = String::from_utf8(all).unwrap();
        assert!(text.starts_with("first\n"), "lines keep their order");
        let told = format!("{WAITING_LINES} log lines dropped");
        assert!(text.contains(&told), "the loss is told");
        let kept = text.lines().filter(|line| *line == "x").count();
        assert_eq!(kept, WAITING_LINES);
    }

    #[test]
    fn the_last_lines_are_out_when_the_process_ends() {
        let (written, read) = mpsc::channel();
        let (_, may) = mpsc::channel();
        let (arrived, _stuck) = mpsc::channel();
        let slow = Slow {
            written,
            arrived,
            may,
        };
        let (lines, flush) = start(slow, PATIENCE).unwrap();
        (&lines).write_all(b"last words\n").unwrap();
        drop(flush);
        assert_eq!(
            read.try_iter().flatten().collect::<Vec<_>>(),
            b"last words\n"
        );
    }

    #[test]
    fn an_end_does_not_wait_for_an_output_that_stays_stuck() {
        let (written, read) = mpsc::channel();
        let (_allow, may) = mpsc::channel();
        let (arrived, stuck) = mpsc::channel();
        let slow = Slow {
            written,
            arrived,
            may,
        };
        let (lines, flush) = start(slow, Duration::from_millis(10)).unwrap();
        (&lines).write_all(b"never read\n").unwrap();
        stuck.recv().unwrap();
        drop(flush);
        assert!(read.try_iter().next().is_none());
    }
}
