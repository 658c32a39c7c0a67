//! One file on its way: what both protocols share.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::connection::TimeLimits;
use super::interrupt::ActiveDownloads;
use super::output::{Destination, Output};
use super::progress::{Console, DownloadBar};
use super::url::{DownloadSource, FolderUrl};
use crate::download::args::GetArgs;
use crate::escape::Escaped;
use crate::tls::client::Connector;

/// One file to fetch.
#[derive(Debug)]
pub(super) struct DownloadSpec {
    /// The name or the URL, as it was asked for.
    pub(super) label: Vec<u8>,
    pub(super) source: DownloadSource,
    pub(super) destination: Destination,
    /// The folder there that no redirect may lead out of, if it is a mirror's.
    pub(super) bounds: Option<Arc<FolderUrl>>,
}

/// What all downloads of one command share.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) args: &'a GetArgs,
    pub(super) console: Arc<Console>,
    pub(super) active: ActiveDownloads,
    /// For what goes by TLS.
    pub(super) connector: Connector,
    /// The permission bits of a new file.
    pub(super) new_mode: u32,
}

impl Session<'_> {
    /// How many things are done at once.
    pub(super) fn jobs(&self) -> NonZeroUsize {
        let jobs = usize::try_from(self.args.jobs).ok();
        jobs.and_then(NonZeroUsize::new)
            .unwrap_or(NonZeroUsize::MIN)
    }
}

/// How a download ended, when nothing failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Completion {
    /// End of file before any byte.
    Empty,
    /// The whole file, of so many bytes.
    Whole(u64),
    /// What is here already is the same.
    Same,
    /// What a mirror's list called a file is a folder there.
    Folder,
    /// Whoever reads our output has closed it.
    ReaderClosed,
}

/// One file on its way.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) spec: &'a DownloadSpec,
    pub(super) session: &'a Session<'a>,
    pub(super) time_limits: TimeLimits,
    pub(super) output: Output,
    pub(super) bar: DownloadBar,
    /// Bytes of the whole that an earlier download had left.
    pub(super) resumed_bytes: u64,
}

impl Download<'_> {
    /// Says what the output has found.
    pub(super) fn tell_notes(&mut self) {
        for line in self.output.take_notes() {
            self.note(&line);
        }
    }

    /// Says something about this download unless it is to be quiet.
    pub(super) fn note(&self, line: &str) {
        let name = Escaped(&self.spec.label);
        self.session.console.note(&format!("{name}: {line}"));
    }
}
