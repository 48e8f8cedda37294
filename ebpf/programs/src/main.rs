//! The kernel programs that capture pods' connections, one file for each attach point. Each entry
//! file shows its verdicts; the logic returns a `Result`, and `verdict.rs` alone counts it and
//! makes a verdict of it. No policy is decided here: a program knows pods, addresses and its own
//! sockets, nothing else.
//!
//! ```text
//! app: connect() ─ connect4/6 ── own pod's IP:15001, original kept with the socket
//!        SYN ───── sockops ───── original kept by tuple
//!        look-up ─ lookup ────── the outbound listener
//!        accept ── sockops ───── original moved to the accepted socket
//! app: getpeername() ─ getpeername4/6 ── the original
//! ```

#![no_std]
#![no_main]

mod connect;
mod connect4;
mod connect6;
mod getpeername4;
mod getpeername6;
mod lookup;
mod maps;
mod socket;
mod sockops;
mod verdict;

/// Nothing here can panic; the linker removes this, and the verifier refuses it if it does not.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends most helpers only to programs that say so; see LICENSE.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
