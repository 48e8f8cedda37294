//! Every target over its seeds, over what was found before (`found/TARGET/…`), and over seeds with
//! pieces changed, put in, taken out and joined: what libFuzzer does, bounded and repeatable.

use std::path::Path;

use fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.expect("a target of this name")
}

/// One change to an input.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// What stands from one place on is put in at another.
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let place = any::<prop::sample::Index>;
    // What separates things in one of the languages is worth more than any byte.
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n\0 :,;=%/.{}[]\"*0\x7f\xff".to_vec()),
    ];
    let bytes = prop::collection::vec(byte.clone(), 1..6);
    let edit = prop_oneof![
        (place(), byte).prop_map(|(at, to)| Edit::Set(at, to)),
        (place(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (place(), 1usize..32).prop_map(|(at, length)| Edit::Remove(at, length)),
        (place(), place()).prop_map(|(from, at)| Edit::Repeat(from, at)),
    ];
    prop::collection::vec(edit, 0..6)
}

fn apply(mut input: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let len = input.len();
        match edit {
            _ if len == 0 => {}
            Edit::Set(at, to) => input[at.index(len)] = *to,
            Edit::Insert(at, bytes) => {
                let at = at.index(len);
                input.splice(at..at, bytes.iter().copied());
            }
            Edit::Remove(at, length) => {
                let at = at.index(len);
                input.drain(at..(at + length).min(len));
            }
            Edit::Repeat(from, at) => {
                let tail = input[from.index(len)..].to_vec();
                let at = at.index(len);
                input.splice(at..at, tail);
            }
        }
    }
    input
}

/// Looks at everything there is for a target, and at so many altered inputs.
fn replay(name: &str, cases: u32) {
    let target = target(name);
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        (target.check)(seed);
    }
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("found")
        .join(name);
    for entry in std::fs::read_dir(found).into_iter().flatten().flatten() {
        let input = std::fs::read(entry.path()).expect("an input that was found");
        (target.check)(&input);
    }
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    };
    let inputs = (any::<prop::sample::Index>(), edits());
    let run = TestRunner::new(config).run(&inputs, |(which, edits)| {
        let seed = seeds[which.index(seeds.len())].clone();
        (target.check)(&apply(seed, &edits));
        Ok(())
    });
    if let Err(error) = run {
        panic!("{name}: {error}");
    }
}

#[test]
fn resources_of_a_control_plane() {
    replay("xds", 1_000);
}

#[test]
fn files_of_resources() {
    replay("resources", 60);
}

#[test]
fn small_languages() {
    replay("texts", 5_000);
}

#[test]
fn what_clients_say() {
    replay("edge", 2_000);
}

#[test]
fn bodies_of_grpc_web() {
    replay("grpc_web", 5_000);
}

#[test]
fn arbitrary_bytes() {
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(60)
    };
    let bytes = prop::collection::vec(any::<u8>(), 0..512);
    let run = TestRunner::new(config).run(&bytes, |bytes| {
        for target in TARGETS {
            (target.check)(&bytes);
        }
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}
