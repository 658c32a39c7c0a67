//! As the origin, by TLS: a server that ends as it is told.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use carafe::tls::certificates::{Certificates, PairFiles};
use carafe::tls::config;
use rustls::{ServerConnection, StreamOwned};

use super::Asked;
use crate::authority::Authority;

/// What comes after an answer's last byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    CloseNotify,
    Fin,
}

/// A server that answers everything by TLS, and notes what was asked.
pub(crate) struct TlsOrigin {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl TlsOrigin {
    /// With the pair of this label, and an answer to each request by how many came before.
    pub(crate) fn start(
        authority: &Authority,
        label: &str,
        address: &str,
        answer: impl Fn(&Asked, usize) -> (Vec<u8>, End) + Send + 'static,
    ) -> Self {
        let pair = PairFiles {
            certificate: authority.crt(label),
            key: authority.key(label),
        };
        let certificates = Certificates::read(vec![pair], config::provider()).unwrap();
        let tls = config::server(Arc::new(certificates)).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
                let mut stream = StreamOwned::new(connection, socket.unwrap());
                // What is written at once is a record. A client that doesn't trust it sends none.
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).unwrap_or_default();
                let Some(request) = Asked::read(&buffer[..count]) else {
                    continue;
                };
                let mut all = noted.lock().unwrap();
                let (bytes, end) = answer(&request, all.len());
                all.push(request);
                drop(all);
                // The client may have had enough.
                let _ = stream.write_all(&bytes);
                if end == End::CloseNotify {
                    stream.conn.send_close_notify();
                }
                let _ = stream.flush();
                let _ = stream.sock.shutdown(Shutdown::Write);
                let _ = stream.sock.read_to_end(&mut Vec::new());
            }
        });
        Self { address, asked }
    }

    /// One answer to everything.
    pub(crate) fn saying(authority: &Authority, answer: impl Into<Vec<u8>>, end: End) -> Self {
        let answer = answer.into();
        Self::start(authority, "one", "127.0.0.1:0", move |_, _| {
            (answer.clone(), end)
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Where the ranges began that were asked for so far.
    pub(crate) fn from(&self) -> Vec<Option<usize>> {
        self.asked.lock().unwrap().iter().map(Asked::from).collect()
    }
}
