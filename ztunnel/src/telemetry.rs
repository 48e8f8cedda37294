//! What the proxy says about itself: log lines, the access log, metrics.

pub mod log;
