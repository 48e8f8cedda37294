//! Capture on the running kernel, in network namespaces, a cgroup and a bpffs of this process's
//! own. Needs root. Each test has a world to itself; see `world.rs`.

#![allow(clippy::unwrap_used)] // A panic is the report; clippy sees helpers as no tests.

mod checks;
mod inbound;
mod lifetime;
mod outbound;
mod pod;
mod probes;
mod restart;
mod world;
