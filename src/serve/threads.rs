//! Several loops that serve side by side: each on a thread of its own, with listeners, a protocol, a
//! slab and timers of its own. The first runs on the thread that started the others; it takes the
//! signals and has the metrics.

use std::fmt::Write as _;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, Scope, ScopedJoinHandle};

use mio::net::TcpListener;

use super::server::Server;
use super::serving::Signalled;
use super::traced::Traced;
use crate::daemon::service_manager::ServiceManager;
use crate::daemon::succession::ListenerKind;
use crate::daemon::workers::{Worker, Workers};
use crate::failure::{Exit, Failure, panic_message};
use crate::protocol::Protocol;
use crate::reactor::{Ending, Remote};
use crate::telemetry::Stats;
use crate::trace::record;

/// The loops beside the first.
#[derive(Debug, Default)]
pub(super) struct WorkerThreads<'scope>(Vec<ScopedJoinHandle<'scope, Option<Ended>>>);

/// What is left of a loop that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) stats: Stats,
    /// The poll failed, or something panicked.
    pub(super) failed: bool,
}

impl<'scope> WorkerThreads<'scope> {
    /// Starts a thread for each of these loops. Nothing of a loop can move between threads, so each
    /// is made on its own. When all are made, and `may_run` agrees, all run, and the first may.
    ///
    /// # Errors
    /// A thread can't be started, a loop can't be made, or it doesn't agree. None of them has served anybody.
    pub(super) fn start<'env, S, M>(
        scope: &'scope Scope<'scope, 'env>,
        first: &mut Server<S>,
        makers: Vec<M>,
        may_run: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure>
    where
        S: Protocol,
        M: FnOnce() -> Result<Server<S>, Failure> + Send + 'scope,
    {
        if makers.is_empty() {
            may_run()?;
            return Ok(Self::default());
        }
        let mut remotes = vec![first.reactor.remote()];
        let (mut threads, mut starts) = (Vec::new(), Vec::new());
        for (index, make) in (1..).zip(makers) {
            let (made, is_made) = mpsc::channel();
            let (start, is_started) = mpsc::channel();
            let thread = thread::Builder::new()
                .name(format!("loop-{index}"))
                .spawn_scoped(scope, move || work(make, &made, &is_started))
                .map_err(|error| {
                    Failure::new(Exit::Failed, format!("no thread for a loop: {error}"))
                })?;
            let lost = |_| Failure::new(Exit::Failed, "a loop ended before it began");
            let (remote, listeners) = is_made.recv().map_err(lost)??;
            remotes.push(remote);
            if let Some(succession) = &mut first.app.succession {
                // What loops share the first one has.
                let own = |&(kind, _): &(ListenerKind, _)| kind == ListenerKind::Own;
                succession.add(listeners.into_iter().filter(own));
            }
            threads.push(thread);
            starts.push(start);
        }
        may_run()?;
        let manager = first.app.manager.as_ref();
        let is_shown = first.app.telemetry.metrics().is_some() || manager.is_some();
        let watchdog = manager.and_then(ServiceManager::watchdog);
        let workers = Arc::new(Workers::new(remotes, is_shown, watchdog));
        for (index, start) in (1..).zip(starts) {
            // The thread waits for this; if it is gone, its end will say why.
            let _ = start.send(Worker::new(Arc::clone(&workers), index));
        }
        first.app.telemetry.look_at(Arc::clone(&workers));
        first.app.worker = Worker::new(workers, 0);
        Ok(Self(threads))
    }

    /// Waits until they have ended.
    fn join(self) -> impl Iterator<Item = Ended> {
        self.0.into_iter().filter_map(|thread| {
            // A loop's panics are caught where it runs; beyond that, nothing is left to be counted.
            thread.join().unwrap_or(Some(Ended {
                stats: Stats::default(),
                failed: true,
            }))
        })
    }
}

/// What wakes a loop that was made, and its listeners.
type Made = (Remote, Vec<(ListenerKind, Weak<TcpListener>)>);

/// Makes a loop, and runs it when all others are made.
fn work<S: Protocol>(
    make: impl FnOnce() -> Result<Server<S>, Failure>,
    made: &Sender<Result<Made, Failure>>,
    start: &Receiver<Worker>,
) -> Option<Ended> {
    let mut server = match make() {
        Ok(server) => server,
        Err(failure) => {
            let _ = made.send(Err(failure));
            return None;
        }
    };
    let _ = made.send(Ok((server.reactor.remote(), server.listeners())));
    server.app.worker = start.recv().ok()?;
    Some(server.run_in_place())
}

impl<S: Protocol> Server<S> {
    /// Runs the loop to its end, whatever that is, and tells the others.
    fn run_in_place(&mut self) -> Ended {
        // After a panic nothing of the loop is used but its counters, which are whole at any time.
        let run = catch_unwind(AssertUnwindSafe(|| {
            if record::is_on() {
                self.reactor.run(&mut Traced::new(&mut self.app))
            } else {
                self.reactor.run(&mut self.app)
            }
        }));
        let failure = match run {
            Ok(Ok(Ending::Drained | Ending::Stopped)) => None,
            Ok(Err(error)) => Some(format!("the loop failed: {error}")),
            Err(panic) => Some(format!("the loop panicked: {}", panic_message(&*panic))),
        };
        if let Some(failure) = &failure {
            log::error!("{failure}");
        }
        let failed = failure.is_some();
        self.app.worker.leave(failed);
        Ended {
            stats: self.reactor.stats().clone(),
            failed,
        }
    }

