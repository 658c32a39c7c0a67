//! The application on the reactor: `serve` and `thank` wire listeners, connections, a service,
//! signals, counters and the log together.

mod conn_record;
mod disk_tasks;
mod fd_budget;
mod greeting;
mod listeners;
mod request_memory;
mod telemetry;
mod workers;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{self, Path};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;

use crate::cli::{ListenArgs, ServeArgs, ServerAddress, ThankArgs};
use crate::conn::transport::Socket;
use crate::conn::{StepIo, Timeouts};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};
use crate::http::entity_tag::TagKey;
use crate::http::mime::ContentTypes;
use crate::limits::{DISK_TIMEOUT, FD_WAIT_RETRY, KEEP_ALIVE, MIN_RATE_BYTES, STALL_TIMEOUT};
use crate::protocol::Protocol;
use crate::protocol::bare::Bare;
use crate::protocol::http::Http;
use crate::protocol::thanks::Thanks;
use crate::reactor::event::{Action, Event, Reclaimable};
use crate::reactor::{Context, Handler, ListenerId, LoopHandle, Reactor, Remote, SourceId, Token};
use crate::root::Root;
use crate::root::listing::Listings;
use crate::telemetry::log_writer::LineWriter;
use crate::telemetry::logger;
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::response::Response;
use crate::telemetry::{Reason, Stats};

use conn_record::{Active, log_delivery, log_end};
use disk_tasks::Errands;
use fd_budget::FdBudget;
use listeners::{bind_all, bind_for, say_lower_somaxconn};
use request_memory::Held;
use telemetry::{Telemetry, TelemetryConfig};
use workers::{Ended, Others, WorkerRole};

pub use conn_record::ConnRecord;
pub(crate) use conn_record::{Peer, Role};

/// `carafe serve`: serves until a signal ends it.
///
/// # Errors
/// It can't start.
///
/// # Panics
/// Never: there is one loop at least.
pub fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    let tags = &TagKey::of_this_machine();
    let mut service = open_root(args, tags)?;
    let observers = TelemetryConfig::open(args)?;
    let outlet = start_log(&args.listen)?;
    let timeouts = Timeouts {
        request: args.listen.request_timeout,
        keep_alive: args.keep_alive,
        stall: args.stall_timeout,
        min_rate: args.min_rate,
        disk: args.disk_timeout,
    };
    let (listen, aside) = (&args.listen, observers.descriptors());
    let room = FdBudget::find(listen, Some(args.open_files), aside, args.workers)?;
    let uncached = &Once::new();
    set_bounds(&mut service, args.cache, &room, uncached);
    let mut listeners = bind_for(args.workers, listen, args.port, &outlet)?.into_iter();
    let first = listeners.next().expect("there is one loop at least");
    let makers = (1..).zip(listeners).map(|(index, listeners)| {
        let (access_log, outlet) = (observers.access_log.clone(), outlet.clone());
        move || {
            let (mut service, most) = (open_root(args, tags)?, room.connections_max(index));
            set_bounds(&mut service, args.cache, &room, uncached);
            let server = Server::new(service, timeouts, listeners, most, outlet);
            let mut server = server.map_err(no_loop)?;
            server.app.patience = args.listen.drain;
            server.app.watch = Telemetry::beside(access_log);
            Ok(server)
        }
    });
    let makers: Vec<_> = makers.collect();
    let mut server = Server::start(service, timeouts, listen, first, room, outlet, observers)?;
    thread::scope(|scope| {
        let others = Others::start(scope, &mut server, makers)?;
        // ROOT's file system is asked before a client comes: later it may keep silent.
        let serves_everything = is_top(&args.root);
        server.announce();
        if logger::is_watched() {
            let greeting = greeting::of_files(&server.addresses, &args.root, args.listing);
            server.outlet.announce(&format_args!("{greeting}"));
        } else {
            let root = args.root.as_os_str().as_encoded_bytes();
            log::info!("serving \"{}\"", Escaped(root));
        }
        warn_of_power(serves_everything);
        Ok(server.run_until_signal(others))
    })
}

