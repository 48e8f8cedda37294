//! The program's own pages: those that only the start needed are given back. A program of its own, since
//! a test beside it would map pages again while this one counts.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use waypoint::config::Flags;

/// Bytes of files that are resident.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssFile:"));
    let kib = line.unwrap().trim().split(' ').next().unwrap();
    kib.parse::<usize>().unwrap() << 10
}

#[test]
fn pages_of_the_program_that_nobody_needs_are_given_back() {
    // Much of the program that is not needed afterwards.
    assert!(Flags::read(["waypoint", "--help"]).is_err());
    let before = resident();
    let given = mesh::memory::unmap().unwrap();
    let after = resident();
    assert!(given > 1 << 20, "{given} bytes were given back");
    assert!(
        after + given / 2 < before,
        "{before} bytes of files were resident, and {after} are now"
    );
}
