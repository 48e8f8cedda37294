//! The L7 proxy, in the order a request meets it: configuration comes in (`intake`, `source`), is
//! kept as a `model`, and a request goes through its listener, decisions and upstream.

pub mod admin;
pub mod app;
pub mod authz;
pub mod config;
pub mod connection;
pub mod cors;
pub mod expression;
pub mod fault;
pub mod grpc;
pub mod head;
pub mod http;
pub mod intake;
pub mod jwt;
pub mod listen;
pub mod log;
pub mod model;
pub mod path;
pub mod policy;
pub mod proto;
pub mod rate_limit;
pub mod route;
pub mod source;
pub mod tcp;
pub mod telemetry;
pub mod upstream;
pub mod wasm;
pub mod worker;
