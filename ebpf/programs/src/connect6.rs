//! `cgroup/connect6`: an IPv6 socket of this node connects, perhaps to an IPv4-mapped address.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::connect;
use crate::socket::{read_v6, write_v6};
use crate::verdict::verdict;

/// The kernel goes on with `connect`.
const ALLOW: i32 = 1;
/// `connect` fails with `EPERM`.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    let outcome = connect(context, read_v6(context), |to| write_v6(context, to));
    verdict(outcome, ALLOW, REFUSE)
}
