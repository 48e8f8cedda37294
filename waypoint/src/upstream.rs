//! Upstream: from "this request goes to that cluster" to an answer. Which endpoint (`balance`,
//! `outlier`), whether there is room (`breakers`), over which connection (`pool`) and how that is
//! made (`connect`). Knows nothing of listeners, routes or retries: a caller hands in what its flow
//! knows as a [`Choice`] and gets an answer, or a [`Failure`] that says whether trying again is safe.
//!
//! [`Shared`] is one per process and holds what workers must agree on, as atomics. [`Upstreams`] is
//! one per worker and holds its connections and balancers, without a lock.

mod answer;
mod balance;
mod breakers;
mod choice;
mod cluster;
mod connect;
mod failure;
mod head;
mod names;
mod outlier;
mod pool;
mod shared;
#[cfg(test)]
mod test_rig;
#[cfg(test)]
mod tests;
mod upstreams;

pub use answer::{Connected, Place, Received, Sent};
pub use choice::{Choice, Connection, Reached, Session};
pub use connect::{Identified, Io, TlsConfigs};
pub use failure::{Failure, FailureKind, Refused, Reset};
pub use pool::RequestBody;
pub use shared::{Fare, Load, RetryPlace, Shared};
pub use upstreams::Upstreams;
