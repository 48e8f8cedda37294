//! The node proxy, a table of its rooms in flow order.

pub mod config;

pub mod pods;

pub mod capture;

pub mod pod;

pub mod outbound;

pub mod inbound;

pub mod hold;

pub mod connections;

pub mod telemetry;

pub mod admin;

pub mod readiness;

pub mod removal;

pub mod privilege;

pub mod app;

mod copying;
mod error;
mod reset;

#[cfg(test)]
mod testing;
