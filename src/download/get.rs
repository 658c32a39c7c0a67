//! `carafe get`: downloads files by name or by URL.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::Mode;
use rustix::process::umask;

use super::interrupt::{self, ActiveDownloads};
use super::mirror::{MirrorSpec, Walk};
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

/// What is to be done.
enum Work {
    Files(Vec<DownloadSpec>),
    Mirrors(Vec<MirrorSpec>),
}

/// Downloads everything asked for, and goes on after one that failed. Ends with the lowest number
/// of those that failed, as wget does.
#[must_use]
pub fn run(args: &GetArgs) -> Exit {
    match prepare(args) {
        Ok((work, connector)) => download_all(&work, args, connector),
        Err(failure) => failure.report(),
    }
}

fn prepare(args: &GetArgs) -> Result<(Work, Connector), Failure> {
    let work = if args.recursive {
        Work::Mirrors(mirror_specs(args)?)
    } else {
        Work::Files(download_specs(args)?)
    };
    let TrustArgs { cacert, insecure } = &args.trust;
    let connector = Connector::new(cacert.as_deref(), *insecure)
        .map_err(|why| Failure::usage(format!("--cacert: {why}")))?;
    make_directory(args)?;
    if *insecure {
        tell(client::INSECURE);
    }
    Ok((work, connector))
}

fn mirror_specs(args: &GetArgs) -> Result<Vec<MirrorSpec>, Failure> {
    let Some(Origin::Url(first)) = &args.first else {
        return Err(Failure::usage("-r is for URLs"));
    };
    let others = args.names.iter().map(|name| name.as_bytes());
    let specs = std::iter::once(first.as_bytes()).chain(others);
    let specs: Vec<_> = specs
        .map(|url| mirrored(url, args))
        .collect::<Result<_, _>>()?;
    let mut paths = HashSet::new();
    for spec in &specs {
        if !paths.insert(&spec.path) {
            return Err(two_written_to(&spec.path));
        }
    }
    Ok(specs)
}

/// The folder that a URL leads to.
fn mirrored(url: &[u8], args: &GetArgs) -> Result<MirrorSpec, Failure> {
    let DownloadSource::Http(http_url) = located(url, args)? else {
        return Err(Failure::usage("-r is for http:// and https://"));
    };
    let local = http_url.folder_name();
    let local = local.as_deref().map(local_name::escaped);
    match destination(url, local, args)? {
        Destination::File(path) => Ok(MirrorSpec {
            label: url.to_vec(),
            url: http_url,
            path,
        }),
        _ => Err(Failure::usage("-o: -r writes a folder")),
    }
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
            .map(|url| file_at(url, args))
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
        bounds: None,
    })
}

/// What a URL leads to.
fn located(url: &[u8], args: &GetArgs) -> Result<DownloadSource, Failure> {
    if args.tls {
        return Err(Failure::usage(
            "--tls is for HOST:PORT; a URL says https://",
        ));
    }
    let source = url::parse(url);
    let source =
        source.map_err(|why| Failure::usage(format!("'{}' won't do: {why}", Escaped(url))))?;
    if matches!(source, DownloadSource::Http(_)) && args.unterminated {
        return Err(Failure::usage("--unterminated is for the bare protocol"));
    }
    Ok(source)
}

/// The file that a URL leads to.
fn file_at(url: &[u8], args: &GetArgs) -> Result<DownloadSpec, Failure> {
    let source = located(url, args)?;
    let last = match &source {
        DownloadSource::Bare { name, .. } => {
            check_name(name)?;
            last_component(name).map(<[u8]>::to_vec)
        }
        DownloadSource::Http(http_url) => http_url.file_name(),
    };
    let local = last.as_deref().map(local_name::escaped);
    Ok(DownloadSpec {
        label: url.to_vec(),
        destination: destination(url, local, args)?,
        source,
        bounds: None,
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
                return Err(two_written_to(&path));
            }
        }
    }
    Ok(())
}

fn two_written_to(path: &Path) -> Failure {
    let path = Escaped(path.as_os_str().as_bytes());
    Failure::usage(format!("{path}: two names would be written to it"))
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
        let (of, to) = if args.recursive {
            ("folder", "DIR")
        } else {
            ("file", "FILE")
        };
        let line = format!("'{}': no {of}'s name; -o {to} gives one", Escaped(label));
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

/// What has become of the downloads.
#[derive(Debug)]
struct Tally {
    exit: Exit,
    over: usize,
    fetched: usize,
    /// Of those that were fetched.
    bytes: u64,
    same: usize,
}

impl Tally {
    /// The lower number counts.
    fn fail(&mut self, exit: Exit) {
        self.exit = match self.exit {
            Exit::Done => exit,
            earlier => earlier.min(exit),
        };
    }
}

/// All downloads of one command.
struct Downloads<'a> {
    session: Session<'a>,
    tally: Mutex<Tally>,
}

