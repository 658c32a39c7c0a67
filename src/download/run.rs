//! One download from its output's opening to its last line.

use std::time::Instant;

use super::connection::TimeLimits;
use super::output::Output;
use super::transfer::{Completion, Download, DownloadSpec, Session};
use super::url::DownloadSource;
use super::{bare, http};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};

/// Downloads one file.
///
/// # Errors
/// Why there is no file; what is left of it is told.
pub(super) fn run(spec: &DownloadSpec, session: &Session<'_>) -> Result<Completion, Failure> {
    let started = Instant::now();
    let (args, console) = (session.args, &session.console);
    let mut download = Download {
        spec,
        session,
        time_limits: TimeLimits::starting_now(args.client),
        output: Output::at(&spec.destination, session.new_mode, args.sha256.is_some())?,
        bar: console.bar(&spec.label, &spec.destination),
        resumed_bytes: 0,
    };
    let guard = session
        .active
        .enter(&spec.label, download.output.shared_part());
    let result = fetch(&mut download);
    drop(guard);
    console.finish(&download.bar);
    if let Ok(Completion::Same) = result
        && console.is_verbose()
    {
        let (name, destination) = (Escaped(&spec.label), &spec.destination);
        console.tell(&format!("{name}: the same is in {destination}"));
    }
    if let Ok(Completion::Whole(bytes)) = result
        && (console.is_verbose() || console.is_watched(&spec.destination))
    {
        let name = Escaped(&spec.label);
        let earlier = match download.resumed_bytes {
            0 => String::new(),
            count => format!(", {count} of them from an earlier download,"),
        };
        let seconds = started.elapsed().as_secs_f64();
        let destination = &spec.destination;
        let unchecked = if args.trust.insecure {
            ", from a server that was not checked (--insecure)"
        } else {
            ""
        };
        console.tell(&format!(
            "{name}: {bytes} bytes{earlier} in {seconds:.3} s to {destination}{unchecked}"
        ));
    }
    result
}

/// A download is complete only when the file has its name; what is left of a failed one is told.
fn fetch(download: &mut Download<'_>) -> Result<Completion, Failure> {
    let result = match &download.spec.source {
        DownloadSource::Bare {
            server,
            is_tls,
            name,
        } => {
            let (address, is_tls) = (server, *is_tls);
            bare::fetch(download, bare::Server { address, is_tls }, name)
        }
        DownloadSource::Http(url) => http::fetch(download, url),
    };
    download.tell_notes();
    let result = result.and_then(|completion| match completion {
        Completion::Empty => Err(Failure::new(
            Exit::NoFile,
            "the server sent nothing: it has no such file, or an empty one",
        )),
        Completion::Whole(_) => finish(download).map(|()| completion),
        Completion::Same | Completion::Folder | Completion::ReaderClosed => Ok(completion),
    });
    result.map_err(|mut failure| {
        if let Some(kept) = download.output.shared_part().kept() {
            failure.line = format!("{}; {kept}", failure.line);
        }
        failure
    })
}

/// Bytes with another digest never take the file's name, nor are they continued.
fn finish(download: &Download<'_>) -> Result<(), Failure> {
    let output = &download.output;
    if let Some(expected) = &download.session.args.sha256 {
        let got = output.sha256().unwrap_or_default();
        if got != *expected {
            output.forbid_resuming()?;
            let line = format!("its SHA-256 is {got}, not {expected}");
            return Err(Failure::new(Exit::Mismatch, line));
        }
    }
    output.finish()
}
