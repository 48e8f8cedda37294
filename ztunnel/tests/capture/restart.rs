//! One ztunnel takes over from another, or from one that was killed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use aya::programs::links::PinnedLink;

use crate::world::{World, eventually};

#[test]
fn programs_are_swapped_with_no_connection_lost() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let first = world.capture();
    let mut tasks = world.answer(world.enroll(&first, &a));
    tasks.extend(world.answer(world.enroll(&first, &b)));

    let outside = world.node();
    let (stop, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        // If the test fails, the callers must end, or the scope waits for them for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        let (stop, calls) = (&stop, &calls);
        for (from, to, expected) in [
            // Nobody has this address: an answer shows that the call was captured.
            (
                &a,
                SocketAddr::from(([198, 51, 100, 7], 443)),
                "outbound from",
            ),
            // Here the application would answer, if inbound capture had a gap.
            (&outside, b.v4(8080), ""),
        ] {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let line = from
                        .call(to)
                        .unwrap_or_else(|error| panic!("{to}: {error}"))
                        .line;
                    assert!(line.starts_with(expected), "{line}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more = |n| {
            let goal = calls.load(Ordering::Relaxed) + n;
            eventually("calls go on", || calls.load(Ordering::Relaxed) >= goal);
        };
        let mut captures = vec![first];
        for _ in 0..3 {
            more(20);
            let next = world.capture();
            let mut relieved = world.answer(world.enroll(&next, &a));
            relieved.extend(world.answer(world.enroll(&next, &b)));
            more(20);
            // What the old one has been given before it was relieved, it still answers.
            captures.push(next);
            tasks.extend(relieved);
        }
        more(20);
    });
    assert!(calls.load(Ordering::Relaxed) >= 140);
}

#[test]
fn the_successor_adopts_the_maps_and_replaces_the_programs() {
    let world = World::new();
    let a = world.pod("a");
    let first = world.capture();
    world.answer(world.enroll(&first, &a));
    let to = SocketAddr::from(([198, 51, 100, 7], 443));
    a.call(to).unwrap();
    let programs = || {
        [
            "links/connect4",
            "links/connect6",
            "links/sock_ops",
            "links/getpeername4",
            "pods/uid-a",
        ]
        .map(|pin| program(&world, pin))
    };
    let (pins, before) = (world.pins(), programs());

    let second = world.capture();
    world.answer(world.enroll(&second, &a));
    assert_eq!(world.pins(), pins, "nothing is pinned twice");
    for (old, new) in before.iter().zip(programs()) {
        assert_ne!(*old, new, "each program is the new one's");
    }
    a.call(to).unwrap();
    assert_eq!(world.count(&second, "outbound"), 2, "counters go on");
}

fn program(world: &World, pin: &str) -> u32 {
    let link = PinnedLink::from_pin(world.pin(pin)).unwrap();
    let link: aya::programs::links::FdLink = link.into();
    link.info().unwrap().program_id()
}

#[test]
fn after_a_kill_nothing_passes_until_the_successor_listens() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve(a.v4(8080));
    b.serve(b.v4(8080));
    let own = a.listening();
    let first = world.capture();
    // What the kernel does to a killed process: every descriptor is closed, every pin stays.
    drop(world.enroll(&first, &a));
    drop(first);
    // A command that another test of this process is just starting has them too, until it runs.
    eventually("nobody has the listeners", || a.listening() == own);

    let refused = |result: std::io::Result<crate::pod::Answer>| {
        let error = result.err().expect("refused, not let through");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    };
    refused(a.call(b.v4(8080)));
    refused(b.call(a.v4(8080)));
    let second = world.capture();
    refused(a.call(b.v4(8080)));
    refused(b.call(a.v4(8080)));
    world.answer(world.enroll(&second, &a));
    assert!(a.call(b.v4(8080)).unwrap().line.starts_with("outbound"));
    assert!(b.call(a.v4(8080)).unwrap().line.starts_with("inbound"));
    assert_eq!(world.count(&second, "no_listener"), 4);
}
