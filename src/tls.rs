//! TLS by rustls, between a connection and its socket. A connection knows nothing of it: it has a
//! [`transport::TlsTransport`], which is as plain as its client, and speaks TLS with one whose first byte says so.
//!
//! rustls does the protocol, its unbuffered interface leaves the buffers to us: records are decrypted in
//! the loop's own, and what is kept for a connection is what a record half there, a reader who takes less
//! than has come, or a full socket leaves. An idle one keeps none of them.

pub mod certificates;
pub mod client;
pub mod config;
pub mod session;
pub mod transport;
