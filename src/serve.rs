//! The application on the reactor: `serve` and `thank` wire listeners, connections, a protocol,
//! signals, counters and the log together.

mod conn_record;
mod fd_budget;
mod request_memory;
mod server;
mod serving;
mod telemetry;
mod threads;
mod timing;
mod traced;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{self, Path};
use std::sync::{Arc, Once};
use std::thread;

use crate::conn::Timeouts;
use crate::daemon::activation::Passed;
use crate::daemon::args::{ListenArgs, ServeArgs, TagSource, ThankArgs};
use crate::daemon::greeting;
use crate::daemon::listeners::{bind_all, bind_for, limit_rate};
use crate::daemon::sandbox::{Account, Sandbox};
use crate::daemon::service_manager::ServiceManager;
use crate::daemon::succession::{self, Predecessor, Starter};
use crate::daemon::tls::{self, LoopTls, Tls};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};
use crate::file::{Digests, LookupError};
use crate::flags::ServerAddress;
use crate::http::entity_tag::TagKey;
use crate::limits::{DISK_TIMEOUT, KEEP_ALIVE, MIN_RATE_BYTES, STALL_TIMEOUT};
use crate::peer::proxies::Proxies;
use crate::protocol::bare::Bare;
use crate::protocol::http::Http;
use crate::protocol::sniff::SharedPort;
use crate::protocol::thanks::Thanks;
use crate::root::Root;
use crate::root::listing::Listings;
use crate::telemetry::log_writer::LineWriter;
use crate::telemetry::logger;

use fd_budget::FdBudget;
use server::no_loop;
use telemetry::TelemetryConfig;
use threads::WorkerThreads;

pub use conn_record::ConnRecord;
#[cfg(feature = "testing")]
pub(crate) use conn_record::Role;
pub use server::{Server, Stopper};

/// `carafe serve`: serves until a signal ends it.
///
/// # Errors
/// It can't start.
///
/// # Panics
/// Never: there is one loop at least.
pub fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    if let Some(end) = succession::run_if_told() {
        return end;
    }
    let mut passed = Passed::take()?;
    let metrics = passed.take_metrics(args.metrics.is_some())?;
    passed.check_rate(args)?;
    let predecessor = passed.predecessor.take();
    let tags = &Tags::of(args);
    let has_metrics = metrics.is_some() || args.metrics.is_some();
    let mut protocol = open_root(args, tags, has_metrics)?;
    let tls = &Tls::open(&args.tls)?;
    let account = args.user.as_deref().map(Account::find).transpose()?;
    let starter = Starter::spawn();
    // Before the first thread: each has what its maker had.
    let sandbox = Sandbox::of_files(args);
    let telemetry = TelemetryConfig::open(args, metrics)?;
    let log_writer = start_log(&args.listen)?;
    let timeouts = timeouts(args);
    let (listen, for_telemetry) = (&args.listen, telemetry.descriptors());
    let files = Some(args.open_files);
    let addresses = passed.addresses(listen, args.workers);
    let fd_budget = FdBudget::find(listen, files, for_telemetry, args.workers, addresses)?;
    let uncached = &Once::new();
    set_bounds(&mut protocol, args.cache, &fd_budget, uncached);
    let client_limit = fd_budget.client_limit(args.max_connections_per_client);
    let client_limit = &client_limit.map(Arc::new);
    let listeners = bind_for(args.workers, listen, args.port, passed, &log_writer)?;
    limit_rate(listeners.iter().flatten(), args.limit_rate)?;
    account.map_or(Ok(()), |account| account.assume())?;
    let mut listeners = listeners.into_iter();
    let first = listeners.next().expect("there is one loop at least");
    let makers = (1..).zip(listeners).map(|(index, listeners)| {
        let (telemetry, log_writer) = (telemetry.beside(), log_writer.clone());
        move || {
            let (mut protocol, most) = (
                open_root(args, tags, has_metrics)?,
                fd_budget.connections_max(index),
            );
            set_bounds(&mut protocol, args.cache, &fd_budget, uncached);
            let server = Server::new(protocol, timeouts, listeners, most, log_writer);
            let mut server = server.map_err(no_loop)?;
            server.app.drain_timeout = args.listen.drain;
            server.app.telemetry = telemetry;
            server.app.proxies = Proxies::new(&args.trusted_proxy);
            server.app.tls = tls.as_ref().map(|tls| LoopTls::new(tls, false));
            server.app.client_limit.clone_from(client_limit);
            Ok(server)
        }
    });
    let makers: Vec<_> = makers.collect();
    let mut server = Server::start(
        protocol, timeouts, listen, first, fd_budget, log_writer, telemetry,
    )?;
    server.allow_succession(starter);
    server.app.manager = ServiceManager::of_environment();
    server.app.proxies = Proxies::new(&args.trusted_proxy);
    server.app.client_limit.clone_from(client_limit);
    if let Some(tls) = tls {
        server.app.tls = Some(LoopTls::new(tls, true));
        server.app.telemetry.show_tls(tls.clone());
    }
    thread::scope(|scope| {
        let take_over = || predecessor.map_or(Ok(()), Predecessor::take_over);
        let others = WorkerThreads::start(scope, &mut server, makers, take_over)?;
        greet(&server, args, tls.is_some());
        sandbox.and_calls();
        server.app.is_ready();
        Ok(server.run_until_signal(others))
    })
}

