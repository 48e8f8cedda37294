//! HTTP on a connection: hyper speaks it, and each request goes through [`flow`], which reads top
//! to bottom. Routes and policies are looked up for each request anew, so that a push counts on
//! open connections too.

mod answer;
mod attempts;
pub(crate) mod authz;
mod body;
mod carried;
pub mod collector;
mod connection;
mod copied;
mod filters;
mod flight;
mod flow;
mod forward;
mod forwarded;
mod inbound;
pub mod jwks;
mod mirror;
mod own;
mod plugins;
mod raw;
mod replay;
mod reply;
mod request;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upgrade;
mod view;
mod web;

pub use body::{BodyError, RequestBody, ResponseBody};
pub use connection::{Version, serve};