/// `carafe thank`: prints and thanks until a signal, or one text with `--once`, ends it.
///
/// # Errors
/// It can't start.
pub fn thank(args: &ThankArgs) -> Result<Exit, Failure> {
    let stdout = LineWriter::new(io::stdout()).map_err(|error| {
        Failure::new(Exit::Failed, format!("no thread for the output: {error}"))
    })?;
    let service = Thanks::new(args.encoding, args.text_gap, args.once, stdout.clone());
    let outlet = start_log(&args.listen)?;
    let timeouts = Timeouts {
        request: args.listen.request_timeout,
        keep_alive: KEEP_ALIVE,
        stall: STALL_TIMEOUT,
        min_rate: MIN_RATE_BYTES,
        disk: DISK_TIMEOUT,
    };
    let room = FdBudget::find(&args.listen, None, 0, 1)?;
    let listeners = bind_all(&args.listen, args.port, &outlet)?;
    let (listen, nobody) = (&args.listen, TelemetryConfig::default());
    let mut server = Server::start(service, timeouts, listen, listeners, room, outlet, nobody)?;
    server.app.once = args.once;
    server.announce();
    if logger::is_watched() {
        let greeting = greeting::of_texts(&server.addresses);
        server.outlet.announce(&format_args!("{greeting}"));
    }
    let exit = server.run_until_signal(Others::default());
    if stdout.flush() {
        return Ok(exit);
    }
    log::error!("standard output did not take every text");
    Ok(match exit {
        Exit::Done => Exit::Failed,
        exit => exit,
    })
}

fn open_root(args: &ServeArgs, tags: &TagKey) -> Result<Http, Failure> {
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
    root.never_block();
    let bare = Bare::new(root, (!args.exact_names).then_some(args.name_gap));
    let index = args.index.as_encoded_bytes();
    let index = (!index.is_empty()).then(|| index.into());
    let folders = args.listing.then(Listings::new);
    let types = ContentTypes::new(args.mime.clone());
    let mut service = Http::new(bare, types, index, folders, tags.clone());
    service.set_top(&name_of(&args.root));
    if let Some(ServerAddress { host, port }) = &args.gopher_host {
        service.set_address(host.clone(), *port);
    }
    // Both count by status.
    service.set_logged(args.access_log.is_some() || args.metrics.is_some());
    Ok(service)
}

