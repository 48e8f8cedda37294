//! The node proxy, a table of its rooms in flow order.

pub mod capture;
