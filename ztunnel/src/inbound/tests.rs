//! A connection's future is what each open connection costs in memory beside its buffers.

use crate::capture::Captured;
use crate::outbound::Outbound;
use mesh::drain::Watch;
use mesh::hbone::Request;

use super::flow::Inbound;
use super::tunnel::Tunnel;
use super::{Hbone, Plaintext};

/// The size of what an async function returns.
fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn futures_on_the_connection_path_stay_small() {
    let hbone = size(|this: Hbone, captured: Captured, drain: Watch| this.carry(captured, drain));
    let plaintext =
        size(|this: Plaintext, captured: Captured, drain: Watch| this.carry(captured, drain));
    let outbound =
        size(|this: Outbound, captured: Captured, drain: Watch| this.carry(captured, drain));
    let request = size(
        |(this, drain): (Inbound, Watch), request: Request, tunnel: Tunnel| {
            this.request(request, tunnel, drain)
        },
    );
    for (name, size, most) in [
        ("outbound", outbound, 2048),
        (
            "HBONE connection with its TLS and HTTP/2 state",
            hbone,
            6144,
        ),
        ("HBONE request", request, 2304),
        ("plaintext", plaintext, 2048),
    ] {
        assert!(size <= most, "{name}: {size} bytes, more than {most}");
    }
}
