//! The layouts are frozen here: sizes and offsets are asserted when either side is compiled, and
//! folded into one number that names the folder of the pins. Programs and maps of different
//! layouts therefore never meet.

use core::mem::{align_of, offset_of, size_of};

use crate::address::{Endpoint, Ip, Tuple};
use crate::maps::{Listeners, MAX_ADDRESSES, MAX_HANDSHAKES, MAX_PODS, Pod, Settings, Stored};
use crate::reason::Reason;

/// Raised by hand when a meaning changes and no size does.
const REVISION: u32 = 1;

/// The number of this layout. Different numbers never share a map.
pub const ABI: u32 = {
    let numbers = [
        REVISION,
        size_of::<Pod>() as u32,
        size_of::<Tuple>() as u32,
        size_of::<Stored>() as u32,
        size_of::<Settings>() as u32,
        MAX_PODS,
        MAX_ADDRESSES,
        MAX_HANDSHAKES,
        Listeners::MAX,
        Reason::COUNT,
    ];
    // FNV-1a.
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < numbers.len() {
        let bytes = numbers[i].to_le_bytes();
        let mut j = 0;
        while j < bytes.len() {
            hash = (hash ^ bytes[j] as u32).wrapping_mul(0x0100_0193);
            j += 1;
        }
        i += 1;
    }
    hash
};

const _: () = {
    assert!(size_of::<Ip>() == 16 && align_of::<Ip>() == 4);
    assert!(size_of::<Endpoint>() == 20 && offset_of!(Endpoint, port) == 16);
    assert!(size_of::<Tuple>() == 40 && offset_of!(Tuple, to) == 20);
    assert!(size_of::<Pod>() == 36 && align_of::<Pod>() == 4);
    assert!(offset_of!(Pod, v6) == 16);
    assert!(offset_of!(Pod, slot) == 32);
    assert!(size_of::<Stored>() == 24 && offset_of!(Stored, kind) == 20);
    assert!(size_of::<Settings>() == 16 && offset_of!(Settings, kubepods) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Padding would be uninitialised bytes, in keys that the kernel compares as bytes.
    #[test]
    fn no_type_has_padding() {
        assert_eq!(size_of::<Endpoint>(), size_of::<Ip>() + 2 + 2);
        assert_eq!(size_of::<Tuple>(), 2 * size_of::<Endpoint>());
        assert_eq!(size_of::<Pod>(), 2 * size_of::<Ip>() + 4);
        assert_eq!(size_of::<Stored>(), size_of::<Endpoint>() + 4);
        assert_eq!(size_of::<Settings>(), 8 + 8);
    }

    /// Slots do not overlap, and the last one is inside the map.
    #[test]
    fn listeners_have_a_place_each() {
        assert_eq!(Listeners::Hbone.index(0) + 1, Listeners::Outbound.index(1));
        assert_eq!(Listeners::Hbone.index(MAX_PODS - 1) + 1, Listeners::MAX);
    }

    /// A changed number here means that a running node's pins are replaced, not adopted: mean it.
    #[test]
    fn the_abi_is_the_one_we_know() {
        assert_eq!(ABI, 0x2ab2_4aa6, "{ABI:#010x}");
    }
}
