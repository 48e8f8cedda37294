//! Connections that reach a pod.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use ztunnel::capture::From;

use crate::world::{World, eventually};

#[test]
fn any_port_comes_to_us_and_15008_to_hbone() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(SocketAddr::from(([0, 0, 0, 0], 8080)));
    world.answer(world.enroll(&capture, &b));
    // With an application behind it and without; our own outbound port is a port like any other.
    for port in [8080, 1, 65535, 15001, 15006] {
        for (from, to) in [(a.v4, b.v4(port)), (a.v6, b.v6(port))] {
            assert_eq!(
                a.call(to).unwrap().line,
                format!("inbound from {from} to {to}")
            );
        }
    }
    for (from, to) in [(a.v4, b.v4(15008)), (a.v6, b.v6(15008))] {
        assert_eq!(
            a.call(to).unwrap().line,
            format!("hbone from {from} to {to}")
        );
    }
    assert_eq!(world.count(&capture, "inbound"), 10);
    assert_eq!(world.count(&capture, "hbone"), 2);
}

#[test]
fn the_application_sees_the_clients_address() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    b.serve(b.v6(8080));
    let sockets = world.enroll(&capture, &b);
    world.relay(sockets.inbound, sockets.netns);
    for (from, to) in [(a.v4, b.v4(8080)), (a.v6, b.v6(8080))] {
        let mut answer = a.call(to).unwrap();
        assert_eq!(answer.line, format!("app from {from} to {to}"));
        answer.echo(&[7; 300_000]);
    }
}

/// From HBONE: the client is on another node, its address nowhere on this one.
#[test]
fn an_address_of_another_node_is_kept_too() {
    let world = World::new();
    let capture = world.capture();
    let b = world.pod("b");
    b.serve(b.v4(8080));
    b.serve(b.v6(8080));
    let netns = world.enroll(&capture, &b).netns;
    for (client, to) in [
        ("203.0.113.9:4711", b.v4(8080)),
        ("[2001:db8:9::9]:4711", b.v6(8080)),
    ] {
        let client: SocketAddr = client.parse().unwrap();
        let answer = world.connect(&netns, to, From::Client(client)).unwrap();
        assert_eq!(answer.line, format!("app from {} to {to}", client.ip()));
    }
    // The application's own address as client: nothing to keep.
    let itself = From::Client(b.v4(4711));
    let answer = world.connect(&netns, b.v4(8080), itself).unwrap();
    assert_eq!(answer.line, format!("app from {} to {}", b.v4, b.v4(8080)));
    let mixed = world.connect(&netns, b.v4(8080), From::Client(b.v6(1)));
    assert_eq!(
        mixed.err().map(|error| error.kind()),
        Some(ErrorKind::InvalidInput)
    );
}

/// The reset must come back through loopback and not leave for the client.
#[test]
fn a_closed_port_is_refused_at_once() {
    let world = World::new();
    let capture = world.capture();
    let b = world.pod("b");
    let netns = world.enroll(&capture, &b).netns;
    for (client, to) in [
        ("203.0.113.9:4711", b.v4(8080)),
        ("[2001:db8:9::9]:4711", b.v6(8080)),
    ] {
        let start = Instant::now();
        let client = From::Client(client.parse().unwrap());
        let error = world.connect(&netns, to, client).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn many_connections_of_one_client_each_get_a_source_port() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let sockets = world.enroll(&capture, &b);
    world.relay(sockets.inbound, sockets.netns);
    let mut open: Vec<_> = (0..300).map(|_| a.call(b.v4(8080)).unwrap()).collect();
    for answer in &mut open {
        answer.echo(b"still there");
    }
}

#[test]
fn without_a_listener_connections_are_refused_and_counted() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    drop(world.enroll(&capture, &b));
    for port in [8080, 15008, 15006] {
        let error = a.call(b.v4(port)).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    // What the pod opens is refused as well: its target is the listener that is not there.
    let error = b.call(a.v4(8080)).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(world.count(&capture, "no_listener"), 4);
}

/// ztunnel's connection out of pod A must not be taken for one into pod B, though both pods are on
/// this node and the kernel programs know the socket: it would pass by B's policy.
#[test]
fn a_connection_out_of_one_pod_does_not_pass_the_capture_of_another() {
    let world = World::new();
    let capture = world.capture();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve(b.v4(8080));
    let netns = world.enroll(&capture, &a).netns;
    world.answer(world.enroll(&capture, &b));
    let answer = world.connect(&netns, b.v4(8080), From::Pod).unwrap();
    assert_eq!(
        answer.line,
        format!("inbound from {} to {}", a.v4, b.v4(8080))
    );
    let answer = world.connect(&netns, b.v4(15008), From::Pod).unwrap();
    assert_eq!(
        answer.line,
        format!("hbone from {} to {}", a.v4, b.v4(15008))
    );
}

/// Trust is for one handshake: a later connection with the same tuple is nobody's friend.
#[test]
fn no_trust_is_left_after_a_handshake() {
    let world = World::new();
    let capture = world.capture();
    let b = world.pod("b");
    b.serve(b.v4(8080));
    let netns = world.enroll(&capture, &b).netns;
    let trusted = MapData::from_pin(world.pin("maps/TRUSTED")).unwrap();
    let trusted: HashMap<_, [u8; 40], u32> = Map::LruHashMap(trusted).try_into().unwrap();
    let client: SocketAddr = "203.0.113.9:4711".parse().unwrap();
    let open = world
        .connect(&netns, b.v4(8080), From::Client(client))
        .unwrap();
    assert_eq!(trusted.keys().count(), 0);
    drop(open);
    assert!(
        world
            .connect(&netns, b.v4(9999), From::Client(client))
            .is_err()
    );
    assert_eq!(trusted.keys().count(), 0);
    assert_eq!(world.count(&capture, "trusted"), 2);

    // A SYN that nobody answers is trusted until its socket is given up.
    let lost: SocketAddr = "203.0.113.77:80".parse().unwrap();
    b.ip("route add local 203.0.113.77 dev lo table local");
    b.ip("route add blackhole 192.0.2.0/24");
    let from = From::Client("192.0.2.1:1".parse().unwrap());
    let syn =
        async { tokio::time::timeout(Duration::from_millis(100), netns.connect(lost, from)).await };
    let given_up = world.block_on(syn);
    assert!(!matches!(given_up, Ok(Ok(_))));
    eventually("the trust of a lost SYN ends", || {
        trusted.keys().count() == 0
    });
}
