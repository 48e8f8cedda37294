//! The maps: their names, how many entries they hold, and what is in them.

use crate::address::{Endpoint, Ip};

/// The maps' names, in the object and as pins.
pub mod map {
    /// Network-namespace cookie (`u64`) → [`Pod`](super::Pod), for each captured pod.
    pub const PODS: &str = "PODS";
    /// [`Ip`](crate::Ip) → slot (`u32`), for each address of a captured pod.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Slot × 3 + [`Listeners`](super::Listeners) → listening socket.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`Tuple`](crate::Tuple) → [`Endpoint`](crate::Endpoint): the original destination of a
    /// captured connection, from its SYN until it is accepted.
    pub const ORIGINALS: &str = "ORIGINALS";
    /// [`Tuple`](crate::Tuple) → `u32`: connections that pass the look-up, for one handshake.
    pub const TRUSTED: &str = "TRUSTED";
    /// Socket → [`Stored`](super::Stored).
    pub const SOCKETS: &str = "SOCKETS";
    /// Index 0 → [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// [`Reason`](crate::Reason) → count (`u64`), one for each CPU.
    pub const COUNTERS: &str = "COUNTERS";
}

/// How many pods of one node can be captured. The kubelet allows 110 by default.
pub const MAX_PODS: u32 = 1024;

/// Addresses of captured pods: two families, and twice that for pods with more networks.
pub const MAX_ADDRESSES: u32 = MAX_PODS * 4;

/// Connections of a whole node between SYN and accept that can be told apart: ten times the
/// 3,276 handshakes that may be under way at once. When it is full the oldest entry goes, and
/// that connection is reset (captured) or treated like any other client (trusted).
pub const MAX_HANDSHAKES: u32 = 32_768;

/// The name of the look-up program's constant that says for which pod it runs.
pub const SLOT_GLOBAL: &str = "SLOT";

/// A captured pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Where its IPv4 connections are sent; [`Ip::NONE`] if it has no IPv4 address.
    pub v4: Ip,
    /// Where its IPv6 connections are sent; [`Ip::NONE`] if it has no global IPv6 address.
    pub v6: Ip,
    /// Its place in `LISTENERS`.
    pub slot: u32,
}

/// A pod's listeners, in the order of their places in a slot.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Connections that the pod opens.
    Outbound = 0,
    /// Connections to the pod that are not HBONE.
    Inbound = 1,
    /// HBONE connections to the pod.
    Hbone = 2,
}

impl Listeners {
    /// Places in one slot.
    pub const COUNT: u32 = 3;
    /// Places in the map.
    pub const MAX: u32 = MAX_PODS * Self::COUNT;

    /// The place of this listener of the pod with this slot.
    #[inline(always)]
    pub const fn index(self, slot: u32) -> u32 {
        slot * Self::COUNT + self as u32
    }
}

/// What we know of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The original destination, for [`Stored::CAPTURED`] and [`Stored::ACCEPTED`].
    pub original: Endpoint,
    /// One of this type's constants. A bare number: the kernel hands us zeroed memory.
    pub kind: u32,
}

impl Stored {
    /// Nothing: what fresh storage holds.
    pub const NOTHING: u32 = 0;
    /// An application's socket whose connection was sent to us.
    pub const CAPTURED: u32 = 1;
    /// Our end of such a connection.
    pub const ACCEPTED: u32 = 2;
    /// A socket of ztunnel's own that leaves the pod. Only user space writes this, before
    /// `connect`. It passes the pod's outbound capture, and nobody's inbound capture.
    pub const OWN: u32 = 3;
    /// A socket of ztunnel's own to the application of the pod it was opened in. Only user space
    /// writes this, before `connect`. It passes the pod's inbound capture too.
    pub const INWARD: u32 = 4;
    /// A socket of the node, on its way to a captured pod: a probe of the kubelet.
    pub const NODE: u32 = 5;

    /// The mark of a socket of ztunnel's own.
    pub const fn mark(kind: u32) -> Self {
        Self {
            original: Endpoint::new(Ip::NONE, 0),
            kind,
        }
    }
}

/// What the programs must know of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cookie of the network namespace that the kubelet is in; 0 for any but captured pods'.
    pub node_netns: u64,
    /// The cgroup2 identifier of the folder above all pods; 0 when there is none, and then no
    /// process is trusted as the kubelet.
    pub kubepods: u64,
}
