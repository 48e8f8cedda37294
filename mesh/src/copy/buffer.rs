//! Where TCP is read into: a buffer that starts small, grows with what arrives, and is given back
//! while nothing does.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The sizes, in bytes: for a request line, for a page, for a stream.
const SIZES: [usize; 3] = [1 << 10, 16 << 10, 256 << 10];
/// Large reads start at a page: the kernel copies to any other offset up to three times slower
/// (data-path-cost, "page offsets").
const PAGE: usize = 4096;
/// Small reads start at a cache line.
const LINE: usize = 64;

/// A growing buffer. What was read leaves as [`Bytes`] without being copied; the memory is used
/// again once those are gone.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// Which of `SIZES`.
    size: usize,
}

impl ReadBuffer {
    /// Room for the next read.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let size = SIZES[self.size];
        let align = if self.size == 0 { LINE } else { PAGE };
        let pad = |bytes: &mut BytesMut| {
            let start = bytes.spare_capacity_mut().as_ptr().addr();
            start.next_multiple_of(align) - start
        };
        let mut skip = pad(&mut self.bytes);
        // A quarter is worth a read; less is not.
        if self.bytes.capacity() < skip + size / 4 {
            self.bytes.reserve(size + align);
            skip = pad(&mut self.bytes);
        }
        self.bytes.put_bytes(0, skip);
        self.bytes.advance(skip);
        &mut self.bytes
    }

    /// The most that one read should take.
    pub(super) fn limit(&self) -> usize {
        SIZES[self.size]
    }

    /// What the last read put into [`room`](Self::room). A read that filled its room makes the
    /// next one larger, one that would have fitted a smaller buffer many times makes it smaller.
    pub(super) fn take(&mut self) -> Bytes {
        let chunk = self.bytes.split().freeze();
        let size = SIZES[self.size];
        let fits = if chunk.len() >= size {
            (self.size + 1).min(SIZES.len() - 1)
        } else if chunk.len() < size / 16 {
            self.size.saturating_sub(1)
        } else {
            self.size
        };
        if fits != self.size {
            *self = Self {
                bytes: BytesMut::new(),
                size: fits,
            };
        }
        chunk
    }

    /// Gives the memory back while nothing arrives: an idle connection holds none.
    pub(super) fn rest(&mut self) {
        self.bytes = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut ReadBuffer, count: usize) -> Bytes {
        let count = count.min(buffer.limit());
        let room = buffer.room();
        assert!(room.is_empty());
        room.put_bytes(7, count);
        buffer.take()
    }

    #[test]
    fn grows_only_when_reads_fill_it() {
        let mut buffer = ReadBuffer::default();
        assert_eq!(read(&mut buffer, 100).len(), 100);
        assert_eq!(buffer.limit(), 1 << 10);
        assert_eq!(read(&mut buffer, 1 << 20).len(), 1 << 10);
        assert_eq!(buffer.limit(), 16 << 10);
        assert_eq!(read(&mut buffer, 5000).len(), 5000);
        assert_eq!(buffer.limit(), 16 << 10);
        assert_eq!(read(&mut buffer, 1 << 20).len(), 16 << 10);
        assert_eq!(read(&mut buffer, 1 << 20).len(), 256 << 10);
        assert_eq!(buffer.limit(), 256 << 10);
    }

    #[test]
    fn shrinks_when_little_arrives() {
        let mut buffer = ReadBuffer {
            size: 2,
            ..ReadBuffer::default()
        };
        read(&mut buffer, 16 << 10);
        assert_eq!(buffer.limit(), 256 << 10);
        read(&mut buffer, 100);
        assert_eq!(buffer.limit(), 16 << 10);
        read(&mut buffer, 100);
        read(&mut buffer, 10);
        assert_eq!(buffer.limit(), 1 << 10);
    }

    #[test]
    fn large_reads_start_at_a_page_and_find_a_quarter_free() {
        let mut buffer = ReadBuffer {
            size: 2,
            ..ReadBuffer::default()
        };
        for count in [
            256 << 10,
            20_000,
            60_001,
            100_000,
            256 << 10,
            17_000,
            17_001,
        ] {
            let room = buffer.room();
            assert_eq!(room.spare_capacity_mut().as_ptr().addr() % PAGE, 0);
            assert!(room.capacity() >= 64 << 10);
            let count = count.min(room.capacity());
            room.put_bytes(1, count);
            assert_eq!(buffer.take().len(), count);
        }
    }

    #[test]
    fn memory_is_used_again_once_the_chunk_is_gone() {
        let mut buffer = ReadBuffer {
            size: 2,
            ..ReadBuffer::default()
        };
        let first = read(&mut buffer, 256 << 10).as_ptr();
        assert_eq!(read(&mut buffer, 256 << 10).as_ptr(), first);
    }

    #[test]
    fn at_rest_it_holds_nothing() {
        let mut buffer = ReadBuffer::default();
        drop(read(&mut buffer, 10));
        assert!(buffer.bytes.capacity() > 0);
        buffer.rest();
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}
