//! The L7 proxy, in the order a request meets it.
