//! What was read and is not yet written, in order.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Chunks smaller than this are joined while something else waits. A writer of single bytes to a
/// reader that has stopped would otherwise cost a frame's memory for each byte, and `h2` ends a
/// connection on which too many tiny frames lie unread.
const SMALL: usize = 4 << 10;
/// Joined chunks up to this size.
const JOINED: usize = 64 << 10;
/// Slices of one write.
pub(super) const SLICES: usize = 16;

/// Chunks in order. It has no bound of its own: who fills it has.
#[derive(Debug, Default)]
pub(super) struct Queue {
    chunks: VecDeque<Bytes>,
    /// Small chunks that came after `chunks`.
    joined: BytesMut,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        let first = self.is_empty();
        self.len += chunk.len();
        if !first && chunk.len() < SMALL {
            self.joined.extend_from_slice(&chunk);
            if self.joined.len() >= JOINED {
                self.seal();
            }
        } else {
            self.seal();
            self.chunks.push_back(chunk);
        }
    }

    /// The first bytes for a vectored write.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let joined = (!self.joined.is_empty()).then_some(&self.joined[..]);
        let all = self.chunks.iter().map(|chunk| &chunk[..]).chain(joined);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Forgets the first `count` bytes: they are written.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
        self.joined.advance(count);
    }

    /// Takes the first chunk, or at most `count` bytes of it.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        if self.chunks.is_empty() {
            self.seal();
        }
        let Some(chunk) = self.chunks.front_mut() else {
            return Bytes::new();
        };
        let taken = if count < chunk.len() {
            chunk.split_to(count)
        } else {
            self.chunks.pop_front().unwrap_or_default()
        };
        self.len -= taken.len();
        taken
    }

    /// Length of what [`take`](Self::take) would give at most.
    pub(super) fn first_len(&self) -> usize {
        self.chunks.front().map_or(self.joined.len(), Bytes::len)
    }

    fn seal(&mut self) {
        if !self.joined.is_empty() {
            self.chunks.push_back(self.joined.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tiny_chunks_are_joined_while_others_wait() {
        let mut queue = Queue::default();
        for _ in 0..100_000 {
            queue.push(Bytes::from_static(b"x"));
        }
        assert_eq!(queue.len(), 100_000);
        assert!(queue.chunks.len() <= 3, "{} chunks", queue.chunks.len());
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push(usize),
        Advance(usize),
        Take(usize),
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(ops in prop::collection::vec(prop_oneof![
            (1usize..10_000).prop_map(Op::Push),
            (0usize..20_000).prop_map(Op::Advance),
            (1usize..20_000).prop_map(Op::Take),
        ], 0..60)) {
            let (mut queue, mut model, mut next) = (Queue::default(), VecDeque::<u8>::new(), 0u8);
            for op in ops {
                match op {
                    Op::Push(count) => {
                        let chunk: Vec<u8> = (0..count).map(|_| { next = next.wrapping_mul(31).wrapping_add(7); next }).collect();
                        model.extend(&chunk);
                        queue.push(chunk.into());
                    }
                    Op::Advance(count) => {
                        let mut slices = [IoSlice::new(&[]); SLICES];
                        let filled = queue.slices(&mut slices);
                        let seen: Vec<u8> = slices[..filled].iter().flat_map(|s| s.iter().copied()).collect();
                        let count = count.min(seen.len());
                        prop_assert!(seen[..count].iter().eq(model.iter().take(count)));
                        queue.advance(count);
                        model.drain(..count);
                    }
                    Op::Take(count) => {
                        let most = queue.first_len();
                        let taken = queue.take(count);
                        prop_assert_eq!(taken.len(), most.min(count));
                        prop_assert!(taken.iter().eq(model.iter().take(taken.len())));
                        model.drain(..taken.len());
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
