//! How many streams go to each next hop, whoever opened them: what balancing over the pods of a
//! waypoint looks at. Holds an entry only for hops that have a stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The streams of one pool, by next hop.
#[derive(Debug, Default)]
pub(super) struct Hops(Mutex<HashMap<SocketAddr, usize>>);

/// One stream, counted from its first attempt until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    hops: Arc<Hops>,
    hop: SocketAddr,
}

impl Hops {
    pub(super) fn count(self: &Arc<Self>, hop: SocketAddr) -> Counted {
        *self.0.lock().entry(hop).or_default() += 1;
        let hops = self.clone();
        Counted { hops, hop }
    }

    pub(super) fn streams(&self, hop: SocketAddr) -> usize {
        self.0.lock().get(&hop).copied().unwrap_or_default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut hops = self.hops.0.lock();
        if let Some(streams) = hops.get_mut(&self.hop) {
            *streams -= 1;
            if *streams == 0 {
                hops.remove(&self.hop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_known_while_it_has_a_stream() {
        let hops = Arc::new(Hops::default());
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let (one, two) = (hops.count(at(1)), hops.count(at(1)));
        let other = hops.count(at(2));
        assert_eq!((hops.streams(at(1)), hops.streams(at(2))), (2, 1));
        drop((one, other));
        assert_eq!((hops.streams(at(1)), hops.streams(at(2))), (1, 0));
        drop(two);
        assert!(hops.0.lock().is_empty());
    }
}
