//! `sockops`: carries what is known of a connecting socket to the other end of its connection, by
//! the connection's tuple, for one handshake.
//!
//! | event | socket | what happens |
//! |---|---|---|
//! | about to send SYN | captured | tuple → original destination |
//! | about to send SYN | trusted | tuple is trusted |
//! | any later state | trusted | tuple is no longer trusted |
//! | closed before established | captured | tuple is forgotten |
//! | accepted on 15001 | | the original moves from the tuple to the accepted socket |

use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::bpf_sock_ops_cb_flags_set;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use ebpf_contract::{Endpoint, Ip, Reason, Stored, Tuple, port};

use crate::maps::{ORIGINALS, TRUSTED};
use crate::socket;
use crate::verdict::count;

/// The only verdict there is: this hook observes.
const DONE: u32 = 1;

const AF_INET: u32 = 2;

#[sock_ops]
pub fn sock_ops(context: SockOpsContext) -> u32 {
    let context = context.ops;
    // SAFETY: the context is the kernel's; the fields are read whole and before any branch.
    let (event, state) = unsafe {
        (
            read_volatile(&raw const (*context).op),
            read_volatile(&raw const (*context).__bindgen_anon_1.args[1]),
        )
    };
    match event {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(context),
        BPF_SOCK_OPS_STATE_CB => handshake_over(context, state),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(context),
        _ => {}
    }
    DONE
}

/// The source port is chosen, the SYN not yet sent.
#[inline(always)]
fn connecting(context: *mut bpf_sock_ops) {
    let (local, remote) = ends(context);
    // SAFETY: the context is the kernel's; the field is a socket or null.
    let Some(stored) = socket::stored(unsafe { (*context).__bindgen_anon_2.sk }) else {
        return;
    };
    let tuple = Tuple {
        from: local,
        to: remote,
    };
    let kept = match stored.kind {
        Stored::CAPTURED => ORIGINALS.insert(&tuple, &stored.original, 0),
        Stored::INWARD | Stored::NODE => TRUSTED.insert(&tuple, &1, 0),
        _ => return,
    };
    if kept.is_err() {
        // Nobody will find the tuple: the connection is reset, or treated like any client's.
        count(Reason::TableFull);
        return;
    }
    watch_states(context, true);
}

/// The connecting socket has left SYN_SENT.
#[inline(always)]
fn handshake_over(context: *mut bpf_sock_ops, state: u32) {
    let (local, remote) = ends(context);
    // SAFETY: as above.
    let Some(stored) = socket::stored(unsafe { (*context).__bindgen_anon_2.sk }) else {
        return;
    };
    let tuple = Tuple {
        from: local,
        to: remote,
    };
    match stored.kind {
        Stored::INWARD | Stored::NODE => {
            let _ = TRUSTED.remove(&tuple);
        }
        // Established: the listener's end is accepted a moment later, and takes the entry.
        Stored::CAPTURED if state == BPF_TCP_CLOSE => {
            let _ = ORIGINALS.remove(&tuple);
        }
        Stored::CAPTURED => {}
        _ => return,
    }
    watch_states(context, false);
}

/// A listener's connection is established.
#[inline(always)]
fn accepted(context: *mut bpf_sock_ops) {
    let (local, remote) = ends(context);
    if local.port() != port::OUTBOUND {
        return;
    }
    let tuple = Tuple {
        from: remote,
        to: local,
    };
    // SAFETY: the entry is copied at once; nobody writes it but the connecting socket's event.
    let Some(original) = (unsafe { ORIGINALS.get(&tuple) }) else {
        return;
    };
    let original = *original;
    // SAFETY: as above.
    let Some(stored) = socket::store(unsafe { (*context).__bindgen_anon_2.sk }) else {
        count(Reason::NoStorage);
        return;
    };
    stored.original = original;
    stored.kind = Stored::ACCEPTED;
    let _ = ORIGINALS.remove(&tuple);
}

/// The local and the remote end. Every field is read before the first branch: otherwise LLVM
/// merges the arms into one computed address, which the verifier refuses.
#[inline(always)]
fn ends(context: *mut bpf_sock_ops) -> (Endpoint, Endpoint) {
    // SAFETY: the context is the kernel's; the fields are read whole.
    let (family, local4, remote4, local6, remote6, local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*context).family),
            read_volatile(&raw const (*context).local_ip4),
            read_volatile(&raw const (*context).remote_ip4),
            [
                read_volatile(&raw const (*context).local_ip6[0]),
                read_volatile(&raw const (*context).local_ip6[1]),
                read_volatile(&raw const (*context).local_ip6[2]),
                read_volatile(&raw const (*context).local_ip6[3]),
            ],
            [
                read_volatile(&raw const (*context).remote_ip6[0]),
                read_volatile(&raw const (*context).remote_ip6[1]),
                read_volatile(&raw const (*context).remote_ip6[2]),
                read_volatile(&raw const (*context).remote_ip6[3]),
            ],
            read_volatile(&raw const (*context).local_port),
            read_volatile(&raw const (*context).remote_port),
        )
    };
    let (local, remote) = if family == AF_INET {
        (Ip::v4(local4.to_ne_bytes()), Ip::v4(remote4.to_ne_bytes()))
    } else {
        (Ip::from_words(local6), Ip::from_words(remote6))
    };
    (
        Endpoint::new(local, local_port as u16),
        Endpoint::new(remote, u32::from_be(remote_port) as u16),
    )
}

/// Asks for the socket's changes of state, or no longer; other programs' wishes are kept.
#[inline(always)]
fn watch_states(context: *mut bpf_sock_ops, watch: bool) {
    // SAFETY: the context is the kernel's; a request that is refused leaves the entry to the LRU.
    unsafe {
        let flags = read_volatile(&raw const (*context).bpf_sock_ops_cb_flags);
        let flags = match watch {
            true => flags | BPF_SOCK_OPS_STATE_CB_FLAG,
            false => flags & !BPF_SOCK_OPS_STATE_CB_FLAG,
        };
        bpf_sock_ops_cb_flags_set(context, flags as i32);
    }
}
