//! The shape of the network: one fabric namespace with a bridge, a veth to each node and to each
//! machine outside, a veth from a node to each of its pods, routes over the nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::addresses::{self, FABRIC_PREFIX, NodeNumber, Pair};
use crate::links::{Step, configure};
use crate::netns::Netns;

const BRIDGE: &str = "fabric";
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Addresses are usable at once: the plan has no duplicates to detect.
const NO_DAD: [(&str, &str); 2] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];
const FORWARD: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// Makes the fabric, with the lab's own address on it.
///
/// # Errors
/// Names the step that failed.
pub fn fabric() -> Result<Netns> {
    let fabric = Netns::create()?;
    fabric.set(&NO_DAD)?;
    let mut steps = vec![up("lo"), Step::Bridge(BRIDGE.to_owned()), up(BRIDGE)];
    steps.extend(addresses_on(BRIDGE, addresses::control(), FABRIC_PREFIX));
    configure(&fabric, steps)?;
    Ok(fabric)
}

/// Makes a node and joins it to the fabric; `nodes` are all nodes that it shall have routes to.
///
/// # Errors
/// Names the step that failed.
pub fn node(fabric: &Netns, number: NodeNumber, nodes: &[NodeNumber]) -> Result<Netns> {
    let node = attach(fabric, &format!("node{}", number.get()), number.on_fabric())?;
    node.set(&FORWARD)?;
    // Pods reach what the lab serves in the fabric, as they reach a control plane.
    configure(fabric, routes_to(number).into())?;
    let mut steps = vec![Step::Address(
        "lo".to_owned(),
        IpAddr::V4(number.gateway().v4),
        32,
    )];
    steps.extend(
        nodes
            .iter()
            .filter(|other| **other != number)
            .flat_map(|other| routes_to(*other)),
    );
    configure(&node, steps)?;
    Ok(node)
}

/// Makes a machine outside the mesh, with routes back to the pods.
///
/// # Errors
/// Names the step that failed.
pub fn outside(fabric: &Netns, index: u8, nodes: &[NodeNumber]) -> Result<Netns> {
    let machine = attach(fabric, &format!("out{index}"), addresses::outside(index))?;
    configure(
        &machine,
        nodes.iter().flat_map(|node| routes_to(*node)).collect(),
    )?;
    Ok(machine)
}

/// Makes a pod's namespace and joins it to its node.
///
/// # Errors
/// Names the step that failed.
pub fn pod(node: &Netns, number: NodeNumber, index: u8) -> Result<Netns> {
    let pod = Netns::create()?;
    pod.set(&NO_DAD)?;
    let (gateway, own, link) = (number.gateway(), number.pod(index), format!("pod{index}"));
    let mut steps = vec![
        Step::Veth {
            name: link.clone(),
            peer: "eth0".to_owned(),
            there: pod.clone(),
        },
        up(&link),
        Step::Address(link.clone(), IpAddr::V6(gateway.v6), 64),
    ];
    steps.push(Step::Over(IpAddr::V4(own.v4), 32, link.clone()));
    steps.push(Step::Over(IpAddr::V6(own.v6), 128, link));
    configure(node, steps)?;
    let mut steps = vec![up("lo"), up("eth0")];
    steps.extend(addresses_on("eth0", own, (32, 128)));
    steps.push(Step::Over(IpAddr::V4(gateway.v4), 32, "eth0".to_owned()));
    steps.push(Step::Via(ANY_V4, 0, IpAddr::V4(gateway.v4), None));
    steps.push(Step::Via(
        ANY_V6,
        0,
        IpAddr::V6(gateway.v6),
        Some("eth0".to_owned()),
    ));
    configure(&pod, steps)?;
    Ok(pod)
}

/// A namespace with `eth0` on the fabric.
fn attach(fabric: &Netns, link: &str, own: Pair) -> Result<Netns> {
    let machine = Netns::create()?;
    machine.set(&NO_DAD)?;
    configure(
        fabric,
        vec![
            Step::Veth {
                name: link.to_owned(),
                peer: "eth0".to_owned(),
                there: machine.clone(),
            },
            Step::Enslave {
                port: link.to_owned(),
                bridge: BRIDGE.to_owned(),
            },
            up(link),
        ],
    )?;
    let mut steps = vec![up("lo"), up("eth0")];
    steps.extend(addresses_on("eth0", own, FABRIC_PREFIX));
    configure(&machine, steps)?;
    Ok(machine)
}

fn up(link: &str) -> Step {
    Step::Up(link.to_owned())
}

fn addresses_on(link: &str, pair: Pair, (v4, v6): (u8, u8)) -> [Step; 2] {
    [
        Step::Address(link.to_owned(), IpAddr::V4(pair.v4), v4),
        Step::Address(link.to_owned(), IpAddr::V6(pair.v6), v6),
    ]
}

fn routes_to(node: NodeNumber) -> [Step; 2] {
    let ((v4, v4_prefix), (v6, v6_prefix)) = node.pods();
    let gateway = node.on_fabric();
    [
        Step::Via(IpAddr::V4(v4), v4_prefix, IpAddr::V4(gateway.v4), None),
        Step::Via(IpAddr::V6(v6), v6_prefix, IpAddr::V6(gateway.v6), None),
    ]
}
