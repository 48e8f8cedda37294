//! Addresses for hosts of ServiceEntries that have none, so that a node proxy's DNS can answer and its
//! connections can be told apart: out of Istio's own ranges (240.240.0.0/16, 2001:2::/48), by a hash
//! of the name, so that replicas come to the same before either has written it down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses in the range that end neither in 0 nor in 255.
const SLOTS: u32 = 256 * 254;
/// The largest prime below it: any step that it leaves reaches every slot.
const PRIME: u32 = 65_011;

/// The addresses that a name may have, the first that is free: of version 4 and of version 6.
pub fn candidates(name: &str) -> impl Iterator<Item = [IpAddr; 2]> {
    let hash = fnv(name.as_bytes());
    let step = PRIME - hash % PRIME;
    (0..SLOTS).map(move |turn| {
        let slot = (u64::from(hash) + u64::from(turn) * u64::from(step)) % u64::from(SLOTS);
        // Below SLOTS: both parts fit.
        let (third, fourth) = ((slot / 254) as u8, (slot % 254 + 1) as u8);
        let low = u16::from_be_bytes([third, fourth]);
        [
            Ipv4Addr::new(240, 240, third, fourth).into(),
            Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xf0f0, low).into(),
        ]
    })
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_led_to_every_address_and_keeps_its_first() {
        let all: BTreeSet<[IpAddr; 2]> = candidates("n/a.test").collect();
        assert_eq!(all.len(), SLOTS as usize);
        assert!(all.iter().all(|[four, _]| {
            let IpAddr::V4(four) = four else { return false };
            four.octets()[..2] == [240, 240] && !matches!(four.octets()[3], 0 | 255)
        }));
        assert_eq!(candidates("n/a.test").next(), candidates("n/a.test").next());
        assert_ne!(candidates("n/a.test").next(), candidates("n/b.test").next());
    }
}
