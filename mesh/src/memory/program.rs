//! The pages of the program's own file. The kernel maps them 64 KiB at a time where one is touched,
//! and they stay resident though only the start or a push needed them. Unmapped, they remain in the
//! page cache for as long as there is room, and are mapped again where the program goes on.
#![allow(
    unsafe_code,
    reason = "the room that owns this system call: it takes a range of addresses"
)]

use std::io;
use std::ops::Range;

/// Unmaps what is mapped of the program's file and was never written to. Gives how many bytes were
/// resident.
///
/// # Errors
/// There is no /proc, or the kernel refuses (a seccomp filter?).
pub fn unmap() -> io::Result<usize> {
    let file = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut resident = 0;
    for mapping in clean(&maps, &file.to_string_lossy()) {
        let Range { start, end } = mapping.range;
        // SAFETY: the range is one read-only mapping of a file, without a page that differs from
        // it: whatever is read there next is read from the file again. Nobody in this process
        // changes its mappings.
        let refused = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                end - start,
                libc::MADV_DONTNEED,
            )
        };
        if refused != 0 {
            return Err(io::Error::last_os_error());
        }
        resident += mapping.resident;
    }
    Ok(resident)
}

/// A read-only mapping of the file with nothing of the process's own.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<usize>,
    /// Bytes of it that are resident.
    resident: usize,
}

/// Reads `/proc/self/smaps`: what is of the file, is not writable, and has no page that was written
/// to before it became so, as relocated ones are.
fn clean(maps: &str, file: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut inside = false;
    for line in maps.lines() {
        if let Some((range, path)) = head(line) {
            inside = path == Some(file);
            if inside {
                found.push(Mapping { range, resident: 0 });
            }
        } else if inside && let Some(mapping) = found.last_mut() {
            if let Some(kib) = value(line, "Rss:") {
                mapping.resident = kib << 10;
            } else if value(line, "Anonymous:").is_some_and(|kib| kib > 0) {
                found.pop();
                inside = false;
            }
        }
    }
    found
}

/// The first line of a mapping: its range, and its file where it can be read and not written.
fn head(line: &str) -> Option<(Range<usize>, Option<&str>)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    let reads = rest.starts_with("r-");
    let path = rest.find('/').filter(|_| reads).map(|at| &rest[at..]);
    Some((range, path))
}

/// `Name:   12 kB`
fn value(line: &str, name: &str) -> Option<usize> {
    let rest = line.strip_prefix(name)?.trim_start();
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_unmapped() {
        let maps = "\
7f0000000000-7f0000100000 r-xp 00000000 fd:00 11 /usr/bin/waypoint
Rss:                 512 kB
Anonymous:             0 kB
7f0000100000-7f0000200000 r--p 00100000 fd:00 11 /usr/bin/waypoint
Rss:                  64 kB
Anonymous:             4 kB
7f0000200000-7f0000300000 r--p 00200000 fd:00 11 /usr/bin/waypoint
Rss:                   8 kB
Anonymous:             0 kB
7f0000300000-7f0000400000 rw-p 00300000 fd:00 11 /usr/bin/waypoint
Rss:                  64 kB
Anonymous:             0 kB
7f0000400000-7f0000500000 r-xp 00000000 fd:00 12 /usr/lib/other.so
Rss:                  64 kB
Anonymous:             0 kB
7f0000500000-7f0000600000 r-xp 00000000 00:00 0
Rss:                  64 kB
VmFlags: rd ex mr mw me
";
        let of = |range, kib: usize| Mapping {
            range,
            resident: kib << 10,
        };
        assert_eq!(
            clean(maps, "/usr/bin/waypoint"),
            [
                of(0x7f00_0000_0000..0x7f00_0010_0000, 512),
                of(0x7f00_0020_0000..0x7f00_0030_0000, 8)
            ]
        );
        assert_eq!(clean("", "/usr/bin/waypoint"), []);
    }
}
