//! The clients: blocking sockets of the standard library, one thing after the other.

pub mod get;
pub mod say;
