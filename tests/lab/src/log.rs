//! What a ztunnel writes: kept in memory for assertions and printed when a test fails. Access log
//! lines are JSON objects with Istio's field names.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

/// Lines kept; the oldest go first.
const KEPT: usize = 50_000;

/// The lines of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// Pipes that have not ended.
    open: Arc<AtomicUsize>,
}

impl Log {
    /// Collects from a pipe until it ends.
    pub fn collect(&self, pipe: impl Read + Send + 'static) {
        let (lines, open) = (Arc::clone(&self.lines), Arc::clone(&self.open));
        open.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut lines = lines.lock();
                if lines.len() == KEPT {
                    lines.drain(..KEPT / 2);
                }
                lines.push(line);
            }
            open.fetch_sub(1, Ordering::Release);
        });
    }

    /// Whether all pipes have ended: nothing more will come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// The last lines, one text.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines.lock();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Whether a line has this text.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.lines.lock().iter().any(|line| line.contains(text))
    }

    /// The finished connections that ztunnel logged.
    #[must_use]
    pub fn access(&self) -> Vec<Access> {
        self.lines
            .lock()
            .iter()
            .filter_map(|line| Access::parse(line))
            .collect()
    }
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct Access {
    fields: Value,
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        let is_access = ["scope", "target"].iter().any(|name| {
            fields
                .get(name)
                .and_then(Value::as_str)
                .is_some_and(|scope| scope.split("::").next() == Some("access"))
        });
        is_access.then_some(Self { fields })
    }

    /// A field's text; empty when it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> String {
        let inner = self.fields.get("fields");
        match self.fields.get(name).or_else(|| inner?.get(name)) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// Whether each of these fields has this value.
    #[must_use]
    pub fn has(&self, expected: &[(&str, &str)]) -> bool {
        expected
            .iter()
            .all(|(name, value)| self.get(name) == *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_line_is_told_from_others_and_read_by_field() {
        let line = r#"{"level":"info","scope":"access","src.workload":"sleep","bytes_sent":12}"#;
        let access = Access::parse(line).unwrap();
        assert!(access.has(&[
            ("src.workload", "sleep"),
            ("bytes_sent", "12"),
            ("error", "")
        ]));
        assert!(
            Access::parse(r#"{"level":"info","scope":"ztunnel::app","message":"access"}"#)
                .is_none()
        );
        assert!(Access::parse("access").is_none());
    }
}
