//! Which route takes a request, and what it makes of it. Pure: the table and the request's head go
//! in, a choice comes out; randomness and time are arguments. The order in which a flow uses it:
//! [`select`] finds the route, [`split`] its cluster, [`timeout`] and [`retry`] how it is tried,
//! [`headers`], [`rewrite`] and [`hash`] what is sent where; [`redirect`] answers instead.

pub mod hash;
pub mod headers;
pub mod redirect;
pub mod retry;
pub mod rewrite;
pub mod select;
pub mod split;
pub mod timeout;

pub use select::{Ask, Found, Picked, find, index, route_matches};
