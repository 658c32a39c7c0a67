//! What makes `serve` and `thank` a daemon (daemon(7)): the process around its loops. Its flags; what is
//! bound, or was passed by a service manager or a predecessor; what is told to either; what the process
//! may still do.

pub(crate) mod activation;
pub mod address;
pub mod args;
pub(crate) mod greeting;
pub mod listeners;
pub mod sandbox;
pub(crate) mod service_manager;
pub(crate) mod sources;
pub(crate) mod succession;
pub(crate) mod tls;
pub(crate) mod unix_socket;
pub(crate) mod workers;
