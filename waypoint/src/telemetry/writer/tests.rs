//! Lines reach their file in order, after it was moved away too; and a target that can't be written
//! costs lines, not requests.

use std::path::PathBuf;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn file(path: PathBuf) -> LogTarget {
    LogTarget::File(path)
}

#[test]
fn lines_are_written_in_order_and_at_the_end_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writers = Writers::default();
    let writer = writers.of(&file(path.clone()));
    assert!(Arc::ptr_eq(&writer, &writers.of(&file(path.clone()))));
    let lines: Vec<String> = (0..2000).map(|at| format!("line {at}\n")).collect();
    for line in &lines {
        writer.append(line);
    }
    writers.flush(PATIENCE);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines.concat());
    assert_eq!(writers.dropped(), 0);
}

#[test]
fn a_file_that_was_moved_away_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
    let writers = Writers::default();
    let writer = writers.of(&file(path.clone()));
    writer.append("before\n");
    writers.flush(PATIENCE);
    std::fs::rename(&path, &moved).unwrap();
    writer.append("to the old one\n");
    writers.flush(PATIENCE);
    writers.reopen();
    writer.append("after\n");
    writers.flush(PATIENCE);
    assert_eq!(
        std::fs::read_to_string(&moved).unwrap(),
        "before\nto the old one\n"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
}

#[test]
fn a_target_that_cant_be_written_costs_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let writers = Writers::default();
    let writer = writers.of(&file(folder.path().join("missing/access.log")));
    writer.append("one\ntwo\n");
    writers.flush(PATIENCE);
    assert_eq!(writers.dropped(), 2);
    writer.append("three\n");
    writers.flush(PATIENCE);
    assert_eq!(writers.dropped(), 3);
}

#[test]
fn what_waits_is_bounded() {
    // No thread takes anything here.
    let writer = Writer::default();
    let line = "x".repeat(MOST_WAITING / 4);
    for _ in 0..6 {
        writer.append(&line);
    }
    assert_eq!(writer.state.lock().waiting.len(), MOST_WAITING);
    assert_eq!(writer.dropped.load(Ordering::Relaxed), 2);
}
