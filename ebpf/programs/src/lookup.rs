//! `sk_lookup`, attached to each captured pod's namespace: which listener takes a new connection.
//! The kernel asks only where no open connection matches, so open connections are never touched.
//! Each pod has an instance of its own, because the hook does not say where it runs.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup, sk_action};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use ebpf_contract::{Endpoint, Ip, Listeners, Reason, Tuple, port};

use crate::maps::{LISTENERS, ORIGINALS, SLOT, TRUSTED};
use crate::verdict::{Outcome, verdict};

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;

#[sk_lookup]
pub fn lookup(context: SkLookupContext) -> u32 {
    // Passing without a socket chosen is the kernel's own look-up; dropping answers with RST.
    verdict(choose(&context), sk_action::SK_PASS, sk_action::SK_DROP)
}

#[inline(always)]
fn choose(context: &SkLookupContext) -> Outcome {
    let Some(tuple) = tuple(context.lookup) else {
        return Ok(None);
    };
    // SAFETY: only whether there is an entry is looked at; the key says whose it is.
    if tuple.to.port() == port::OUTBOUND && unsafe { ORIGINALS.get(&tuple) }.is_some() {
        give(context, Listeners::Outbound)?;
        return Ok(None); // Counted when the pod called `connect`.
    }
    // SAFETY: as above.
    if unsafe { TRUSTED.get(&tuple) }.is_some() {
        return Ok(Some(Reason::Trusted));
    }
    if tuple.from.ip.same(&tuple.to.ip) || tuple.from.ip.is_loopback() {
        return Ok(None); // The pod calls itself; counted when it called `connect`.
    }
    if tuple.to.port() == port::HBONE {
        give(context, Listeners::Hbone)?;
        return Ok(Some(Reason::Hbone));
    }
    give(context, Listeners::Inbound)?;
    Ok(Some(Reason::Inbound))
}

/// Gives the connection to one of the pod's listeners. No other socket of the listener's
/// reuseport group may take it: an application could have joined that.
#[inline(always)]
fn give(context: &SkLookupContext, listener: Listeners) -> Result<(), Reason> {
    LISTENERS
        .redirect_sk_lookup(
            context,
            listener.index(SLOT.load()),
            BPF_SK_LOOKUP_F_NO_REUSEPORT.into(),
        )
        .map_err(|_| Reason::NoListener)
}

/// Who calls whom; `None` if it is not TCP. Every field is read before the first branch.
#[inline(always)]
fn tuple(context: *mut bpf_sk_lookup) -> Option<Tuple> {
    // SAFETY: the context is the kernel's; the fields are read whole.
    let (protocol, family, local4, remote4, local6, remote6, local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*context).protocol),
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
    if protocol != IPPROTO_TCP {
        return None;
    }
    let (local, remote) = if family == AF_INET {
        (Ip::v4(local4.to_ne_bytes()), Ip::v4(remote4.to_ne_bytes()))
    } else {
        (Ip::from_words(local6), Ip::from_words(remote6))
    };
    Some(Tuple {
        from: Endpoint::new(remote, u16::from_be(remote_port)),
        to: Endpoint::new(local, local_port as u16),
    })
}
