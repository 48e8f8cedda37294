//! What we keep with a socket, and the two words the kernel has for socket addresses.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile, write_volatile};

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use ebpf_contract::{Endpoint, Ip, Stored};

use crate::maps::SOCKETS;

/// What is stored with the socket, if anything is. The kernel frees it with the socket.
#[inline(always)]
pub(crate) fn stored(socket: *mut bpf_sock) -> Option<&'static mut Stored> {
    get(socket, 0)
}

/// What is stored with the socket, zeroes at first; `None` when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn store(socket: *mut bpf_sock) -> Option<&'static mut Stored> {
    get(socket, BPF_SK_STORAGE_GET_F_CREATE.into())
}

#[inline(always)]
fn get(socket: *mut bpf_sock, flags: u64) -> Option<&'static mut Stored> {
    if socket.is_null() {
        return None;
    }
    let map = (&raw const SOCKETS).cast_mut().cast::<c_void>();
    // SAFETY: the verifier checks that the map is one and the socket is one; the helper returns
    // null or a value of the map's type, which lives as long as the program runs.
    unsafe {
        bpf_sk_storage_get(map, socket.cast(), null_mut(), flags)
            .cast::<Stored>()
            .as_mut()
    }
}

/// The IPv4 address and port of a socket address hook. Read whole before any branch: a branch in
/// between makes LLVM compute a field's address, which the verifier refuses.
#[inline(always)]
pub(crate) fn read_v4(context: *mut bpf_sock_addr) -> Endpoint {
    // SAFETY: the context is the kernel's, and each field is read whole, as the verifier demands.
    unsafe {
        let ip = read_volatile(&raw const (*context).user_ip4);
        let port = read_volatile(&raw const (*context).user_port);
        Endpoint::new(Ip::v4(ip.to_ne_bytes()), u16::from_be(port as u16))
    }
}

/// As [`read_v4`], for IPv6.
#[inline(always)]
pub(crate) fn read_v6(context: *mut bpf_sock_addr) -> Endpoint {
    // SAFETY: as above.
    unsafe {
        let a = read_volatile(&raw const (*context).user_ip6[0]);
        let b = read_volatile(&raw const (*context).user_ip6[1]);
        let c = read_volatile(&raw const (*context).user_ip6[2]);
        let d = read_volatile(&raw const (*context).user_ip6[3]);
        let port = read_volatile(&raw const (*context).user_port);
        Endpoint::new(Ip::from_words([a, b, c, d]), u16::from_be(port as u16))
    }
}

/// Replaces the IPv4 address and port of a socket address hook.
#[inline(always)]
pub(crate) fn write_v4(context: *mut bpf_sock_addr, to: &Endpoint) {
    // SAFETY: the context is the kernel's, and these fields may be written by these hooks.
    unsafe {
        write_volatile(&raw mut (*context).user_ip4, to.ip.words()[3]);
        write_volatile(&raw mut (*context).user_port, port_word(to));
    }
}

/// As [`write_v4`], for IPv6.
#[inline(always)]
pub(crate) fn write_v6(context: *mut bpf_sock_addr, to: &Endpoint) {
    let [a, b, c, d] = to.ip.words();
    // SAFETY: as above.
    unsafe {
        write_volatile(&raw mut (*context).user_ip6[0], a);
        write_volatile(&raw mut (*context).user_ip6[1], b);
        write_volatile(&raw mut (*context).user_ip6[2], c);
        write_volatile(&raw mut (*context).user_ip6[3], d);
        write_volatile(&raw mut (*context).user_port, port_word(to));
    }
}

#[inline(always)]
fn port_word(endpoint: &Endpoint) -> u32 {
    u16::from_ne_bytes(endpoint.port).into()
}

/// Where an application's socket was meant to go, if it was sent to us.
#[inline(always)]
pub(crate) fn original(context: *mut bpf_sock_addr) -> Option<Endpoint> {
    // SAFETY: the context is the kernel's, and the verifier knows the field as a socket.
    let socket = unsafe { (*context).__bindgen_anon_1.sk };
    match stored(socket) {
        Some(stored) if stored.kind == Stored::CAPTURED => Some(stored.original),
        _ => None,
    }
}
