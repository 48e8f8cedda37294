//! The stories of Culvert told on a real Kubernetes, once for both control planes: steps that a
//! test asserts and that the demo shows. Knows Kubernetes only through `kubectl` and `helm`, as a
//! user does.

pub mod control;
pub mod demo;

pub use control::Control;
pub use demo::{Options, demo};
