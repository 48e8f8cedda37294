//! The L7 proxy, in the order a request meets it: configuration comes in (`intake`, `source`), is
//! kept as a `model`, and a request goes through its listener, decisions and upstream.

pub mod connection;
pub mod intake;
pub mod model;
pub mod proto;
pub mod source;
pub mod upstream;
