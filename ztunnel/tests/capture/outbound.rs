//! Connections that a pod opens.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use ztunnel::capture::From;

use crate::pod::{enter, listen};
use crate::world::{PATIENCE, World, eventually};

/// Nobody has these addresses: whoever gets an answer from them was captured.
const NOWHERE_V4: &str = "198.51.100.7:443";
const NOWHERE_V6: &str = "[2001:db8::7]:443";

fn nowhere(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn ipv4_ipv6_and_mapped_connections_come_with_their_destination() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    world.answer(world.enroll(&capture, &a));

    let answer = a.call(nowhere(NOWHERE_V4)).unwrap();
    assert_eq!(
        answer.line,
        format!("outbound from {} to {NOWHERE_V4}", a.v4)
    );
    assert_eq!(answer.peer(), nowhere(NOWHERE_V4), "getpeername is true");

    let answer = a.call(nowhere(NOWHERE_V6)).unwrap();
    assert_eq!(
        answer.line,
        format!("outbound from {} to {NOWHERE_V6}", a.v6)
    );
    assert_eq!(answer.peer(), nowhere(NOWHERE_V6), "getpeername is true");

    let answer = a.call_mapped(nowhere(NOWHERE_V4)).unwrap();
    assert_eq!(
        answer.line,
        format!("outbound from {} to {NOWHERE_V4}", a.v4)
    );
    assert_eq!(answer.peer(), nowhere("[::ffff:198.51.100.7]:443"));

    assert_eq!(world.count(&capture, "outbound"), 3);
}

#[test]
fn each_of_many_connections_at_once_comes_with_its_own_destination() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    world.answer(world.enroll(&capture, &a));
    thread::scope(|scope| {
        for thread in 0..8_u16 {
            let a = a.clone();
            scope.spawn(move || {
                for i in 0..50 {
                    let to = SocketAddr::from(([198, 51, 100, 7], 1000 + thread * 50 + i));
                    let line = format!("outbound from {} to {to}", a.v4);
                    assert_eq!(a.call(to).unwrap().line, line);
                }
            });
        }
    });
    assert_eq!(world.count(&capture, "outbound"), 400);
}

#[test]
fn loopback_and_the_pods_own_addresses_pass() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    for address in ["127.0.0.1:8080", "[::1]:8080"] {
        a.serve(nowhere(address));
    }
    a.serve(a.v4(8081));
    a.serve(a.v6(8081));
    world.answer(world.enroll(&capture, &a));

    for address in [
        nowhere("127.0.0.1:8080"),
        nowhere("[::1]:8080"),
        a.v4(8081),
        a.v6(8081),
    ] {
        let line = format!("app from {} to {address}", address.ip());
        assert_eq!(a.call(address).unwrap().line, line);
    }
    let mapped = a.call_mapped(a.v4(8081)).unwrap();
    assert_eq!(mapped.line, format!("app from {} to {}", a.v4, a.v4(8081)));
    assert_eq!(world.count(&capture, "loopback"), 2);
    assert_eq!(world.count(&capture, "itself"), 3);
    assert_eq!(world.count(&capture, "outbound"), 0);
    assert_eq!(world.count(&capture, "inbound"), 0);
}

#[test]
fn ztunnels_own_connections_leave_the_pod() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    b.serve(b.v6(8080));
    let sockets = world.enroll(&capture, &a);
    for (to, seen) in [(b.v4(8080), a.v4), (b.v6(8080), a.v6)] {
        let answer = world.connect(&sockets.netns, to, From::Pod).unwrap();
        assert_eq!(answer.line, format!("app from {seen} to {to}"));
    }
    assert_eq!(world.count(&capture, "own"), 2);
    assert_eq!(world.count(&capture, "outbound"), 0);
}

/// A process that shares our port, with our user's rights, gets not one connection.
#[test]
fn no_process_in_the_pod_can_take_port_15001() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    let hijack = |address: &str| {
        let address = nowhere(address);
        let listener = a.run(move || listen(address, true).unwrap());
        thread::spawn(move || {
            let taken = listener.accept();
            panic!("the application took {taken:?}");
        })
    };
    let before = hijack("[::]:15001");
    world.answer(world.enroll(&capture, &a));
    let after = [
        hijack("[::]:15001"),
        hijack("0.0.0.0:15001"),
        hijack(&a.v4(15001).to_string()),
    ];
    for _ in 0..50 {
        for to in [NOWHERE_V4, NOWHERE_V6] {
            let line = a.call(nowhere(to)).unwrap().line;
            assert!(line.starts_with("outbound from"), "{line}");
        }
    }
    for thread in after.iter().chain([&before]) {
        assert!(
            !thread.is_finished(),
            "an application's listener got a connection"
        );
    }
}

