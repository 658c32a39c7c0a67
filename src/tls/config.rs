//! What a server offers its TLS clients.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{Error, ServerConfig};

use super::certificates::Certificates;

/// The cryptography. CONTRIBUTING tells why this one.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS 1.2 and 1.3 for HTTP/1.1, resumed by tickets whose keys change every six hours and are known to
/// this process alone.
///
/// # Errors
/// There is no randomness.
pub fn server(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // One connection is resumed from one ticket; browsers, which open several, get one with each.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
