//! A certificate authority of a test's own, what it signs, and clients that trust it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carafe::tls::config;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::common::{Carafe, connect};

/// It, and the folder with what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

/// A day on which a certificate ends that nobody will see.
pub const FAR: (i32, u8, u8) = (2100, 1, 1);

/// A TLS connection that blocks.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    /// Its own certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for these names, into `LABEL.crt` and `LABEL.key`; it ends on this day.
    pub fn sign(&self, label: &str, names: &[&str], (year, month, day): (i32, u8, u8)) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.crt(label), certificate.pem()).unwrap();
        fs::write(self.key(label), key.serialize_pem()).unwrap();
    }

    pub fn crt(&self, label: &str) -> PathBuf {
        self.folder.path().join(format!("{label}.crt"))
    }

    pub fn key(&self, label: &str) -> PathBuf {
        self.folder.path().join(format!("{label}.key"))
    }

    /// Serves with these pairs.
    pub fn serve(&self, root: &Path, labels: &[&str], flags: &[&str]) -> Carafe {
        let mut words = Vec::new();
        for label in labels {
            for (flag, path) in [
                ("--tls-cert", self.crt(label)),
                ("--tls-key", self.key(label)),
            ] {
                words.extend([flag.to_owned(), path.to_str().unwrap().to_owned()]);
            }
        }
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        Carafe::serve(root, &[&words[..], flags].concat())
    }

    /// What a client that trusts it is configured with.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path()).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(config::provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Connects by any version.
    pub fn connect(&self, address: SocketAddr, name: &str) -> TlsStream {
        tls_connect(&self.client(rustls::ALL_VERSIONS), address, name)
    }
}

/// Connects. The handshake comes with the first bytes.
pub fn tls_connect(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> TlsStream {
    let name = name.to_owned().try_into().unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(client, connect(address))
}

/// Sends bytes and reads to the close_notify. A FIN alone is an error.
pub fn tls_exchange(stream: &mut TlsStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}
