//! How much a tunnel may make us hold, for the two who end tunnels: a node proxy, which forwards
//! bytes as they come, and a waypoint, which speaks HTTP in many streams and has a tenth of the
//! memory.

/// What one connection and its streams may take, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that a peer may send on one stream before we have passed them on.
    pub stream_window: u32,
    /// Bytes that a peer may send on one connection before we have passed them on: the bound of
    /// what one connection can make us hold.
    pub connection_window: u32,
    /// Bytes of a stream that may wait for the connection on our side.
    pub send_buffer: usize,
    /// Streams at the same time on a connection that we accept.
    pub accepted_streams: u32,
    /// Streams at the same time on a connection that we made, before another one is made. A peer
    /// that accepts fewer is taken at its word.
    pub pooled_streams: usize,
}

impl Limits {
    /// A node proxy's. With a stream window of 64 KiB, HTTP/2's default, throughput is a quarter of
    /// what it is with 4 MiB (data-path-cost).
    pub const NODE: Self = Self {
        stream_window: 4 << 20,
        connection_window: 16 << 20,
        send_buffer: 1 << 20,
        accepted_streams: 200,
        pooled_streams: 100,
    };

    /// A waypoint's. 64 bodies that nobody reads hold at most 64 × (256 + 64) KiB = 20 MiB on each
    /// side, and 256 KiB in a round trip of 1 ms are still 2 Gbit/s for one stream. The connection
    /// window has room for all of them, so that one slow reader doesn't hold up the other streams.
    /// A node proxy opens another connection for its 101st stream; whoever does not gets a thousand.
    pub const WAYPOINT: Self = Self {
        stream_window: 256 << 10,
        connection_window: 16 << 20,
        send_buffer: 64 << 10,
        accepted_streams: 1000,
        pooled_streams: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NODE
    }
}
