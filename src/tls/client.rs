//! What a client needs for TLS: whom it trusts, the beginning of a connection, and what is wrong with a
//! server's certificate, in words.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    Resumption, UnbufferedClientConnection, WebPkiServerVerifier, verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, RootCertStore, SignatureScheme,
};

use super::certificates;
use super::config::provider;
use super::session::Fault;
use crate::escape::{Escaped, EscapedText};

/// What HTTP is called in a hello: RFC 7301, 6.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// What is said where nothing is checked.
pub const INSECURE: &str =
    "--insecure: no server's certificate is checked; anybody may have sent what comes";

/// Begins a client's connections. All of them share what they know of sessions to resume.
#[derive(Debug)]
pub struct Connector {
    trust: Trust,
    resumes: bool,
    /// The system's authorities are read when the first connection wants them.
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// Who may sign for a server.
#[derive(Clone, Debug)]
enum Trust {
    System,
    Named(Vec<CertificateDer<'static>>),
    Anybody,
}

impl Connector {
    /// Trusts who is in this PEM file; without one, the system's authorities; or whoever answers.
    ///
    /// # Errors
    /// What is wrong with the file, which is named.
    pub fn new(authorities: Option<&Path>, is_insecure: bool) -> Result<Self, String> {
        let trust = match authorities {
            _ if is_insecure => Trust::Anybody,
            None => Trust::System,
            Some(path) => {
                let wont_do = |why: &dyn Display| {
                    let path = Escaped(path.as_os_str().as_encoded_bytes());
                    format!("'{path}' won't do: {why}")
                };
                let named = certificates::read_chain(path).map_err(|why| wont_do(&why))?;
                roots(named.clone()).map_err(|why| wont_do(&why))?;
                Trust::Named(named)
            }
        };
        Ok(Self {
            trust,
            resumes: true,
            config: OnceLock::new(),
        })
    }

    /// Whether any certificate will do.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        matches!(self.trust, Trust::Anybody)
    }

    /// What connections are configured with.
    ///
    /// # Errors
    /// The system has no authorities.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let config = || configure(&self.trust, self.resumes).map(Arc::new);
        self.config.get_or_init(config).clone()
    }

    /// Resumes no session: each handshake is a full one.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        self.resumes = false;
        self
    }

    /// As [`Connector::connect`], for one that doesn't block.
    ///
    /// # Errors
    /// As there.
    pub fn connect_unbuffered(
        &self,
        host: &str,
        protocol: Option<&[u8]>,
    ) -> Result<UnbufferedClientConnection, String> {
        let (config, name) = (self.config()?, server_name(host)?);
        let protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        UnbufferedClientConnection::new_with_alpn(config, name, protocols)
            .map_err(|error| error.to_string())
    }

    /// Begins a connection that blocks, to a host by its name or address, for a protocol by its name in
    /// ALPN if it has one. Nothing is sent yet.
    ///
    /// # Errors
    /// The host can have no certificate, or the system has no authorities.
    pub fn connect(&self, host: &str, protocol: Option<&[u8]>) -> Result<ClientConnection, String> {
        let (config, name) = (self.config()?, server_name(host)?);
        let protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        ClientConnection::new_with_alpn(config, name, protocols).map_err(|error| error.to_string())
    }
}

/// The name that a certificate must have for a host. An address has no SNI (RFC 6066, 3), and the link
/// that it is on is nobody's but ours.
///
/// # Errors
/// No certificate can be for it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let without_zone = host.split('%').next().unwrap_or(host);
    ServerName::try_from(without_zone.to_owned()).map_err(|_| {
        let host = Escaped(host.as_bytes());
        format!("'{host}' can't be a name in a certificate")
    })
}

fn configure(trust: &Trust, resumes: bool) -> Result<ClientConfig, String> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => chain_verifier(system_roots()?, &provider)?,
        Trust::Named(named) => Arc::new(NamedVerifier {
            chains: chain_verifier(roots(named.clone())?, &provider)?,
            named: named.clone(),
        }),
        Trust::Anybody => Arc::new(NoVerifier(Arc::clone(&provider))),
    };
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

fn chain_verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| format!("it takes certificates in PEM ({error})"))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let line = "this system has no authorities to trust (Debian's package is ca-certificates); \
                    --cacert FILE names one";
        return Err(line.into());
    }
    Ok(roots)
}