/// What entity tags are made of, for all loops.
struct Tags {
    key: TagKey,
    digests: Option<Digests>,
}

impl Tags {
    fn of(args: &ServeArgs) -> Self {
        Self {
            key: TagKey::of_this_machine(),
            digests: (args.etag == TagSource::Content).then(Digests::default),
        }
    }
}

fn timeouts(args: &ServeArgs) -> Timeouts {
    Timeouts {
        request: args.listen.request_timeout,
        keep_alive: args.keep_alive,
        stall: args.stall_timeout,
        min_rate: args.min_rate,
        disk: args.disk_timeout,
    }
}

/// Says where it listens, and what is there.
fn greet(server: &Server<SharedPort>, args: &ServeArgs, has_tls: bool) {
    // ROOT's file system is asked before a client comes: later it may keep silent.
    let serves_everything = is_top(&args.root);
    server.announce();
    if logger::is_watched() {
        let greeting = greeting::of_files(&server.addresses, has_tls, &args.root, args.listing);
        server.log_writer.announce(&format_args!("{greeting}"));
    } else {
        let root = args.root.as_os_str().as_encoded_bytes();
        log::info!("serving \"{}\"", Escaped(root));
    }
    warn_of_power(serves_everything);
}

/// `carafe thank`: prints and thanks until a signal, or one text with `--once`, ends it.
///
/// # Errors
/// It can't start.
pub fn thank(args: &ThankArgs) -> Result<Exit, Failure> {
    let stdout = LineWriter::new(io::stdout()).map_err(|error| {
        Failure::new(Exit::Failed, format!("no thread for the output: {error}"))
    })?;
    let protocol = Thanks::new(args.encoding, args.text_gap, args.once, stdout.clone());
    let log_writer = start_log(&args.listen)?;
    let timeouts = Timeouts {
        request: args.listen.request_timeout,
        keep_alive: KEEP_ALIVE,
        stall: STALL_TIMEOUT,
        min_rate: MIN_RATE_BYTES,
        disk: DISK_TIMEOUT,
    };
    let fd_budget = FdBudget::find(&args.listen, None, 0, 1, args.listen.bind.len())?;
    let listeners = bind_all(&args.listen, args.port, &log_writer)?;
    let (listen, telemetry) = (&args.listen, TelemetryConfig::default());
    let mut server = Server::start(
        protocol, timeouts, listen, listeners, fd_budget, log_writer, telemetry,
    )?;
    server.app.once = args.once;
    server.announce();
    if logger::is_watched() {
        let greeting = greeting::of_texts(&server.addresses);
        server.log_writer.announce(&format_args!("{greeting}"));
    }
    let exit = server.run_until_signal(WorkerThreads::default());
    if stdout.flush() {
        return Ok(exit);
    }
    log::error!("standard output did not take every text");
    Ok(match exit {
        Exit::Done => Exit::Failed,
        exit => exit,
    })
}

