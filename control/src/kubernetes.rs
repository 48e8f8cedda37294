//! The edge to the API server: watches in, token reviews out. Nothing else talks to it but the
//! writers of [`crate::ca`] and [`crate::status`].

pub mod review;
pub mod watch;
