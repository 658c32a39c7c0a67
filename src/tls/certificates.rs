//! The certificates of `serve`: pairs of files, which of them a client gets, when they end, and how they
//! are read anew.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;

use crate::escape::Escaped;
use crate::limits::TLS_EXPIRY_WARNING;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// PEM: the certificate, and those between it and one that clients trust.
    pub certificate: PathBuf,
    /// PEM: its private key, as PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
}

/// A pair that was read.
#[derive(Debug)]
struct Pair {
    /// The certificate's path, for those who read about it.
    name: String,
    certified: Arc<CertifiedKey>,
    ends: SystemTime,
}

/// Why a file won't do.
#[derive(Debug)]
pub struct BadPair {
    /// Whether it is the key's file.
    pub is_key: bool,
    /// The file.
    pub path: PathBuf,
    /// What a flag for it takes, and what this one has.
    pub why: String,
}

impl Display for BadPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Escaped(self.path.as_os_str().as_encoded_bytes());
        write!(f, "'{path}' won't do: {}", self.why)
    }
}

impl Pair {
    fn read(files: &PairFiles, provider: &CryptoProvider) -> Result<Self, BadPair> {
        let bad = |is_key: bool, why: String| BadPair {
            is_key,
            path: if is_key {
                &files.key
            } else {
                &files.certificate
            }
            .clone(),
            why,
        };
        let name = Escaped(files.certificate.as_os_str().as_encoded_bytes()).to_string();
        let chain = read_chain(&files.certificate).map_err(|why| bad(false, why))?;
        let key = read_key(&files.key).map_err(|why| bad(true, why))?;
        let unreadable = |what: &dyn Display| format!("it takes a certificate in PEM ({what})");
        let first = chain.first().expect("a chain has a certificate");
        let (_, ends) = validity(first).map_err(|error| bad(false, unreadable(&error)))?;
        ParsedCertificate::try_from(first).map_err(|error| bad(false, unreadable(&error)))?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| bad(true, format!("it takes the key of '{name}' ({error})")))?;
        Ok(Self {
            name,
            certified: Arc::new(certified),
            ends,
        })
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let first = self.certified.cert.first();
        let parsed = first.and_then(|first| ParsedCertificate::try_from(first).ok());
        parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }

    fn can_sign_for(&self, hello: &ClientHello<'_>) -> bool {
        let schemes = hello.signature_schemes();
        self.certified.key.choose_scheme(schemes).is_some()
    }
}

/// The certificates of a PEM file, one at least.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let takes =
        |error: &dyn Display| format!("it takes a file with a certificate in PEM ({error})");
    let chain =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| takes(&PemError(error)))?;
    if chain.is_empty() {
        return Err(takes(&PemError(pem::Error::NoItemsFound)));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let error = PemError(error);
        format!("it takes a file with a private key in PEM, without a passphrase ({error})")
    })
}

/// An error of reading PEM, in words for people.
struct PemError(pem::Error);

impl Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            pem::Error::Io(error) => error.fmt(f),
            pem::Error::NoItemsFound => f.write_str("there is none in it"),
            error => error.fmt(f),
        }
    }
}

/// When a certificate begins and ends: its notBefore and notAfter (RFC 5280, 4.1.2.5).
pub(super) fn validity(
    certificate: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), x509_cert::der::Error> {
    let certificate = x509_cert::Certificate::from_der(certificate)?;
    let validity = certificate.tbs_certificate.validity;
    let (begins, ends) = (validity.not_before, validity.not_after);
    Ok((begins.to_system_time(), ends.to_system_time()))
}

/// The pairs of a server, and the choice among them. All loops share them.
#[derive(Debug)]
pub struct Certificates {
    files: Vec<PairFiles>,
    provider: Arc<CryptoProvider>,
    pairs: RwLock<Arc<[Pair]>>,
    /// Whoever reads them anew does so after those who began before.
    reading: Mutex<()>,
}

impl Certificates {
    /// Reads all pairs.
    ///
    /// # Errors
    /// Which file won't do, and why.
    pub fn read(files: Vec<PairFiles>, provider: Arc<CryptoProvider>) -> Result<Self, BadPair> {
        let pairs = read_all(&files, &provider)?;
        Ok(Self {
            files,
            provider,
            pairs: RwLock::new(pairs),
            reading: Mutex::new(()),
        })
    }

    /// Reads all pairs anew, which may wait for a disk. If one of them won't do, all stay as they are.
    ///
    /// # Errors
    /// As [`Certificates::read`].
    pub fn reload(&self) -> Result<(), BadPair> {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = read_all(&self.files, &self.provider)?;
        *self.pairs.write().unwrap_or_else(PoisonError::into_inner) = pairs;
        Ok(())
    }

    fn pairs(&self) -> Arc<[Pair]> {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&pairs)
    }

    /// Each pair's name, and when its certificate ends, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, u64)> {
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH);
        let end = |pair: &Pair| {
            (
                pair.name.clone(),
                seconds(pair.ends).unwrap_or_default().as_secs(),
            )
        };
        self.pairs().iter().map(end).collect()
    }

    /// Warns of certificates that end soon, or have ended.
    pub fn warn_of_ends(&self, now: SystemTime) {
        for pair in self.pairs().iter() {
            let name = &pair.name;
            match pair.ends.duration_since(now) {
                Err(_) => log::warn!("the certificate '{name}' has ended: clients refuse it"),
                Ok(left) if left <= TLS_EXPIRY_WARNING => {
                    log::warn!("the certificate '{name}' ends in {}", Left(left));
                }
                Ok(_) => {}
            }
        }
    }
}

/// A time that is left, in its largest unit.
struct Left(Duration);

impl Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.0.as_secs() / 3600;
        match hours {
            0..48 => write!(f, "{hours} h"),
            _ => write!(f, "{} days", hours / 24),
        }
    }
}

fn read_all(files: &[PairFiles], provider: &CryptoProvider) -> Result<Arc<[Pair]>, BadPair> {
    files
        .iter()
        .map(|files| Pair::read(files, provider))
        .collect()
}

impl ResolvesServerCert for Certificates {
    /// The first pair for the name that the client asks for, or the first of all, as far as the client
    /// can check its signature. One that can check none gets the first, so that rustls tells it that the two
    /// have nothing in common, and not that it is denied access.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pairs = self.pairs();
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let mut fit = pairs.iter().filter(|pair| pair.can_sign_for(&hello));
        let named = name.and_then(|name| fit.clone().find(|pair| pair.is_for(&name)));
        let chosen = named.or_else(|| fit.next()).or_else(|| pairs.first())?;
        Some(Arc::clone(&chosen.certified))
    }
}