/// Whether a folder is /, whatever its path is.
fn is_top(folder: &Path) -> bool {
    let identity = |path: &Path| {
        let stat = rustix::fs::stat(path).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    identity(folder).is_some_and(|folder| identity(Path::new("/")) == Some(folder))
}

/// Says what is served beyond what one would think. As root is how containers run, so that alone is
/// no warning, which would be seen with `-q` and counted by monitors; a whole file system is.
fn warn_of_power(serves_everything: bool) {
    let is_root = rustix::process::geteuid().is_root();
    if serves_everything {
        let whose = if is_root { "root" } else { "this user" };
        log::warn!("ROOT is /: everything on this machine that {whose} may read is served");
    } else if is_root {
        log::info!("running as root: files that nobody else may read are served, too");
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

fn no_loop(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the loop can't be made: {error}"))
}

/// What a loop's files may take. Without inotify nothing is kept: the answers are the same, only
/// slower. `warned`: one line is enough for all loops.
fn set_bounds(service: &mut Http, bytes: u64, room: &FdBudget, warned: &Once) {
    service.root_mut().set_open_files_max(room.open_files_max());
    if bytes > 0
        && let Err(error) = service.root_mut().set_cache(room.cache_bounds(bytes))
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

// ---- the server ----

/// What would end the process by default. SIGXFSZ comes with the EFBIG of a file that has reached a limit
/// of the process, such as the access log.
const SIGNALS_TAKEN: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGXFSZ];

const SIGNALS: SourceId = SourceId(0);
const STOP: SourceId = SourceId(1);
const STOP_NOW: SourceId = SourceId(2);
const HANGUP: SourceId = SourceId(3);
const OTHER_ENDED: SourceId = SourceId(4);
const ERRANDS: SourceId = SourceId(5);
const REOPENED: SourceId = SourceId(6);

/// A service on its own loop, listening.
#[allow(
    missing_debug_implementations,
    reason = "signal-hook's Signals has none"
)]
pub struct Server<S> {
    reactor: Reactor<ConnRecord>,
    app: Serving<S>,
    addresses: Vec<SocketAddr>,
    outlet: LineWriter,
}

impl<S: Protocol> Server<S> {
    fn start(
        service: S,
        timeouts: Timeouts,
        listen: &ListenArgs,
        listeners: Vec<TcpListener>,
        room: FdBudget,
        outlet: LineWriter,
        observers: TelemetryConfig,
    ) -> Result<Self, Failure> {
        say_lower_somaxconn(listen.backlog);
        let most = room.connections_max(0);
        let server = Self::new(service, timeouts, listeners, most, outlet);
        let mut server = server.map_err(no_loop)?;
        server.app.patience = listen.drain;
        let mut signals = Signals::new(SIGNALS_TAKEN).map_err(no_loop)?;
        if observers.hangups {
            signals.add_signal(SIGHUP).map_err(no_loop)?;
        }
        server
            .reactor
            .add_source(&mut signals, SIGNALS)
            .map_err(no_loop)?;
        server.app.signals = Some(signals);
        server.app.watch = Telemetry::begin(observers, &mut server.reactor).map_err(no_loop)?;
        Ok(server)
    }

    /// Says where it listens.
    fn announce(&self) {
        for address in &self.addresses {
            self.outlet
                .announce(&format_args!("listening on {address}"));
        }
        if let Some(address) = self.app.watch.metrics() {
            self.outlet.announce(&format_args!("metrics on {address}"));
        }
    }

    /// A server on listeners that are bound and non-blocking, without signals.
    ///
    /// # Errors
    /// The poll can't be made.
    pub fn new(
        service: S,
        timeouts: Timeouts,
        listeners: Vec<TcpListener>,
        connections_max: usize,
        outlet: LineWriter,
    ) -> io::Result<Self> {
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let reactor = Reactor::new(listeners, connections_max)?;
        let app = Serving {
            service,
            timeouts,
            patience: Duration::ZERO,
            signals: None,
            signalled: Signalled::Not,
            once: false,
            delivered: Vec::new(),
            parked: VecDeque::new(),
            shortage: RateLimit::default(),
            errands: Errands::new(reactor.remote(), ERRANDS),
            held: Held::new(connections_max),
            watch: Telemetry::default(),
            place: WorkerRole::Alone,
            outlet: outlet.clone(),
        };
        Ok(Self {
            reactor,
            app,
            addresses,
            outlet,
        })
    }

    /// Where it listens, with the real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops it from another thread, as the first signal does.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.reactor.remote())
    }

    /// How long a stop may take.
    pub fn set_drain(&mut self, patience: Duration) {
        self.app.patience = patience;
    }

    /// Runs until it is stopped, and says what it counted.
    ///
    /// # Errors
    /// The poll fails.
    pub fn run(mut self) -> io::Result<Stats> {
        self.reactor.run(&mut self.app)?;
        Ok(self.reactor.stats().clone())
    }

    fn run_until_signal(mut self, others: Others<'_>) -> Exit {
        let ended = self.run_with(others);
        let stats = &ended.stats;
        let lost = [
            ("log", self.outlet.dropped()),
            ("access log", self.app.watch.finish()),
        ];
        let mut losses = String::new();
        for (log, lines) in lost.into_iter().filter(|&(_, lines)| lines > 0) {
            let _ = write!(losses, "; {lines} {log} lines dropped");
        }
        if losses.is_empty() {
            log::info!("{stats}");
        } else {
            log::warn!("{stats}{losses}");
        }
        self.exit(&ended)
    }

    /// How the program ends after this.
    fn exit(&self, ended: &Ended) -> Exit {
        match self.app.signalled {
            _ if ended.failed => Exit::Failed,
            Signalled::Again(signal) => Exit::Signal(signal),
            _ if ended.stats.cut_by_drain() == 0 => Exit::Done,
            _ => Exit::Failed,
        }
    }
}

/// Stops a [`Server`].
#[derive(Clone, Debug)]
pub struct Stopper(Remote);

impl Stopper {
    /// Begins the drain.
    ///
    /// # Errors
    /// As [`Remote::notify`].
    pub fn stop(&self) -> io::Result<()> {
        self.0.notify(STOP)
    }
}

/// Which signals have come.
#[derive(Clone, Copy, Debug)]
enum Signalled {
    Not,
    Once,
    /// Again: this one ends everything at once.
    Again(u8),
}

/// The application: a service, and what happens around its connections.
struct Serving<S> {
    service: S,
    timeouts: Timeouts,
    /// How long a drain may take.
    patience: Duration,
    signals: Option<Signals>,
    signalled: Signalled,
    /// Drain after the first answer.
    once: bool,
    /// What became of replies after which their connections go on, in one step.
    delivered: Vec<Response>,
    /// Connections that wait for a descriptor, first come first.
    parked: VecDeque<Token>,
    /// Their shortage is warned about.
    shortage: RateLimit,
    errands: Errands,
    held: Held,
    watch: Telemetry,
    place: WorkerRole,
    outlet: LineWriter,
}

