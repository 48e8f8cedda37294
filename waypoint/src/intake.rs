//! Envoy's resources → the engine's model. Pure: protobuf in, model or [`error::Refused`] out, and
//! [`served::Notes`] of what isn't served. Every message is taken apart field by field, so that a
//! field that is not served is a decision that stands in the code and in docs/envoy-support.md.

pub mod error;
pub mod plain;
pub mod served;
pub mod text;
pub mod tls;
pub mod typed;
