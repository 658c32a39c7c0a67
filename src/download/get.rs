//! `carafe get`: downloads files by name or by URL.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Mode;
use rustix::process::umask;

use super::interrupt::{self, ActiveDownloads};
use super::output::{self, Destination};
use super::progress::Console;
use super::transfer::{Completion, DownloadSpec, Session};
use super::url::{self, DownloadSource};
use super::{local_name, part_file, pool, prompt, run};
use crate::download::args::{GetArgs, Origin};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure, tell};
use crate::flags::{ServerAddress, TrustArgs};
use crate::limits;
use crate::tls::client::{self, Connector};

/// Downloads everything asked for, and goes on after one that failed. Ends with the lowest number
/// of those that failed, as wget does.
#[must_use]
pub fn run(args: &GetArgs) -> Exit {
    match prepare(args) {
        Ok((specs, connector)) => download_all(&specs, args, connector),
        Err(failure) => failure.report(),
    }
}

fn prepare(args: &GetArgs) -> Result<(Vec<DownloadSpec>, Connector), Failure> {
    let specs = download_specs(args)?;
    let TrustArgs { cacert, insecure } = &args.trust;
    let connector = Connector::new(cacert.as_deref(), *insecure)
        .map_err(|why| Failure::usage(format!("--cacert: {why}")))?;
    make_directory(args)?;
    if *insecure {
        tell(client::INSECURE);
    }
    Ok((specs, connector))
}

fn download_specs(args: &GetArgs) -> Result<Vec<DownloadSpec>, Failure> {
    let others = args.names.iter().map(|name| name.as_bytes());
    let specs = match &args.first {
        Some(Origin::Server(server)) => {
            if args.names.is_empty() {
                let line =
                    "required arguments were not provided: <NAME>; --help shows what there is";
                return Err(Failure::usage(line));
            }
            others
                .map(|name| named(server.clone(), name, args))
                .collect()
        }
        Some(Origin::Url(url)) => std::iter::once(url.as_bytes())
            .chain(others)
            .map(|url| located(url, args))
            .collect(),
        None => {
            let server = prompt::server()?;
            let name = prompt::line("file name: ")?;
            named(server, &name, args).map(|spec| vec![spec])
        }
    };
    let specs: Vec<DownloadSpec> = specs?;
    check_apart(&specs)?;
    if args.sha256.is_some() && specs.len() > 1 {
        return Err(Failure::usage("--sha256 is for one file"));
    }
    Ok(specs)
}

/// A name on a server of the bare protocol.
fn named(server: ServerAddress, name: &[u8], args: &GetArgs) -> Result<DownloadSpec, Failure> {
    check_name(name)?;
    let mut local = last_component(name).map(local_name::escaped);
    if !args.remote_name {
        local = local.map(local_name::received);
    }
    Ok(DownloadSpec {
        label: name.to_vec(),
        destination: destination(name, local, args)?,
        source: DownloadSource::Bare {
            server,
            is_tls: args.tls,
            name: name.to_vec(),
        },
    })
}

/// What a URL leads to.
fn located(url: &[u8], args: &GetArgs) -> Result<DownloadSpec, Failure> {
    let wont_do = |why| Failure::usage(format!("'{}' won't do: {why}", Escaped(url)));
    if args.tls {
        return Err(Failure::usage(
            "--tls is for HOST:PORT; a URL says https://",
        ));
    }
    let source = url::parse(url).map_err(wont_do)?;
    let last = match &source {
        DownloadSource::Bare { name, .. } => {
            check_name(name)?;
            last_component(name).map(<[u8]>::to_vec)
        }
        DownloadSource::Http(_) if args.unterminated => {
            return Err(Failure::usage("--unterminated is for the bare protocol"));
        }
        DownloadSource::Http(http_url) => http_url.file_name(),
    };
    let local = last.as_deref().map(local_name::escaped);
    Ok(DownloadSpec {
        label: url.to_vec(),
        destination: destination(url, local, args)?,
        source,
    })
}

/// The last component of a name, if it can be a file's.
fn last_component(name: &[u8]) -> Option<&[u8]> {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let is_fit = !matches!(last, b"" | b"." | b"..");
    is_fit.then_some(last)
}