impl<S: Protocol> Serving<S> {
    /// Drains, and so do the others.
    fn drain(&mut self, control: &mut LoopHandle<ConnRecord>) {
        control.drain(self.patience);
        self.place.pass_on(STOP);
    }

    /// A hangup opens things anew, as SIGUSR1 does with the log alone. SIGUSR2 and SIGXFSZ mean nothing. The
    /// first other signal drains, a later one ends.
    fn take_signals(&mut self, control: &mut LoopHandle<ConnRecord>) {
        let pending = self.signals.as_mut().map(Signals::pending);
        let (mut hung_up, mut last) = (false, None);
        for signal in pending.into_iter().flatten() {
            match signal {
                SIGHUP => hung_up = true,
                SIGUSR1 => self.watch.reopen(),
                SIGUSR2 | SIGXFSZ => {}
                signal => last = Some(signal),
            }
        }
        if hung_up {
            self.watch.reopen();
            self.errands.reopen(&mut self.service);
            self.place.pass_on(HANGUP);
        }
        let Some(signal) = last else { return };
        match self.signalled {
            Signalled::Not => {
                self.signalled = Signalled::Once;
                self.drain(control);
            }
            Signalled::Once | Signalled::Again(_) => {
                // Signal numbers are small.
                self.signalled = Signalled::Again(u8::try_from(signal).unwrap_or(u8::MAX));
                control.stop();
                self.place.pass_on(STOP_NOW);
            }
        }
    }

    /// Puts a client into the line of those who wait for a descriptor, or takes it out.
    fn line_up(
        &mut self,
        client: &mut Active,
        parks: bool,
        token: Token,
        control: &mut LoopHandle<ConnRecord>,
    ) {
        if parks == client.in_line {
            return;
        }
        client.in_line = parks;
        if parks {
            self.parked.push_back(token);
            if self.shortage.allows(control.now()) {
                log::warn!("no descriptor is free for a file: clients wait");
            }
        } else {
            self.parked.retain(|&parked| parked != token);
            self.wake_first(control);
        }
    }

    /// One step of a client, and what is to be told of it.
    fn step_client(
        &mut self,
        client: &mut Active,
        socket: &mut TcpStream,
        why: Event,
        cx: &mut Context<'_, ConnRecord>,
    ) -> Action {
        let token = cx.token();
        let mut errand = None;
        let fetched = if client.conn.awaits_errand() {
            self.errands.take(token)
        } else {
            None
        };
        let why = match why {
            // Who is first in the line looks for a descriptor now and then, the others only whether
            // they are still to wait.
            Event::Deadline if client.in_line && self.parked.front() != Some(&token) => {
                Event::Evict
            }
            why => why,
        };
        let mut env = StepIo {
            transport: &mut Socket(socket),
            service: &mut self.service,
            timeouts: self.timeouts,
            turn: &mut cx.turn,
            delivered: &mut self.delivered,
            errand: &mut errand,
            fetched,
        };
        let next = client.conn.step(&mut env, why);
        self.weigh(client, next, cx.turn.now);
        if let Some(errand) = errand {
            self.errands.send(token, errand);
        }
        if client.in_line {
            // It has looked, so whoever needs no file of its own may come in.
            cx.control.set_accepting(true);
        }
        if !self.delivered.is_empty() {
            // A file may have been closed.
            self.wake_first(cx.control);
        }
        for delivery in self.delivered.drain(..) {
            let (stats, reason) = (&mut cx.control.stats, delivery.outcome.reason());
            self.watch
                .count_reply(client.peer, &delivery, reason, Instant::now(), stats);
            let took = cx.turn.now - delivery.asked_at;
            log_delivery(client.peer, &delivery, took, &delivery.outcome);
        }
        self.watch.follow(client);
        // Who looks for a descriptor by a helper keeps its place until it has one, unless that may
        // be never: all the others would wait as long.
        let keeps_place = client.in_line && !self.errands.is_far(token);
        let stands = !client.conn.awaits_errand() || keeps_place;
        self.line_up(client, next == Action::Suspend && stands, token, cx.control);
        if self.parked.front() == Some(&token) {
            // Who is first looks again now and then: other processes free descriptors, too.
            let again = cx.turn.now + FD_WAIT_RETRY;
            cx.turn.deadline = cx.turn.deadline.map(|deadline| deadline.min(again));
        }
        if self.once && client.conn.delivery().is_some() {
            cx.control.drain(self.patience);
        }
        next
    }