fn download_all(work: &Work, args: &GetArgs, connector: Connector) -> Exit {
    // Asking for the mask sets it; there is only this thread yet.
    let mask = umask(Mode::empty());
    umask(mask);
    let are_many = match work {
        Work::Files(specs) => specs.len() > 1,
        Work::Mirrors(_) => true,
    };
    let downloads = Downloads {
        session: Session {
            args,
            console: Arc::new(Console::new(args.client.verbosity, are_many)),
            active: ActiveDownloads::default(),
            connector,
            new_mode: 0o666 & !mask.bits(),
        },
        tally: Mutex::new(Tally {
            exit: Exit::Done,
            over: 0,
            fetched: 0,
            bytes: 0,
            same: 0,
        }),
    };
    let session = &downloads.session;
    let console = &session.console;
    if let Err(error) = interrupt::listen(Arc::clone(console), session.active.clone()) {
        tell(&format!("no signal can be caught: {error}"));
    }
    match work {
        Work::Files(specs) => {
            console.count(0, specs.len());
            pool::each(specs, workers(specs, session), |spec| {
                match downloads.download(spec, specs.len()) {
                    // Nobody reads what else would come, nor a complaint.
                    Some(Completion::ReaderClosed) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
        }
        Work::Mirrors(mirrors) => downloads.mirror(mirrors),
    }
    console.finish_all();
    downloads.tally().exit
}

impl Downloads<'_> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, label: &[u8], failure: &Failure) {
        let Failure { exit, line } = failure;
        let line = format!("{}: {line}", Escaped(label));
        self.session.console.tell(&line);
        self.tally().fail(*exit);
    }

    /// Downloads one of so many files, and returns what has become of it, unless it failed.
    fn download(&self, spec: &DownloadSpec, all: usize) -> Option<Completion> {
        let result = run::run(spec, &self.session);
        if let Err(failure) = &result {
            self.fail(&spec.label, failure);
        }
        let mut tally = self.tally();
        match result {
            Ok(Completion::ReaderClosed) => tally.fail(Exit::FileIo),
            Ok(Completion::Whole(bytes)) => {
                tally.fetched += 1;
                tally.bytes += bytes;
            }
            Ok(Completion::Same) => tally.same += 1,
            Ok(Completion::Empty | Completion::Folder) | Err(_) => {}
        }
        tally.over += 1;
        self.session.console.count(tally.over, all);
        result.ok()
    }

    fn mirror(&self, mirrors: &[MirrorSpec]) {
        let console = &self.session.console;
        console.count_lists(0);
        let fail = |label: &[u8], failure| self.fail(label, &failure);
        let walk = Walk::default();
        let mut files = walk.first_files(mirrors, &self.session, fail);
        let (mut all, mut folder_count) = (0, 0);
        while !files.is_empty() {
            all += files.len();
            console.count(self.tally().over, all);
            let folders = Mutex::new(Vec::new());
            pool::each(&files, self.session.jobs(), |file| {
                let spec = file.spec();
                if let Some(Completion::Folder) = self.download(&spec, all) {
                    let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
                    folders.push((spec.label, file.as_folder()));
                }
                ControlFlow::Continue(())
            });
            let folders = folders.into_inner().unwrap_or_else(PoisonError::into_inner);
            folder_count += folders.len();
            let folders = folders.into_iter().filter_map(|(label, folder)| {
                folder.map_err(|failure| self.fail(&label, &failure)).ok()
            });
            files = walk.files_beneath(folders.collect(), &self.session, fail);
        }
        if console.tells_results() {
            let tally = self.tally();
            let (fetched, bytes, same) = (tally.fetched, tally.bytes, tally.same);
            let failed = all - folder_count - fetched - same;
            let line =
                format!("{fetched} fetched, {bytes} bytes; {same} the same, {failed} failed");
            console.tell(&line);
        }
    }
}

/// How many downloads go on at once. What goes into one pipe goes one after the other.
fn workers(specs: &[DownloadSpec], session: &Session<'_>) -> NonZeroUsize {
    if specs.iter().any(|spec| spec.destination.is_stdout()) {
        return NonZeroUsize::MIN;
    }
    session.jobs()
}