/// As webpki's, and takes a certificate that was named itself. Those that `openssl req -x509` makes are
/// an authority's and a server's in one, which webpki refuses.
#[derive(Debug)]
struct NamedVerifier {
    chains: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chains.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.named.contains(end_entity) =>
            {
                let (begins, ends) = certificates::validity(end_entity)
                    .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
                let time = UNIX_EPOCH + Duration::from_secs(now.as_secs());
                if time < begins {
                    return Err(CertificateError::NotValidYet.into());
                }
                if time > ends {
                    return Err(CertificateError::Expired.into());
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why two sides can't speak TLS with each other. The same would happen again.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it is the certificate.
    pub is_certificate: bool,
    /// One line, and what to do.
    pub line: String,
}

impl Refusal {
    /// That of an error of a connection, if TLS is what failed.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?;
        let fault = error.downcast_ref().map(|Fault(error)| error);
        let error = error.downcast_ref().or(fault)?;
        let is_certificate = matches!(
            error,
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented
        );
        let line = match error {
            Error::InvalidCertificate(why) => certificate_refusal(why),
            Error::InvalidMessage(_) => "what the server says is no TLS".into(),
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "the server wants a certificate of its clients, and there is none here".into()
            }
            Error::AlertReceived(alert) => format!("the server refuses: {alert:?}"),
            other => other.to_string(),
        };
        Some(Self {
            is_certificate,
            line: EscapedText(&line).to_string(),
        })
    }
}

fn certificate_refusal(why: &CertificateError) -> String {
    const UNCHECKED: &str = "--insecure takes it unchecked";
    match why {
        CertificateError::Expired => {
            format!("the server's certificate has expired; {UNCHECKED}")
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let ended = date(*not_after);
            format!("the server's certificate has expired: it ended {ended}; {UNCHECKED}")
        }
        CertificateError::NotValidYet => {
            format!("the server's certificate is not valid yet; {UNCHECKED}")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (begins, now) = (date(*not_before), date(*time));
            format!(
                "the server's certificate is not valid yet: it begins {begins}, and here it is {now}; \
                 {UNCHECKED}"
            )
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            let names = match &names[..] {
                [] => "no name".to_owned(),
                names => names.join(", "),
            };
            format!(
                "the server's certificate is for {names}, not for {expected}; {UNCHECKED}"
            )
        }
        // Two authorities of one name are told apart by the signature alone.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted here has signed the server's certificate; --cacert FILE names whom \
             to trust, --insecure takes it unchecked"
                .into()
        }
        other => format!("the server's certificate won't do: {other}; {UNCHECKED}"),
    }
}

/// rustls writes names of certificates as `DnsName("a")` and `IpAddress(...)`.
fn plain_name(name: &str) -> &str {
    let inner = name
        .strip_prefix("DnsName(\"")
        .and_then(|rest| rest.strip_suffix("\")"));
    inner.unwrap_or(name)
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(
        || "at an impossible time".into(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_name_in_its_certificate() {
        for (host, name) in [
            ("files.lan", "files.lan"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("a_b.lan", "a_b.lan"),
        ] {
            assert_eq!(server_name(host).unwrap().to_str(), name);
        }
        for host in ["", "-", "a b", "%E6%8E%A5.example", "a..b"] {
            assert!(server_name(host).is_err(), "{host}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_one_line() {
        let wrapped = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for (error, expected) in [
            (
                CertificateError::ExpiredContext {
                    time: at(86_400),
                    not_after: at(0),
                },
                "it ended 1970-01-01 00:00 UTC",
            ),
            (
                CertificateError::NotValidYetContext {
                    time: at(0),
                    not_before: at(60),
                },
                "it begins 1970-01-01 00:01 UTC, and here it is 1970-01-01 00:00 UTC",
            ),
            (
                CertificateError::NotValidForNameContext {
                    expected: server_name("::1").unwrap(),
                    presented: vec!["DnsName(\"a.lan\")".into(), "IpAddress(1)".into()],
                },
                "is for a.lan, IpAddress(1), not for ::1",
            ),
            (CertificateError::UnknownIssuer, "--cacert FILE"),
            (CertificateError::BadSignature, "--cacert FILE"),
            (CertificateError::Revoked, "won't do"),
        ] {
            let refusal = Refusal::of(&wrapped(error.into())).unwrap();
            assert!(refusal.is_certificate);
            assert!(refusal.line.contains(expected), "{}", refusal.line);
            assert!(refusal.line.contains("--insecure"), "{}", refusal.line);
        }
        assert_eq!(Refusal::of(&io::Error::other("a broken pipe")), None);
        let alert = Error::AlertReceived(AlertDescription::ProtocolVersion);
        assert!(!Refusal::of(&wrapped(alert)).unwrap().is_certificate);
    }
}
