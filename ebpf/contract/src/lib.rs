//! What the kernel programs and user space agree on, byte for byte: names, keys and values of the
//! maps, and the table of counters. Both sides compile this one library; neither may describe a
//! layout anywhere else. It knows no aya, no syscall and no policy.
//!
//! Byte order: addresses and ports are in network order, as the wire has them, and held as byte
//! arrays so that no reader can take them for numbers. Everything else is in host order; both
//! sides run on one machine. IPv4 addresses are written IPv4-mapped (`::ffff:a.b.c.d`).

#![no_std]

pub use address::{Endpoint, Ip, Tuple};
pub use layout::ABI;
pub use maps::{
    Listeners, MAX_ADDRESSES, MAX_HANDSHAKES, MAX_PODS, Pod, SLOT_GLOBAL, Settings, Stored, map,
};
pub use reason::{Reason, Verdict};

mod address;
mod layout;
mod maps;
mod reason;

/// The firewall mark of ztunnel's connections that show a client's address. It chooses a route
/// inside the pod and nothing else: anyone with `CAP_NET_RAW` may set it, so nothing trusts it.
pub const RETURN_PATH_MARK: u32 = 0x539;

/// The listeners' ports inside a pod's network namespace (Istio's numbers).
pub mod port {
    /// Connections that the pod opens.
    pub const OUTBOUND: u16 = 15001;
    /// Connections to the pod that are not HBONE.
    pub const INBOUND: u16 = 15006;
    /// HBONE connections to the pod.
    pub const HBONE: u16 = 15008;
}

/// The kernel programs' names in the object, one per attach point.
pub mod program {
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "connect6";
    /// `cgroup/getpeername4`.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `cgroup/getpeername6`.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// `sockops`; the section has that name already, and the linker wants two.
    pub const SOCKOPS: &str = "sock_ops";
    /// `sk_lookup`, loaded once for each pod.
    pub const LOOKUP: &str = "lookup";
}
