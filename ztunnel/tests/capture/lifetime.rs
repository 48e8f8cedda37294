//! Enrolling, releasing, uninstalling: what goes on through it, and what is left after it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use aya::maps::{Array, HashMap, Map, MapData};
use ztunnel::capture::{Capture, Error};

use crate::pod::listen;
use crate::world::{World, chain, eventually};

/// Bytes that show any loss, repetition or reordering.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn open_connections_survive_enrolling_and_releasing_byte_for_byte() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    b.serve(b.v6(8080));
    let mut open = [a.call(b.v4(8080)).unwrap(), a.call(b.v6(8080)).unwrap()];
    let bytes = pattern(200_000);
    let mut exchange = || open.iter_mut().for_each(|answer| answer.echo(&bytes));

    exchange();
    world.answer(world.enroll(&capture, &a));
    world.answer(world.enroll(&capture, &b));
    exchange();
    assert!(
        a.call(b.v4(8080)).unwrap().line.starts_with("outbound"),
        "new ones are captured"
    );
    exchange();
    capture.release(&a.uid).unwrap();
    capture.release(&b.uid).unwrap();
    exchange();
    assert!(
        a.call(b.v4(8080)).unwrap().line.starts_with("app"),
        "new ones are not captured"
    );
}

#[test]
fn captured_connections_survive_releasing_and_then_the_return_path_goes() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    assert!(!b.has_return_path());
    let sockets = world.enroll(&capture, &b);
    assert!(b.has_return_path());
    let relay = world.relay(sockets.inbound, sockets.netns);
    let mut open = a.call(b.v4(8080)).unwrap();
    open.echo(&pattern(100_000));

    capture.release(&b.uid).unwrap();
    relay.abort();
    open.echo(&pattern(100_000));
    assert!(b.has_return_path(), "a connection still needs it");
    drop(open);
    eventually("the return path goes with the last connection", || {
        !b.has_return_path()
    });
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("app"));
}

#[test]
fn a_pod_that_joins_again_keeps_its_return_path() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let first = world.enroll(&capture, &b);
    capture.release(&b.uid).unwrap();
    let second = world.enroll(&capture, &b);
    drop(first);
    assert!(
        b.has_return_path(),
        "the first time's handle is not the last one"
    );
    world.relay(second.inbound, second.netns);
    assert_eq!(
        a.call(b.v4(8080)).unwrap().line,
        format!("app from {} to {}", a.v4, b.v4(8080))
    );
}

#[test]
fn releasing_is_idempotent_and_leaves_the_hooks() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    let hooks = world.pins();
    let sockets = world.enroll(&capture, &a);
    assert_eq!(world.pins().len(), hooks.len() + 1);
    capture.release(&a.uid).unwrap();
    capture.release(&a.uid).unwrap();
    capture.release("never seen").unwrap();
    drop(sockets);
    assert_eq!(world.pins(), hooks);
    assert!(!a.has_return_path());
}

#[test]
fn enrolling_that_fails_leaves_the_pod_as_it_was() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let pins = world.pins();
    let taken = a.run(|| listen("[::]:15008".parse::<SocketAddr>().unwrap(), false).unwrap());

    let error = world.try_enroll(&capture, &a).unwrap_err();
    assert!(
        matches!(error, Error::Port { port: 15008, .. }),
        "{error:?}"
    );
    assert!(
        chain(&error).contains("15008 is taken"),
        "{}",
        chain(&error)
    );
    assert_eq!(world.pins(), pins);
    assert!(!a.has_return_path());
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("app"));

    drop(taken);
    world.answer(world.enroll(&capture, &a));
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("outbound"));
}

#[test]
fn what_can_never_be_captured_is_refused() {
    let world = World::new();
    let capture = world.capture();
    let (node, a) = (world.node(), world.pod("a"));
    let error = world.try_enroll(&capture, &node).unwrap_err();
    assert!(matches!(error, Error::HostNetwork), "{error:?}");

    world.enroll(&capture, &a);
    let mut other = a.clone();
    other.uid = "uid-other".into();
    let error = world.try_enroll(&capture, &other).unwrap_err();
    assert!(
        matches!(&error, Error::Taken(uid) if *uid == a.uid),
        "{error:?}"
    );

    let bare = world.pod("bare");
    bare.ip("link set eth0 down");
    bare.ip("addr flush dev eth0");
    let error = world.try_enroll(&capture, &bare).unwrap_err();
    assert!(matches!(error, Error::NoAddress), "{error:?}");
}

/// A pod whose sandbox is made anew keeps its uid and gets another namespace.
#[test]
fn a_pod_with_a_new_namespace_is_captured_there() {
    let world = World::new();
    let capture = world.capture();
    let (first, mut second) = (world.pod("first"), world.pod("second"));
    second.uid.clone_from(&first.uid);
    let old = world.enroll(&capture, &first);
    world.answer(world.enroll(&capture, &second));
    drop(old);
    let to = SocketAddr::from(([198, 51, 100, 7], 443));
    assert!(second.call(to).unwrap().line.starts_with("outbound"));
    assert!(!first.has_return_path());
    let pods = world
        .pins()
        .iter()
        .filter(|pin| pin.to_string_lossy().contains("/pods/"))
        .count();
    assert_eq!(pods, 1);
}

