//! `cgroup/getpeername6`: the application sees the peer that it asked for, not our listener.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::socket::{original, write_v6};

/// The only verdict that the kernel takes from this hook.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    if let Some(original) = original(context.sock_addr) {
        write_v6(context.sock_addr, &original);
    }
    ALLOW
}
