//! What the proxy says about itself: log lines, the access log, metrics.

pub mod connection;
pub mod labels;
pub mod log;
pub mod metrics;
pub mod process;
pub mod readings;
mod traffic;
