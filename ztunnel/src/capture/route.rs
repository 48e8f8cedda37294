//! The return path: an application answers a connection that shows the client's address to that
//! address. Inside the pod's namespace such answers must come back to ztunnel and not leave.
//!
//! Our sockets carry a firewall mark. The SYN carries it through loopback, the kernel gives it to
//! the accepted socket (`tcp_fwmark_accept`) and to resets (`fwmark_reflect`), and a routing rule
//! sends everything with it to loopback. No netfilter, no connection tracking.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ebpf_contract::RETURN_PATH_MARK;
use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::namespace::Netns;

/// The table that sends everything to loopback (Istio's number).
const TABLE: u8 = 100;
/// Before the main table's 32766, and recognisable.
const PRIORITY: u32 = 1337;
/// The loopback interface has this index in every namespace.
const LOOPBACK: u32 = 1;

const SYSCTLS: [(&str, AddressFamily); 3] = [
    ("ipv4/tcp_fwmark_accept", AddressFamily::Inet),
    ("ipv4/fwmark_reflect", AddressFamily::Inet),
    ("ipv6/fwmark_reflect", AddressFamily::Inet6),
];

/// Makes the return path; what is there already is left alone.
pub(super) fn add(netns: &Netns, proc_sys_net: &Path) -> io::Result<()> {
    netns.run(|| {
        let netlink = Netlink::open()?;
        for family in families(proc_sys_net) {
            netlink.ask(RouteNetlinkMessage::NewRoute(route(family)), true)?;
            netlink.ask(RouteNetlinkMessage::NewRule(rule(family)), true)?;
        }
        set_sysctls(proc_sys_net, "1")
    })?
}

/// Takes the return path away; what is gone already is no error.
pub(super) fn remove(netns: &Netns, proc_sys_net: &Path) -> io::Result<()> {
    netns.run(|| {
        let netlink = Netlink::open()?;
        let mut result = Ok(());
        for family in families(proc_sys_net) {
            let rule = netlink.ask(RouteNetlinkMessage::DelRule(rule(family)), false);
            let route = netlink.ask(RouteNetlinkMessage::DelRoute(route(family)), false);
            result = result.and(rule).and(route);
        }
        result.and(set_sysctls(proc_sys_net, "0")) // The kernel's own default.
    })?
}

/// IPv4, and IPv6 where the kernel has it.
fn families(proc_sys_net: &Path) -> Vec<AddressFamily> {
    let mut families = vec![AddressFamily::Inet];
    if proc_sys_net.join("ipv6").is_dir() {
        families.push(AddressFamily::Inet6);
    }
    families
}

/// `sys/net` shows the namespace of the thread that opens a file in it, so it must be opened inside.
fn set_sysctls(proc_sys_net: &Path, value: &str) -> io::Result<()> {
    let present = families(proc_sys_net);
    for (name, _) in SYSCTLS
        .iter()
        .filter(|(_, family)| present.contains(family))
    {
        let path: PathBuf = proc_sys_net.join(name);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| {
                let hint = "mount the host's /proc/sys/net writable and name it with PROC_SYS_NET";
                io::Error::new(error.kind(), format!("{}: {error}; {hint}", path.display()))
            })?;
    }
    Ok(())
}

fn rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.table = TABLE;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(RETURN_PATH_MARK),
    ];
    rule
}

fn route(family: AddressFamily) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family,
        table: TABLE,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![RouteAttribute::Oif(LOOPBACK)];
    route
}

/// A blocking netlink socket of the namespace it was opened in: the kernel answers at once.
struct Netlink(Socket);

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends one request and waits for the kernel's yes or no.
    fn ask(&self, message: RouteNetlinkMessage, create: bool) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        if create {
            header.flags |= NLM_F_CREATE | NLM_F_EXCL;
        }
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(io::Error::other)?;
        let NetlinkPayload::Error(error) = answer.payload else {
            return Err(io::Error::other("netlink answered with something else"));
        };
        let Some(code) = error.code else {
            return Ok(());
        };
        match -code.get() {
            libc::EEXIST if create => Ok(()),
            libc::ENOENT | libc::ESRCH if !create => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}
