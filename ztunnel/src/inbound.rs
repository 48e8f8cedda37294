//! Connections to this node's pods: in an HBONE tunnel with a proven identity, or in plain text
//! without one. Both are decided over before a byte reaches the application, and the application
//! sees the client's true address.

mod authority;
mod flow;
mod plaintext;
mod tunnel;

pub use plaintext::Plaintext;
pub use tunnel::Hbone;

#[cfg(test)]
mod tests;
