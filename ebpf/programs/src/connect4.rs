//! `cgroup/connect4`: an IPv4 socket of this node connects.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::connect;
use crate::socket::{read_v4, write_v4};
use crate::verdict::verdict;

/// The kernel goes on with `connect`.
const ALLOW: i32 = 1;
/// `connect` fails with `EPERM`.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    let outcome = connect(context, read_v4(context), |to| write_v4(context, to));
    verdict(outcome, ALLOW, REFUSE)
}