#[test]
fn pods_named_by_nobody_are_released_and_so_is_another_versions_work() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let first = world.capture();
    drop(world.enroll(&first, &a));
    drop(first);

    let old = world.config.bpffs.join("culvert/abi-00000000/maps");
    fs::create_dir_all(&old).unwrap();
    let map: Array<_, u32> = Array::create(1, 0).unwrap();
    map.pin(old.join("PODS")).unwrap();

    let capture = world.capture();
    assert!(
        a.call(b.v4(8080)).is_err(),
        "captured by the first, served by nobody"
    );
    assert_eq!(capture.retain(&[&a.uid]).unwrap(), Vec::<String>::new());
    assert!(a.call(b.v4(8080)).is_err(), "named, so kept");
    assert!(
        !old.exists(),
        "another layout's pins go once all pods are known"
    );
    assert_eq!(capture.retain(&[]).unwrap(), [a.uid.as_str()]);
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("app"));
}

#[test]
fn uninstalling_leaves_no_pin_no_link_and_no_rule() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let sockets = [world.enroll(&capture, &a), world.enroll(&capture, &b)];
    assert!(a.has_return_path() && b.has_return_path());
    // As if by another process: ours is killed, and leaves everything in force.
    std::mem::forget(capture);
    sockets.into_iter().for_each(std::mem::forget);

    Capture::uninstall(&world.config).unwrap();
    assert_eq!(world.pins(), Vec::<std::path::PathBuf>::new());
    assert!(!world.config.bpffs.join("culvert").exists());
    assert!(!a.has_return_path() && !b.has_return_path());
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("app"));
    Capture::uninstall(&world.config).expect("nothing left to do is fine");
}

#[test]
fn what_somebody_removed_is_put_back() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    world.answer(world.enroll(&capture, &a));
    world.answer(world.enroll(&capture, &b));
    assert_eq!(capture.reconcile().unwrap(), Vec::<String>::new());

    fs::remove_file(world.pin("links/connect4")).unwrap();
    fs::remove_file(world.pin("pods/uid-b")).unwrap();
    a.ip("rule del fwmark 0x539 lookup 100");
    // A removed pin takes effect when a worker of the kernel gets to it.
    eventually("nothing is captured", || {
        a.call(b.v4(8080))
            .is_ok_and(|answer| answer.line.starts_with("app"))
    });

    let mut repaired = capture.reconcile().unwrap();
    repaired.sort();
    assert_eq!(repaired, ["hook connect4", "inbound capture of pod uid-b"]);
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("outbound"));
    assert!(a.has_return_path());
    assert_eq!(capture.reconcile().unwrap(), Vec::<String>::new());
}

/// In a pod, the host's `/proc/sys/net` is bind-mounted, because a container's own is read-only.
#[test]
fn settings_are_the_pods_through_a_bind_mount_too() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let none: Option<&str> = None;
    mount(
        Some("/proc/sys/net"),
        folder.path(),
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    world.config.proc_sys_net = folder.path().to_owned();
    let setting = |netns: &std::path::Path| {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["cat", "/proc/sys/net/ipv4/tcp_fwmark_accept"])
            .args([
                "/proc/sys/net/ipv4/fwmark_reflect",
                "/proc/sys/net/ipv6/fwmark_reflect",
            ])
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .replace('\n', " ")
    };
    let capture = world.capture();
    let (node, a) = (world.node(), world.pod("a"));
    let sockets = world.enroll(&capture, &a);
    assert_eq!(setting(&a.netns), "1 1 1 ");
    assert_eq!(setting(&node.netns), "0 0 0 ");
    capture.release(&a.uid).unwrap();
    drop(sockets);
    assert_eq!(setting(&a.netns), "0 0 0 ");
    umount2(folder.path(), MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn the_same_pod_again_gets_fresh_sockets() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    let to = SocketAddr::from(([198, 51, 100, 7], 443));
    let first = world.enroll(&capture, &a);
    let pins = world.pins();
    world.answer(world.enroll(&capture, &a));
    assert_eq!(world.pins(), pins);
    drop(first);
    assert!(a.call(to).unwrap().line.starts_with("outbound"));
}

#[test]
fn the_last_place_is_given_and_no_further() {
    let world = World::new();
    drop(world.capture());
    let pods = MapData::from_pin(world.pin("maps/PODS")).unwrap();
    let mut pods: HashMap<_, u64, [u8; 36]> = Map::HashMap(pods).try_into().unwrap();
    // As an earlier ztunnel left them: 1,023 pods, with a slot each.
    for slot in 0..ebpf_contract::MAX_PODS - 1 {
        let mut pod = [0; 36];
        pod[32..].copy_from_slice(&slot.to_ne_bytes());
        pods.insert(u64::MAX - u64::from(slot), pod, 0).unwrap();
    }
    let capture = world.capture();
    let (last, one_more) = (world.pod("last"), world.pod("more"));
    let to = SocketAddr::from(([198, 51, 100, 7], 443));
    world.answer(world.enroll(&capture, &last));
    assert!(last.call(to).unwrap().line.starts_with("outbound"));
    let error = world.try_enroll(&capture, &one_more).unwrap_err();
    assert!(matches!(error, Error::Full { limit: 1024 }), "{error:?}");
    assert!(!one_more.has_return_path());
    capture.release(&last.uid).unwrap();
    world.answer(world.enroll(&capture, &one_more));
    assert!(one_more.call(to).unwrap().line.starts_with("outbound"));
}

/// A pod that gives itself a neighbour's address must not change what becomes of the neighbour.
#[test]
fn a_neighbours_address_stays_the_neighbours() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    world.answer(world.enroll(&capture, &b));
    a.ip(&format!("addr add {}/32 dev eth0", b.v4));
    world.answer(world.enroll(&capture, &a));
    // For the neighbour it is its own; for the thief it is somebody else's, so captured.
    assert!(b.call(b.v4(8080)).unwrap().line.starts_with("app"));
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("outbound"));
    capture.release(&a.uid).unwrap();
    assert!(b.call(b.v4(8080)).unwrap().line.starts_with("app"));
}
