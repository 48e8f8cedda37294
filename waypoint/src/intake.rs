//! Envoy's resources → the engine's model. Pure: protobuf in, model or [`error::Refused`] out, and
//! [`served::Notes`] of what isn't served. Every message is taken apart field by field, so that a
//! field that is not served is a decision that stands in the code and in docs/envoy-support.md.

mod action;
mod alike;
mod answer;
mod authz;
pub mod chain;
mod client;
pub mod cluster;
pub mod endpoint;
pub mod error;
pub(crate) mod expression;
pub mod extension;
mod filter_state;
mod filters;
pub mod format;
mod hash;
mod headers;
mod http;
mod jwt;
pub mod listener;
pub mod log;
mod matcher;
mod matches;
pub mod metadata;
mod overrides;
pub mod plain;
mod ports;
mod protocol;
mod rate_limit;
pub mod rbac;
mod retry;
pub mod route;
pub mod secret;
pub mod served;
mod session;
mod stats;
mod tcp;
pub mod template;
pub mod text;
pub mod tls;
mod tracing;
mod tunnel;
pub mod typed;
mod wasm;
pub mod workload;
