//! The node proxy, a table of its rooms in flow order.

pub mod config;

pub mod pods;

pub mod capture;

pub mod connections;

pub mod http;
pub mod privilege;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
