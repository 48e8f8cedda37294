//! The bytes of an HTTP/1 head as they came. hyper is lenient where it is safe for itself: it drops
//! a length beside chunks, and a fragment. A proxy refuses both, since who stands behind it may read
//! them in another way. Bytes are kept only while a head is awaited, and looked at only where there
//! may be something to find.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mesh::tap::Tap;
use parking_lot::Mutex;

/// Bytes of a head that are kept; what is longer is refused for its size.
const LONGEST: usize = 64 << 10;

/// The bytes since the last request ended, shared by a connection's bytes and its requests. Both are
/// on one thread, so that the lock is never waited for; hyper asks of what can be upgraded that it
/// could be sent to another.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// A request is being served: what comes now is its body.
    busy: AtomicBool,
    /// A head has begun and is not whole.
    begun: AtomicBool,
    /// Heads that became whole.
    whole: AtomicU32,
    bytes: Mutex<Vec<u8>>,
}

impl Raw {
    /// A request's head has been read: what was kept of it is looked at and let go. `encoded` says
    /// whether hyper found a transfer encoding, without which a length is in nobody's way.
    pub(super) fn begin(&self, encoded: bool) -> Quirks {
        self.busy.store(true, Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
        self.whole.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.lock();
        let quirks = Quirks::of(&bytes, encoded);
        bytes.clear();
        bytes.shrink_to(4096);
        quirks
    }

    /// The number of the head that has begun and is not whole, where one has.
    pub(super) fn unfinished(&self) -> Option<u32> {
        let begun = self.begun.load(Ordering::Relaxed);
        begun.then(|| self.whole.load(Ordering::Relaxed))
    }

    /// The request is over: the next head is awaited.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }
}

/// Of a connection's bytes, heads are kept.
impl Tap for Raw {
    fn read(&self, read: &[u8]) {
        if self.busy.load(Ordering::Relaxed) {
            return;
        }
        // Empty lines in front of a request are none of it.
        if read.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.begun.store(true, Ordering::Relaxed);
        }
        let mut bytes = self.bytes.lock();
        let room = LONGEST.saturating_sub(bytes.len());
        bytes.extend_from_slice(&read[..read.len().min(room)]);
    }
}

/// What hyper doesn't tell of a head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quirks {
    /// The target has a fragment.
    pub(super) fragment: bool,
    /// There is a length as well as a transfer encoding.
    pub(super) length_and_encoding: bool,
}

impl Quirks {
    /// Looks at a head; what is behind it doesn't count.
    fn of(bytes: &[u8], encoded: bool) -> Self {
        // hyper passes over empty lines in front of a request.
        let bytes = bytes.trim_ascii_start();
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (request, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        Self {
            fragment: request.contains(&b'#'),
            length_and_encoding: encoded && has_length(rest),
        }
    }
}

/// Whether a length stands among the lines up to the first empty one.
fn has_length(lines: &[u8]) -> bool {
    let lines = lines.split(|byte| *byte == b'\n').skip(1);
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .any(|line| is_named(line, b"content-length"))
}

fn is_named(line: &[u8], name: &[u8]) -> bool {
    let named = line.split_at_checked(name.len());
    named.is_some_and(|(start, rest)| {
        rest.first() == Some(&b':') && start.eq_ignore_ascii_case(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_counts() {
        let quirks = |text: &str| {
            let quirks = Quirks::of(text.as_bytes(), text.contains("ncoding: chunked"));
            (quirks.fragment, quirks.length_and_encoding)
        };
        let both = "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(quirks(both), (false, true));
        assert_eq!(quirks(&format!("\r\n\r\n{both}")), (false, true));
        let body =
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncontent-length: 1#\r\n";
        assert_eq!(quirks(body), (false, false));
        assert_eq!(quirks("GET /a#b HTTP/1.1\r\nx: #\r\n\r\n"), (true, false));
        assert_eq!(quirks("GET /a HTTP/1.1\nx: #\n\n"), (false, false));
        assert_eq!(quirks(""), (false, false));
    }

    #[test]
    fn a_head_is_unfinished_from_its_first_byte_until_it_is_whole() {
        let raw = Raw::default();
        assert_eq!(raw.unfinished(), None);
        raw.read(b"\r\n");
        assert_eq!(raw.unfinished(), None);
        raw.read(b"G");
        assert_eq!(raw.unfinished(), Some(0));
        raw.read(b"ET / HTTP/1.1\r\n\r\n");
        raw.begin(false);
        raw.read(b"body");
        assert_eq!(raw.unfinished(), None);
        raw.end();
        assert_eq!(raw.unfinished(), None);
        raw.read(b"P");
        assert_eq!(raw.unfinished(), Some(1));
    }

    #[test]
    fn bodies_are_not_kept() {
        let raw = Raw::default();
        raw.read(b"GET /#a HTTP/1.1\r\n\r\n");
        assert!(raw.begin(false).fragment);
        raw.read(b"body");
        assert!(raw.bytes.lock().is_empty());
        raw.end();
        raw.read(&[b'x'; LONGEST + 1]);
        assert_eq!(raw.bytes.lock().len(), LONGEST);
    }
}