/// Two downloads must not write one file.
fn check_apart(specs: &[DownloadSpec]) -> Result<(), Failure> {
    let mut paths = HashSet::with_capacity(3 * specs.len());
    for spec in specs {
        let Destination::File(file) = &spec.destination else {
            continue;
        };
        for path in [
            file.clone(),
            part_file::part_of(file, 0),
            part_file::meta_of(file, 0),
        ] {
            if let Some(path) = paths.replace(path) {
                let path = Escaped(path.as_os_str().as_bytes());
                let line = format!("{path}: two names would be written to it");
                return Err(Failure::usage(line));
            }
        }
    }
    Ok(())
}

/// What the protocol can't carry is refused here: the server's answer would be silence.
fn check_name(name: &[u8]) -> Result<(), Failure> {
    let max = limits::NAME_BYTES_MAX;
    let length = name.len();
    if !(1..=max).contains(&length) {
        let line = format!("a name takes 1 to {max} bytes, and this one has {length}");
        return Err(Failure::usage(line));
    }
    if name.contains(&b'\n') || name.contains(&b'\0') {
        let line = format!("'{}': a name takes no LF and no NUL", Escaped(name));
        return Err(Failure::usage(line));
    }
    Ok(())
}

/// Where to write; without `-o`, to the local name of the remote file, if it has one.
fn destination(
    label: &[u8],
    local: Option<Vec<u8>>,
    args: &GetArgs,
) -> Result<Destination, Failure> {
    match &args.output {
        Some(file) if output::is_stdout(file) => return Ok(Destination::Stdout),
        Some(file) => return Ok(Destination::File(file.clone())),
        None => {}
    }
    let Some(local) = local else {
        let line = format!("'{}': no file's name; -o FILE gives one", Escaped(label));
        return Err(Failure::usage(line));
    };
    let file = PathBuf::from(OsString::from_vec(local));
    Ok(Destination::File(match &args.directory {
        Some(directory) => directory.join(file),
        None => file,
    }))
}

/// Makes the folder that files are to go to, as wget does.
fn make_directory(args: &GetArgs) -> Result<(), Failure> {
    let Some(directory) = &args.directory else {
        return Ok(());
    };
    fs::create_dir_all(directory).map_err(|error| {
        let directory = Escaped(directory.as_os_str().as_bytes());
        Failure::new(Exit::FileIo, format!("cannot make {directory}: {error}"))
    })
}

fn download_all(specs: &[DownloadSpec], args: &GetArgs, connector: Connector) -> Exit {
    // Asking for the mask sets it; there is only this thread yet.
    let mask = umask(Mode::empty());
    umask(mask);
    let session = Session {
        args,
        console: Arc::new(Console::new(args.client.verbosity, specs.len())),
        active: ActiveDownloads::default(),
        connector,
        new_mode: 0o666 & !mask.bits(),
    };
    let console = &session.console;
    if let Err(error) = interrupt::listen(Arc::clone(console), session.active.clone()) {
        tell(&format!("no signal can be caught: {error}"));
    }
    let exit = Mutex::new(Exit::Done);
    let over = AtomicUsize::new(0);
    let note = |failure| {
        let mut exit = exit.lock().unwrap_or_else(PoisonError::into_inner);
        *exit = worse(*exit, failure);
    };
    pool::each(specs, workers(specs, args), |spec| {
        match run::run(spec, &session) {
            // Nobody reads what else would come, nor a complaint.
            Ok(Completion::ReaderClosed) => {
                note(Exit::FileIo);
                return ControlFlow::Break(());
            }
            Ok(_) => {}
            Err(Failure { exit, line }) => {
                console.tell(&format!("{}: {line}", Escaped(&spec.label)));
                note(exit);
            }
        }
        console.count(over.fetch_add(1, Ordering::Relaxed) + 1);
        ControlFlow::Continue(())
    });
    console.finish_all();
    exit.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How many downloads go on at once. What goes into one pipe goes one after the other.
fn workers(specs: &[DownloadSpec], args: &GetArgs) -> NonZeroUsize {
    let into_one = |spec: &DownloadSpec| spec.destination == Destination::Stdout;
    let jobs = if specs.iter().any(into_one) {
        1
    } else {
        args.jobs
    };
    usize::try_from(jobs)
        .ok()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN)
}

/// The lower number of two ends, of which the second is a failure.
fn worse(earlier: Exit, failure: Exit) -> Exit {
    match earlier {
        Exit::Done => failure,
        earlier => earlier.min(failure),
    }
}