    /// Notes what a client holds after a step.
    fn weigh(&mut self, client: &mut Active, next: Action, now: Instant) {
        self.held.note(&mut client.held, client.conn.held_bytes());
        if next == Action::Close(Reason::OutOfMemory) {
            self.held.run_out();
            if self.shortage.allows(now) {
                log::warn!("there is no memory for what clients send: some are closed");
            }
        }
    }

    /// A descriptor may be free. The first in the line looks before one more client is let in, who
    /// would take it; it keeps its place until it has what it waits for.
    fn wake_first(&self, control: &mut LoopHandle<ConnRecord>) {
        if let Some(&first) = self.parked.front() {
            control.wake(first);
        }
        control.set_accepting(self.parked.is_empty());
    }
}

impl<S: Protocol> Handler for Serving<S> {
    type Conn = ConnRecord;

    fn accepted(
        &mut self,
        from: ListenerId,
        peer: SocketAddr,
        cx: &mut Context<'_, ConnRecord>,
    ) -> ConnRecord {
        let (accepted_at, role) = (cx.turn.now, self.watch.welcome(from));
        let timeouts = match role {
            Role::Client(_) => self.timeouts,
            Role::Monitor => telemetry::TIMEOUTS,
        };
        ConnRecord::new(Peer::new(peer), role, accepted_at, timeouts.request)
    }

    fn step(
        &mut self,
        client: &mut ConnRecord,
        socket: &mut TcpStream,
        why: Event,
        cx: &mut Context<'_, ConnRecord>,
    ) -> Action {
        // Before the step: once a connection is over the kernel doesn't tell whose it was.
        let peer = || Peer::of(socket);
        let patience = self.timeouts.request;
        let Some(active) = client.wake(why, cx.turn.deadline, patience, peer) else {
            return Action::Wait;
        };
        let next = match active.role {
            Role::Monitor => self.watch.answer(active, socket, why, cx, &self.outlet),
            Role::Client(_) => self.step_client(active, socket, why, cx),
        };
        client.rest(next, cx.turn.deadline);
        next
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle<ConnRecord>) {
        match id {
            SIGNALS => self.take_signals(control),
            STOP_NOW => control.stop(),
            HANGUP => self.errands.reopen(&mut self.service),
            REOPENED => self.service.reopened(),
            // The turn asks whether this loop may end.
            OTHER_ENDED => {}
            ERRANDS => self.errands.collect(control),
            _ => self.drain(control),
        }
    }

    fn reclaimable(&self, client: &ConnRecord) -> Option<Reclaimable> {
        match client {
            ConnRecord::Silent => Some(Reclaimable::Silent),
            ConnRecord::Active(active) => active.conn.reclaimable(),
            ConnRecord::Left(_) => None,
        }
    }

    fn holds_too_much(&self) -> bool {
        self.held.is_too_much()
    }

    fn draining(&mut self) {
        if self.place.begins_to_drain() {
            self.outlet.announce(&format_args!("draining"));
        }
    }

    fn may_end(&self) -> bool {
        self.place.may_end()
    }

    fn turn_over(&mut self, stats: &Stats, now: Instant) -> Option<Instant> {
        self.place.publish(stats, self.watch.stages());
        self.service.rest(now)
    }

    fn ended(
        &mut self,
        client: ConnRecord,
        token: Token,
        reason: Reason,
        control: &mut LoopHandle<ConnRecord>,
    ) {
        let now = control.now();
        let mut client = client.into_active(now);
        self.line_up(&mut client, false, token, control);
        self.held.note(&mut client.held, 0);
        if client.conn.awaits_errand() {
            self.errands.forget(token);
        }
        self.watch.leaves(&client);
        match client.role {
            Role::Monitor => log::debug!("{} metrics: {reason}", client.peer),
            Role::Client(_) => {
                if let Some(delivery) = client.conn.delivery() {
                    let until = client.conn.lingers_since().unwrap_or_else(Instant::now);
                    let stats = &mut control.stats;
                    self.watch
                        .count_reply(client.peer, delivery, reason, until, stats);
                }
                log_end(&client, reason, now);
            }
        }
        // The descriptors it held are free once it is dropped.
        drop(client);
        self.wake_first(control);
    }
}
