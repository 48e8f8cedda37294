//! What is missing is said in one line that names it and what to do.

use std::thread;

use caps::{CapSet, Capability};
use ztunnel::capture::{Capture, Config, Error};

use crate::world::{World, chain};

fn refusal(config: Config) -> (Error, String) {
    let error = Capture::start(config).expect_err("it must not start");
    let line = chain(&error);
    assert!(!line.contains('\n'), "one line: {line}");
    (error, line)
}

#[test]
fn every_program_is_accepted_and_attached() {
    let world = World::new();
    let _capture = world.capture();
    for program in [
        "connect4",
        "connect6",
        "getpeername4",
        "getpeername6",
        "sock_ops",
    ] {
        world.pin(&format!("links/{program}"));
    }
    // The pods' program has passed the verifier, or `capture` had failed; it is attached later.
    assert!(
        world
            .pins()
            .iter()
            .all(|pin| !pin.to_string_lossy().contains("/pods/"))
    );
}

#[test]
fn a_folder_that_is_no_cgroup2_is_named() {
    let mut world = World::new();
    world.config.cgroup_root = Some("/tmp".into());
    let (error, line) = refusal(world.config.clone());
    assert!(matches!(error, Error::NotCgroup2(_)), "{error:?}");
    assert!(
        line.contains("/tmp") && line.contains("CGROUP_ROOT"),
        "{line}"
    );
    world.config.cgroup_root = Some("/nowhere/at/all".into());
    let (error, _) = refusal(world.config.clone());
    assert!(matches!(error, Error::NotCgroup2(_)), "{error:?}");
}

#[test]
fn a_folder_that_is_no_bpffs_is_named() {
    let mut world = World::new();
    world.config.bpffs = "/tmp".into();
    let (error, line) = refusal(world.config.clone());
    assert!(matches!(error, Error::NotBpffs(_)), "{error:?}");
    assert!(line.contains("/tmp") && line.contains("BPFFS"), "{line}");
}

#[test]
fn a_namespace_that_is_none_is_named() {
    let mut world = World::new();
    world.config.host_netns = Some("/nowhere/ns/net".into());
    let (error, line) = refusal(world.config.clone());
    assert!(matches!(error, Error::HostNetns { .. }), "{error:?}");
    assert!(
        line.contains("/nowhere/ns/net") && line.contains("HOST_NETNS"),
        "{line}"
    );
}

#[test]
fn missing_capabilities_are_named() {
    let world = World::new();
    let lines = thread::scope(|scope| {
        // Capabilities belong to a thread, and this one ends.
        let thread = scope.spawn(|| {
            let drop = |capability| caps::drop(None, CapSet::Effective, capability).unwrap();
            drop(Capability::CAP_NET_ADMIN);
            let (_, first) = refusal(world.config.clone());
            drop(Capability::CAP_SYS_ADMIN);
            drop(Capability::CAP_BPF);
            let (_, all) = refusal(world.config.clone());
            [first, all]
        });
        thread.join().unwrap()
    });
    assert!(
        lines[0].starts_with("missing CAP_NET_ADMIN:"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("missing CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF:"),
        "{}",
        lines[1]
    );
}

/// What is left to ztunnel after it has given the rest away is enough for everything here.
#[test]
fn three_capabilities_suffice() {
    let world = World::new();
    let a = world.pod("a");
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let three = [
                Capability::CAP_BPF,
                Capability::CAP_NET_ADMIN,
                Capability::CAP_SYS_ADMIN,
            ];
            caps::set(None, CapSet::Effective, &three.into_iter().collect()).unwrap();
            let capture = world.capture();
            let sockets = world.enroll(&capture, &a);
            capture.reconcile().unwrap();
            capture.release(&a.uid).unwrap();
            drop(sockets);
            assert!(!a.has_return_path());
        });
        thread.join().unwrap();
    });
}
