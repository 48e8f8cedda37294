//! Delta xDS for node proxies and waypoints.
//!
//! The core knows no socket, task or clock: [`store::Store`] holds the resources and what changed
//! when, [`session::Session`] holds what one client asked for and has. [`hub`] shares the store,
//! [`fleet`] has one for each waypoint, [`service`] is the gRPC shell, [`codec`] writes shared bytes,
//! [`debug`] tells istioctl how far each client is.

pub mod codec;
pub mod debug;
pub mod fleet;
pub mod hub;
pub mod service;
pub mod session;
pub mod store;
