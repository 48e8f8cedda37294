//! The data path end to end: real ztunnel processes on the lab's nodes, real sockets, mutual TLS
//! and kernel programs. A chapter a module, a sentence a test.
#![allow(clippy::unwrap_used)] // All of it is tests: a panic is the report, in helpers too.

mod bytes;
mod capture;
mod enrolment;
mod faults;
mod identity;
mod networks;
mod policies;
mod process;
mod services;
mod story;
mod telemetry;
mod waypoint;
