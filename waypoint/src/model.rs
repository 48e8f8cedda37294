//! The engine's model: a configuration in plain types of our own, compiled once per push from
//! Envoy's resources. No protobuf and no sockets: what intake writes and everything else reads. Only
//! `snapshot`, where the present configuration is found, knows of tasks that wait for the next one.

pub mod authz;
pub mod cluster;
pub mod endpoint;
pub mod expression;
pub mod format;
pub mod http;
pub mod jwt;
pub mod listener;
pub mod log;
pub mod policy;
pub mod rare;
pub mod rate_limit;
pub mod route;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod tls;
pub mod wasm;
