//! The kubelet's probes pass untouched, and nobody can pass for the kubelet.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, HashMap, Map, MapData};
use socket2::{Domain, Socket, Type};

use crate::pod::Pod;
use crate::world::{World, eventually};

/// What bash says to a call: one line of the answer.
fn call_script(to: SocketAddr) -> String {
    format!("exec 3<>/dev/tcp/{}/{} && head -n1 <&3", to.ip(), to.port())
}

fn served(world: &World) -> Pod {
    let b = world.pod("b");
    b.serve(b.v4(8080));
    b.serve(b.v6(8080));
    b
}

#[test]
fn a_process_of_the_node_reaches_the_application() {
    let world = World::new();
    let capture = world.capture();
    let (node, b) = (world.node(), served(&world));
    world.answer(world.enroll(&capture, &b));
    for (from, to) in [(node.v4, b.v4(8080)), (node.v6, b.v6(8080))] {
        let answer = node.call(to).unwrap();
        assert_eq!(answer.line, format!("app from {from} to {to}"));
    }
    let answer = node.call_mapped(b.v4(8080)).unwrap();
    assert_eq!(
        answer.line,
        format!("app from {} to {}", node.v4, b.v4(8080))
    );
    assert_eq!(world.count(&capture, "node"), 3);
    assert_eq!(world.count(&capture, "trusted"), 3);
    assert_eq!(world.count(&capture, "inbound"), 0);
}

#[test]
fn a_pod_with_the_nodes_network_is_not_the_kubelet() {
    let world = World::new();
    let capture = world.capture();
    let (node, b) = (world.node(), served(&world));
    world.answer(world.enroll(&capture, &b));
    for (from, to) in [(node.v4, b.v4(8080)), (node.v6, b.v6(8080))] {
        let line = world.in_kubepods(&node.netns, &call_script(to));
        assert_eq!(line.trim_end(), format!("inbound from {from} to {to}"));
    }
    assert_eq!(world.count(&capture, "node"), 0);
}

#[test]
fn a_process_in_another_namespace_is_not_the_kubelet() {
    let mut world = World::new();
    let (a, b) = (world.pod("a"), served(&world));
    let capture = world.capture();
    world.answer(world.enroll(&capture, &b));
    let answer = a.call(b.v4(8080)).unwrap();
    assert_eq!(
        answer.line,
        format!("inbound from {} to {}", a.v4, b.v4(8080))
    );
    assert_eq!(world.count(&capture, "node"), 0);

    // Where the node's namespace is not known, the process alone decides.
    world.config.host_netns = None;
    let capture = world.capture();
    world.answer(world.enroll(&capture, &b));
    let answer = a.call(b.v4(8080)).unwrap();
    assert_eq!(answer.line, format!("app from {} to {}", a.v4, b.v4(8080)));
    let line = world.in_kubepods(&a.netns, &call_script(b.v4(8080)));
    assert_eq!(
        line.trim_end(),
        format!("inbound from {} to {}", a.v4, b.v4(8080))
    );
}

#[test]
fn without_a_folder_of_pods_nobody_is_the_kubelet() {
    let mut world = World::new();
    let elsewhere = world.config.cgroup_root.clone().unwrap().join("ztunnel");
    world.config.kubepods = None;
    world.config.cgroup_root = Some(elsewhere);
    let capture = world.capture();
    let (node, b) = (world.node(), served(&world));
    world.answer(world.enroll(&capture, &b));
    let answer = node.call(b.v4(8080)).unwrap();
    assert_eq!(
        answer.line,
        format!("inbound from {} to {}", node.v4, b.v4(8080))
    );
}

#[test]
fn a_probes_trust_ends_with_its_handshake_or_its_socket() {
    let world = World::new();
    let capture = world.capture();
    let (node, b) = (world.node(), served(&world));
    world.answer(world.enroll(&capture, &b));
    let trusted = MapData::from_pin(world.pin("maps/TRUSTED")).unwrap();
    let trusted: HashMap<_, [u8; 40], u32> = Map::LruHashMap(trusted).try_into().unwrap();

    let open = node.call(b.v4(8080)).unwrap();
    assert_eq!(trusted.keys().count(), 0);
    drop(open);
    // Refused by the application's side: the port is closed.
    let refused = node.run(|| TcpStream::connect(b.v4(9999)));
    assert!(refused.is_err());
    assert_eq!(trusted.keys().count(), 0);

    // The SYN is lost on its way.
    b.ip("link set eth0 down");
    node.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        assert!(socket.connect(&b.v4(8080).into()).is_err());
        assert_eq!(trusted.keys().count(), 1);
    });
    eventually("the trust of a closed socket ends", || {
        trusted.keys().count() == 0
    });
}

/// A ztunnel outside of Kubernetes may be there before the first pod is.
#[test]
fn the_folder_of_pods_may_appear_later() {
    let mut world = World::new();
    let root = world.config.cgroup_root.clone().unwrap().join(&world.name);
    std::fs::create_dir(&root).unwrap();
    world.config.kubepods = None;
    world.config.cgroup_root = Some(root.clone());
    let capture = world.capture();
    assert_eq!(capture.reconcile().unwrap(), Vec::<String>::new());
    let kubepods = root.join("kubelet/kubepods");
    std::fs::create_dir_all(&kubepods).unwrap();
    assert_eq!(capture.reconcile().unwrap(), ["settings"]);
    let settings = MapData::from_pin(world.pin("maps/SETTINGS")).unwrap();
    let settings: Array<_, [u64; 2]> = Map::Array(settings).try_into().unwrap();
    let identifier = std::fs::metadata(&kubepods).unwrap().ino();
    assert_eq!(settings.get(&0, 0).unwrap()[1], identifier);

    // Made anew, it has another identifier.
    std::fs::remove_dir(&kubepods).unwrap();
    std::fs::create_dir(&kubepods).unwrap();
    assert_eq!(capture.reconcile().unwrap(), ["settings"]);
    let anew = settings.get(&0, 0).unwrap()[1];
    assert_eq!(anew, std::fs::metadata(&kubepods).unwrap().ino());
    assert_ne!(anew, identifier);
}
