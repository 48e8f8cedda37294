//! The lines that `hold` and `echo` exchange, and the checksum by which a lost, doubled, swapped or
//! changed byte shows: both ends sum everything that ever went over the connection.

/// FNV-1a of everything added, 64 bits: enough against accidents, and three lines long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds `bytes`, in order.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What `echo` answers to the line that is the `number`th (from 1) with `sum` of all lines so far.
pub(crate) fn reply(number: u64, sum: Sum) -> String {
    format!("{number} {sum}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(parts: &[&[u8]]) -> String {
        let mut sum = Sum::new();
        parts.iter().for_each(|part| sum.add(part));
        sum.to_string()
    }

    #[test]
    fn the_sum_is_of_the_bytes_and_their_order_not_of_how_they_came() {
        // The published value of FNV-1a 64 for "foobar".
        assert_eq!(sum(&[b"foobar"]), "85944171f73967e8");
        assert_eq!(sum(&[b"foo", b"bar"]), sum(&[b"foobar"]));
        assert_ne!(sum(&[b"bar", b"foo"]), sum(&[b"foobar"]));
    }
}
