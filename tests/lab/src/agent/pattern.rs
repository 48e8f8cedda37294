//! Bytes whose place can be told: a block of 1,000,003 pseudo-random bytes, repeated. Its length
//! is prime, so bytes that are lost, doubled or moved never compare equal; comparing each byte is
//! stronger than a checksum and, being `memcmp`, cheaper.

use std::sync::OnceLock;

const LENGTH: usize = 1_000_003;

/// The block, made once.
fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut bytes = Vec::with_capacity(LENGTH);
        for _ in 0..LENGTH {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state.to_le_bytes()[3]);
        }
        bytes
    })
}

/// A run of the pattern that starts at `position`, at most `limit` bytes; at least one when
/// `limit` is not 0.
#[must_use]
pub fn run(position: u64, limit: u64) -> &'static [u8] {
    let block = block();
    let start = offset(position);
    let length = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(block.len() - start);
    &block[start..start + length]
}

fn offset(position: u64) -> usize {
    usize::try_from(position % LENGTH as u64).unwrap_or(0)
}

/// Compares what arrives with what should.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    position: u64,
    intact: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            position: 0,
            intact: true,
        }
    }
}

impl Check {
    /// Takes the next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = run(self.position, bytes.len() as u64);
            let (now, rest) = bytes.split_at(expected.len());
            self.intact &= now == expected;
            self.position += now.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.position
    }

    /// Whether all of them were right.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.intact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(from: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let at = from + bytes.len() as u64;
            bytes.extend_from_slice(run(at, (length - bytes.len()) as u64));
        }
        bytes
    }

    #[test]
    fn the_right_bytes_pass_in_any_pieces() {
        let bytes = pattern(0, 2_500_000);
        let mut check = Check::default();
        for piece in bytes.chunks(7_777) {
            check.take(piece);
        }
        assert!(check.intact());
        assert_eq!(check.bytes(), 2_500_000);
    }

    #[test]
    fn a_lost_block_a_doubled_byte_and_a_flipped_bit_are_noticed() {
        let bytes = pattern(0, 200_000);
        let lost: Vec<u8> = [&bytes[..16_384], &bytes[32_768..]].concat();
        let doubled: Vec<u8> = [&bytes[..10], &bytes[9..]].concat();
        let mut flipped = bytes.clone();
        flipped[199_999] ^= 1;
        for wrong in [lost, doubled, flipped] {
            let mut check = Check::default();
            check.take(&wrong);
            assert!(!check.intact());
        }
    }
}
