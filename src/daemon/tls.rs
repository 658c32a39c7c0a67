//! TLS as the flags ask for it: read before anything is bound, read anew after a SIGHUP, and watched for
//! certificates that end.

use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime};

use rustls::ServerConfig;

use super::service_manager::Reload;
use crate::daemon::args::TlsArgs;
use crate::failure::{Exit, Failure};
use crate::limits::TLS_EXPIRY_CHECK;
use crate::protocol::http::TlsPolicy;
use crate::telemetry::exposition::TlsFigures;
use crate::tls::certificates::{BadPair, Certificates};
use crate::tls::config;
use crate::tls::transport::{Handshakes, Terminator};

/// What all loops share.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    handshakes: Arc<Handshakes>,
}

impl Tls {
    /// Reads the pairs, if there are any.
    pub(crate) fn open(args: &TlsArgs) -> Result<Option<Self>, Failure> {
        let pairs = args.pairs();
        if pairs.is_empty() {
            return Ok(None);
        }
        let certificates = Certificates::read(pairs, config::provider())
            .map_err(|bad| Failure::usage(complaint(&bad)))?;
        let certificates = Arc::new(certificates);
        let config = config::server(Arc::clone(&certificates))
            .map_err(|error| Failure::new(Exit::Failed, format!("TLS can't begin: {error}")))?;
        Ok(Some(Self {
            config,
            certificates,
            handshakes: Arc::default(),
        }))
    }

    /// Reads the pairs anew, aside: a disk may be waited for.
    fn reload(&self, reload: Option<Arc<Reload>>) {
        let certificates = Arc::clone(&self.certificates);
        let read = move || {
            match certificates.reload() {
                Ok(()) => {
                    log::info!("certificates were read anew");
                    certificates.warn_of_ends(SystemTime::now());
                }
                Err(bad) => log::warn!("{}; the certificates stay as they were", complaint(&bad)),
            }
            drop(reload);
        };
        if let Err(error) = thread::Builder::new()
            .name("certificates".into())
            .spawn(read)
        {
            log::warn!("no thread to read certificates anew: {error}; they stay as they were");
        }
    }

    /// What the metrics say of it.
    pub(crate) fn figures(&self) -> TlsFigures {
        TlsFigures {
            ends: self.certificates.ends(),
            handshakes: self.handshakes.counts(),
        }
    }
}

/// What is asked of clients.
pub(crate) fn policy(args: &TlsArgs) -> TlsPolicy {
    let hsts = args
        .hsts
        .map(|age| format!("max-age={}", age.as_secs()).into());
    TlsPolicy {
        is_required: args.tls_only,
        hsts,
    }
}

fn complaint(bad: &BadPair) -> String {
    let flag = if bad.is_key {
        "--tls-key"
    } else {
        "--tls-cert"
    };
    format!("{flag}: {bad}")
}

/// What one loop has of it.
#[derive(Debug)]
pub(crate) struct LoopTls {
    pub(crate) terminator: Terminator,
    /// The first loop's: it takes the signals, and looks at the certificates.
    pub(crate) watch: Option<TlsWatch>,
}

impl LoopTls {
    pub(crate) fn new(tls: &Tls, is_first: bool) -> Self {
        let watch = || TlsWatch {
            tls: tls.clone(),
            next_check: Instant::now(),
        };
        Self {
            terminator: Terminator::new(Arc::clone(&tls.config), Arc::clone(&tls.handshakes)),
            watch: is_first.then(watch),
        }
    }
}

/// Certificates that are looked at now and then.
#[derive(Debug)]
pub(crate) struct TlsWatch {
    tls: Tls,
    next_check: Instant,
}

impl TlsWatch {
    /// After a hangup.
    pub(crate) fn reload(&self, reload: Option<Arc<Reload>>) {
        self.tls.reload(reload);
    }

    /// Looks if it is time. Returns when it will be again.
    pub(crate) fn check(&mut self, now: Instant) -> Instant {
        if now >= self.next_check {
            self.tls.certificates.warn_of_ends(SystemTime::now());
            self.next_check = now + TLS_EXPIRY_CHECK;
        }
        self.next_check
    }
}
