//! Where a connection goes that somebody on this node opens: the logic of both connect hooks.

use core::ptr::read_volatile;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie};
use ebpf_contract::{Endpoint, Pod, Reason, Settings, Stored, port};

use crate::maps::{ADDRESSES, PODS, SETTINGS};
use crate::socket;
use crate::verdict::Outcome;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// How far below the root of the cgroup tree `kubepods` is looked for. A real node has it at
/// depth 1 or 2; a cluster inside of containers a few deeper.
const MAX_CGROUP_DEPTH: i32 = 12;

/// Looks at a connection to `to`; `rewrite` sends it elsewhere.
#[inline(always)]
pub(crate) fn connect(
    context: *mut bpf_sock_addr,
    to: Endpoint,
    rewrite: impl Fn(&Endpoint),
) -> Outcome {
    // SAFETY: the context is the kernel's; the field is read whole.
    let protocol = unsafe { read_volatile(&raw const (*context).protocol) };
    if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
        return Ok(None);
    }
    // SAFETY: the context is the kernel's.
    let netns = unsafe { bpf_get_netns_cookie(context.cast()) };
    // SAFETY: entries are replaced as a whole by user space; a stale one is a stale decision.
    match unsafe { PODS.get(&netns) } {
        Some(pod) => from_pod(context, pod, to, rewrite),
        None => from_elsewhere(context, netns, to),
    }
}

/// A process in a captured pod's namespace connects: the application, or ztunnel itself.
#[inline(always)]
fn from_pod(
    context: *mut bpf_sock_addr,
    pod: &Pod,
    to: Endpoint,
    rewrite: impl Fn(&Endpoint),
) -> Outcome {
    // SAFETY: the context is the kernel's, and the verifier knows the field as a socket.
    let socket = unsafe { (*context).__bindgen_anon_1.sk };
    if let Some(stored) = socket::stored(socket) {
        if stored.kind == Stored::OWN || stored.kind == Stored::INWARD {
            return Ok(Some(Reason::Own));
        }
        // The socket connects a second time: what we knew of the first is no longer true.
        stored.kind = Stored::NOTHING;
    }
    if to.ip.is_loopback() {
        return Ok(Some(Reason::Loopback));
    }
    // SAFETY: a number; stale at worst.
    if let Some(slot) = unsafe { ADDRESSES.get(&to.ip) }
        && *slot == pod.slot
    {
        return Ok(Some(Reason::Itself));
    }
    if to.ip.is_v6_link_local() {
        return Ok(Some(Reason::LinkLocal));
    }
    let own = if to.ip.is_v4() { pod.v4 } else { pod.v6 };
    if !own.is_some() {
        return Err(Reason::NoPodAddress);
    }
    let stored = socket::store(socket).ok_or(Reason::NoStorage)?;
    stored.original = to;
    stored.kind = Stored::CAPTURED;
    rewrite(&Endpoint::new(own, port::OUTBOUND));
    Ok(Some(Reason::Outbound))
}

/// Somebody else connects. A process of the node itself, on its way to a captured pod, is
/// remembered: `sockops` will trust that one connection.
#[inline(always)]
fn from_elsewhere(context: *mut bpf_sock_addr, netns: u64, to: Endpoint) -> Outcome {
    // SAFETY: the context is the kernel's, and the verifier knows the field as a socket.
    let socket = unsafe { (*context).__bindgen_anon_1.sk };
    if let Some(stored) = socket::stored(socket) {
        stored.kind = Stored::NOTHING;
    }
    let Some(settings) = SETTINGS.get(0) else {
        return Ok(None);
    };
    // SAFETY: only whether there is an entry is looked at.
    if settings.kubepods == 0 || unsafe { ADDRESSES.get(&to.ip) }.is_none() {
        return Ok(None);
    }
    let elsewhere = settings.node_netns != 0 && settings.node_netns != netns;
    if elsewhere || in_kubepods(settings) {
        return Ok(None);
    }
    let Some(stored) = socket::store(socket) else {
        return Ok(None); // A probe without trust is a call like any other.
    };
    stored.kind = Stored::NODE;
    Ok(Some(Reason::Node))
}

/// Is the calling process below the folder of all pods? Its depth is not known: ours may be the
/// view of a container.
#[inline(always)]
fn in_kubepods(settings: &Settings) -> bool {
    for level in 1..=MAX_CGROUP_DEPTH {
        // SAFETY: the helper takes any number.
        match unsafe { bpf_get_current_ancestor_cgroup_id(level) } {
            0 => return false,
            id if id == settings.kubepods => return true,
            _ => {}
        }
    }
    // Deeper than we looked: not provably the kubelet.
    true
}
