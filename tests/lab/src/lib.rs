//! The lab: nodes and pods as network namespaces, in milliseconds, with ztunnel as a real process,
//! a throw-away certificate authority, workloads from a file and pods announced over ZDS. Nothing
//! is imitated but Kubernetes itself. Rooms in the order they are stacked:
//!
//! | room | is |
//! |---|---|
//! | [`addresses`], [`netns`], [`links`], [`wiring`] | the network |
//! | [`process`], [`leftovers`], [`patience`] | what runs, what must go, what is waited for |
//! | [`agent`], [`workload`] | what a pod's workload does, and a test's handle to it |
//! | [`ca`], [`document`], [`zds`] | what ztunnel is told, over its real protocols |
//! | [`ztunnel`], [`node`], [`pod`] | the parts of a lab |
//! | [`world`] | the lab itself |
//! | [`bench`] | what it costs |
//! | [`sniff`], [`peer`], [`log`], [`metrics`], [`http`] | looking and poking |

pub mod addresses;
pub mod agent;
pub mod bench;
mod build;
pub mod ca;
pub mod document;
pub mod http;
mod janitor;
pub mod leftovers;
pub mod links;
pub mod log;
pub mod metrics;
pub mod netns;
pub mod node;
pub mod patience;
pub mod peer;
pub mod pod;
pub mod process;
pub mod sniff;
pub mod standin;
pub mod wiring;
pub mod workload;
pub mod world;
pub mod zds;
pub mod ztunnel;

pub use agent::orders::{Direction, End, Plan, Verdict};
pub use build::Builder;
pub use pod::Pod;
pub use world::Lab;