    pub(super) fn run_until_signal(mut self, others: WorkerThreads<'_>) -> Exit {
        let ended = self.run_with(others);
        let stats = &ended.stats;
        let lost = [
            ("log", self.log_writer.dropped()),
            ("access log", self.app.telemetry.finish()),
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

    /// Runs this loop, which is the first, and waits for the others. Returns what all have counted,
    /// and whether one of them failed.
    fn run_with(&mut self, others: WorkerThreads<'_>) -> Ended {
        let first = self.run_in_place();
        let mut sum = Ended {
            stats: Stats::default(),
            failed: false,
        };
        let are_several = !others.0.is_empty();
        for (index, ended) in iter::once(first).chain(others.join()).enumerate() {
            if are_several {
                log::debug!("loop {index}: {}", ended.stats);
            }
            sum.stats += &ended.stats;
            sum.failed |= ended.failed;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::conn::Timeouts;
    use crate::daemon::listeners;
    use crate::daemon::sources::STOP;
    use crate::limits::MIN_RATE_BYTES;
    use crate::protocol::{Body, Decision, Reply, Request, RequestEnd};
    use crate::telemetry::log_writer::LineWriter;

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3600);

    /// Answers a line, unless it has it panic.
    struct Fragile;

    impl Protocol for Fragile {
        fn respond(&mut self, request: &Request<'_>) -> Decision {
            assert!(request.bytes != b"panic\n", "as it was told");
            if !request.bytes.ends_with(b"\n") {
                return Decision::NEED_MORE;
            }
            let (body, used) = (Body::Bytes(b"fine".as_slice().into()), request.bytes.len());
            let end = RequestEnd::LineFeed;
            Decision::Reply(Reply::bare(Box::default(), body, None, used, end))
        }
    }

    fn server(listener: mio::net::TcpListener) -> Server<Fragile> {
        let timeouts = Timeouts {
            request: LONG,
            keep_alive: LONG,
            stall: LONG,
            min_rate: MIN_RATE_BYTES,
            disk: LONG,
        };
        let log_writer = LineWriter::new(io::sink()).unwrap();
        let mut server = Server::new(Fragile, timeouts, vec![listener], 10, log_writer).unwrap();
        server.set_drain(LONG);
        server
    }

    fn ask(mut client: &TcpStream, bytes: &[u8]) -> Vec<u8> {
        client.write_all(bytes).unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        reply
    }

    /// Runs three loops, each with an address of its own, while a client does something. It must
    /// end them.
    fn run_three(act: impl FnOnce(&[SocketAddr], &Remote) + Send) -> (Exit, Stats) {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = [(); 3].map(|()| listeners::bind(anywhere, 16, false).unwrap());
        let addresses = listeners.each_ref().map(|one| one.local_addr().unwrap());
        let [first, others @ ..] = listeners;
        thread::scope(|scope| {
            let makers = others.map(|listener| move || Ok(server(listener)));
            let mut first = server(first);
            let others = WorkerThreads::start(scope, &mut first, makers.into(), || Ok(())).unwrap();
            let remote = first.reactor.remote();
            scope.spawn(move || act(&addresses, &remote));
            let ended = first.run_with(others);
            (first.exit(&ended), ended.stats)
        })
    }

    #[test]
    fn a_stop_drains_all_and_the_counts_add_up() {
        let (exit, stats) = run_three(|addresses, remote| {
            let clients = addresses.iter().map(|at| TcpStream::connect(at).unwrap());
            let clients: Vec<_> = clients.collect();
            for at in addresses {
                // So the one before it was let in.
                assert_eq!(ask(&TcpStream::connect(at).unwrap(), b"x\n"), b"fine");
            }
            remote.notify(STOP).unwrap();
            // The last one's loop is waited for, and so is the first's, whoever is served first.
            for client in clients {
                assert_eq!(ask(&client, b"x\n"), b"fine");
            }
        });
        assert_eq!(exit, Exit::Done);
        assert_eq!(
            stats.to_string(),
            "accepted 6, closed 6; replied 6, complete 6; 24 bytes sent"
        );
    }

    #[test]
    fn a_loop_that_panics_stops_all_at_once() {
        for fragile in 0..3 {
            let (exit, stats) = run_three(|addresses, _| {
                let silent = addresses.iter().map(|at| TcpStream::connect(at).unwrap());
                let silent: Vec<_> = silent.collect();
                for at in addresses {
                    assert_eq!(ask(&TcpStream::connect(at).unwrap(), b"x\n"), b"fine");
                }
                let _ = (&silent[fragile]).write_all(b"panic\n");
                for mut client in silent {
                    // An end, of either kind: nobody is left waiting.
                    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
                }
            });
            assert_eq!(exit, Exit::Failed);
            // The one that panicked has not been ended.
            assert_eq!([stats.accepted, stats.open()], [6, 1]);
        }
    }

    #[test]
    fn a_loop_that_panics_alone_is_a_failure_too() {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut alone = server(listeners::bind(anywhere, 16, false).unwrap());
        let address = alone.addresses()[0].ip().unwrap();
        let client =
            thread::spawn(move || TcpStream::connect(address).unwrap().write_all(b"panic\n"));
        let ended = alone.run_with(WorkerThreads::default());
        assert_eq!(alone.exit(&ended), Exit::Failed);
        client.join().unwrap().unwrap();
    }

    #[test]
    fn a_loop_that_cant_be_made_ends_the_start() {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut first = server(listeners::bind(anywhere, 16, false).unwrap());
        let failure = thread::scope(|scope| {
            let maker = |fails: bool| {
                move || {
                    if fails {
                        Err(Failure::usage("no"))
                    } else {
                        Ok(server(listeners::bind(anywhere, 16, false).unwrap()))
                    }
                }
            };
            WorkerThreads::start(
                scope,
                &mut first,
                vec![maker(false), maker(true)],
                || Ok(()),
            )
            .unwrap_err()
        });
        assert_eq!(failure.line, "no");
    }
}
