//! What carafe can serve. Services know bytes, names and files; never sockets.

pub mod bare;
mod beneath;
pub mod cache;
pub mod folders;
pub mod http;
pub mod metrics;
pub mod root;
pub mod thanks;