fn open_root(args: &ServeArgs, tags: &Tags, has_metrics: bool) -> Result<SharedPort, Failure> {
    let mut root = Root::open(&args.root, args.dotfiles()).map_err(|error| {
        let shown = Escaped(args.root.as_os_str().as_encoded_bytes());
        match error.kind() {
            io::ErrorKind::Unsupported => {
                Failure::new(Exit::Failed, format!("'{shown}' can't be served: {error}"))
            }
            _ => Failure::usage(format!(
                "ROOT: '{shown}' won't do: it takes a folder ({error})"
            )),
        }
    })?;
    let pages = args.pages();
    let spa = pages.spa.iter().map(|file| ("--spa", file));
    let errors = pages.errors.iter().map(|page| ("--error-page", &page.file));
    for (flag, file) in spa.chain(errors) {
        must_be_there(&mut root, flag, file)?;
    }
    root.never_block();
    let bare = Bare::new(root, (!args.exact_names).then_some(args.name_gap));
    let index = args.index.as_encoded_bytes();
    let index = (!index.is_empty()).then(|| index.into());
    let folders = args.listing.then(Listings::new);
    let mut http = Http::new(args.content_types(), index, folders, tags.key.clone());
    http.set_digests(tags.digests.clone());
    http.set_pages(pages);
    http.set_precompressed(args.precompressed);
    http.set_top(&name_of(&args.root));
    let custom_fields = args.custom_fields();
    http.set_custom_fields(custom_fields.map_err(Failure::usage)?);
    http.set_tls(tls::policy(&args.tls));
    if let Some(ServerAddress { host, port }) = &args.gopher_host {
        http.set_address(host.clone(), *port);
    }
    // Both count by status.
    let has_proxies = !args.trusted_proxy.is_empty();
    http.set_logged(args.access_log.is_some() || has_metrics || has_proxies);
    http.set_proxies(has_proxies);
    Ok(SharedPort::new(bare, http))
}

/// A page that stands for others must be there when the server starts: a name that was mistyped would
/// show only when somebody is sent no page.
fn must_be_there(root: &mut Root, flag: &str, file: &[u8]) -> Result<(), Failure> {
    let why = match root.find_file(file, &[]) {
        Ok(_) => return Ok(()),
        Err(LookupError::Refused(why)) => why.to_owned(),
        Err(LookupError::Failed(errno)) => errno.to_string(),
        Err(error) => format!("{error:?}"),
    };
    let shown = Escaped(file);
    Err(Failure::usage(format!(
        "{flag}: '{shown}' won't do: it takes a file beneath ROOT ({why})"
    )))
}

/// Whether a folder is /, whatever its path is.
fn is_top(folder: &Path) -> bool {
    let identity = |path: &Path| {
        let stat = rustix::fs::stat(path).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    identity(folder).is_some_and(|folder| identity(Path::new("/")) == Some(folder))
}

/// Says what is served beyond what one would expect.
fn warn_of_power(serves_everything: bool) {
    let is_root = rustix::process::geteuid().is_root();
    if serves_everything {
        let whose = if is_root { "root" } else { "this user" };
        log::warn!("ROOT is /: everything on this machine that {whose} may read is served");
    }
    if is_root {
        log::warn!(
            "running as root: files that nobody else may read are served, too; --user NAME serves as NAME"
        );
    }
}

/// What a folder is called, wherever it is seen from.
fn name_of(folder: &Path) -> Vec<u8> {
    let path = path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = path.file_name().map(OsStr::to_owned);
    // It ends in `..`, or is the root of all.
    let name = name.or_else(|| path.canonicalize().ok()?.file_name().map(OsStr::to_owned));
    name.map_or_else(|| b"/".to_vec(), OsString::into_vec)
}

/// Bounds the descriptors and the memory of a loop's files. Without inotify nothing is cached: the answers
/// are the same, only slower. `warned`: one line is enough for all loops.
fn set_bounds(protocol: &mut SharedPort, bytes: u64, fd_budget: &FdBudget, warned: &Once) {
    protocol
        .root_mut()
        .set_open_files_max(fd_budget.open_files_max());
    if bytes > 0
        && let Err(error) = protocol.root_mut().set_cache(fd_budget.cache_limits(bytes))
    {
        warned.call_once(|| {
            log::warn!(
                "files aren't cached, or not by every worker: inotify: {error}; \
                 fs.inotify.max_user_instances may be too low"
            );
        });
    }
}

fn start_log(listen: &ListenArgs) -> Result<LineWriter, Failure> {
    logger::start(listen.verbosity.level())
        .map_err(|error| Failure::new(Exit::Failed, format!("the log can't be started: {error}")))
}