#[test]
fn a_call_to_port_15001_itself_is_reset_and_counted() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    world.answer(world.enroll(&capture, &a));
    for to in [a.v4(15001), nowhere("127.0.0.1:15001")] {
        let error = a.call(to).err().expect("no answer");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(world.count(&capture, "no_original"), 2);
}

#[test]
fn a_pod_that_is_not_enrolled_is_left_alone() {
    let world = World::new();
    let capture = world.capture();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    b.serve(b.v4(8080));
    world.answer(world.enroll(&capture, &a));
    let answer = c.call(b.v4(8080)).unwrap();
    assert_eq!(answer.line, format!("app from {} to {}", c.v4, b.v4(8080)));
    let counters = capture.counters();
    assert!(
        counters.iter().all(|counter| counter.value == 0),
        "{counters:?}"
    );
}

/// Letting it pass would be letting it out uncaptured, should the pod get an address later.
#[test]
fn a_family_of_which_the_pod_has_no_address_is_refused() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    a.ip("-6 addr flush dev eth0 scope global");
    world.answer(world.enroll(&capture, &a));
    let error = a.call(nowhere(NOWHERE_V6)).err().expect("no answer");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(world.count(&capture, "no_pod_address"), 1);
    assert!(a.call(nowhere(NOWHERE_V4)).is_ok());
}

/// A socket's second connection must not be answered for with the first one's destination.
#[test]
fn a_socket_that_connects_again_forgets_its_first_destination() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    a.serve(nowhere("127.0.0.1:8080"));
    let own = a.listening();
    let tasks = world.answer(world.enroll(&capture, &a));
    // Nobody listens any more: the first connect is refused, and the socket usable again.
    tasks.iter().for_each(|task| task.abort());
    world.block_on(async {
        for task in tasks {
            let _ = task.await;
        }
    });
    // Nor a command that another test of this process is just starting.
    eventually("nobody has the listeners", || a.listening() == own);
    a.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let refused = socket.connect(&nowhere(NOWHERE_V4).into()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        socket.connect(&nowhere("127.0.0.1:8080").into()).unwrap();
        let peer = socket.peer_addr().unwrap().as_socket().unwrap();
        assert_eq!(peer, nowhere("127.0.0.1:8080"));
    });
}

/// The hook sees the subflow, which is TCP to it: captured like any other, and ztunnel's listener
/// makes it plain TCP. The application's `getpeername` asks the MPTCP socket, which has no storage
/// of ours: it shows the pod's own address. Known, and the same in every socket-level capture.
#[test]
fn mptcp_is_captured() {
    let world = World::new();
    let capture = world.capture();
    let a = world.pod("a");
    world.answer(world.enroll(&capture, &a));
    let line = a.run(|| {
        let mptcp = Some(Protocol::MPTCP);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, mptcp).expect("a kernel with MPTCP");
        socket
            .connect_timeout(&nowhere(NOWHERE_V4).into(), PATIENCE)
            .unwrap();
        let mut buffer = [0; 128];
        let n = nix::unistd::read(&socket, &mut buffer).unwrap();
        assert!(socket.as_raw_fd() > 0);
        String::from_utf8_lossy(&buffer[..n]).trim_end().to_owned()
    });
    assert_eq!(line, format!("outbound from {} to {NOWHERE_V4}", a.v4));
}

#[test]
fn udp_is_not_captured() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.answer(world.enroll(&capture, &a));
    world.answer(world.enroll(&capture, &b));
    let (address, netns) = (b.v4(5353), b.netns.clone());
    let server = thread::spawn(move || {
        enter(&netns);
        let socket = UdpSocket::bind(address).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 16];
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..n], from).unwrap();
        })
    });
    let server = server.join().unwrap();
    a.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(address).unwrap();
        socket.send(b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
    });
    server.join().unwrap();
    assert_eq!(world.count(&capture, "outbound"), 0);
}
