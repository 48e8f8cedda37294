//! The stories of Culvert told on a real Kubernetes, once for both control planes: steps that a
//! test asserts and that the demo shows. Knows Kubernetes only through `kubectl` and `helm`, as a
//! user does; on a cluster of our own it also looks at what the nodes see.

pub mod aftermath;
pub mod bookstore;
pub mod control;
pub mod demo;
pub mod held;
pub mod http;
pub mod load;
pub mod mesh;
pub mod narrator;
pub mod node;
pub mod page;
pub mod process;
pub mod stage;
pub mod story;
pub mod until;
pub mod waypoint;
pub mod wire;

pub use control::Control;
pub use demo::{Options, demo};
pub use narrator::Narrator;
pub use stage::Stage;
