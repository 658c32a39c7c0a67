//! The loop alone, with applications that do nothing but say what they want next.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as Client};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use carafe::limits::{LARGE_STEP_BYTES, LOOP_TURN_BYTES_MAX, SHRINK_DELAY, SLAB_SLOTS_KEPT};
use carafe::reactor::event::{Action, Event, Reclaimable};
use carafe::reactor::{
    Context, Ending, Handler, ListenerId, LoopHandle, Reactor, Remote, SourceId, Token,
};
use carafe::telemetry::{Reason, Stats};
use mio::net::{TcpListener, TcpStream};

/// Longer than any test takes.
const DRAIN: Duration = Duration::from_secs(30);

/// How a test's application decides, given how many steps the connection has had before.
type Decide = Box<dyn FnMut(&mut TcpStream, u32, Event, &mut Context<'_, u32>) -> Action + Send>;

struct Probe {
    decide: Decide,
    ended: Vec<(Token, Reason)>,
    sources: Vec<SourceId>,
    /// Drain after so many ends.
    drain_after: usize,
    parked: Vec<Token>,
}

impl Handler for Probe {
    type Conn = u32;

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_, u32>) -> u32 {
        0
    }

    fn step(
        &mut self,
        steps: &mut u32,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, u32>,
    ) -> Action {
        *steps += 1;
        let next = (self.decide)(socket, *steps - 1, event, cx);
        if next == Action::Suspend {
            self.parked.push(cx.token());
        }
        next
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle<u32>) {
        self.sources.push(id);
        control.drain(Duration::ZERO);
    }

    fn ended(&mut self, _: u32, token: Token, reason: Reason, control: &mut LoopHandle<u32>) {
        self.ended.push((token, reason));
        for parked in self.parked.drain(..).chain([token]) {
            control.wake(parked);
        }
        if self.ended.len() == self.drain_after {
            control.drain(DRAIN);
        }
    }
}

/// What a finished loop leaves.
struct Outcome {
    ending: Ending,
    stats: Stats,
    probe: Probe,
    /// How many connections the slab has memory for.
    places: usize,
}

/// Runs a loop beside `clients`, until so many connections have ended.
fn run(
    drain_after: usize,
    connections_max: usize,
    decide: impl FnMut(&mut TcpStream, u32, Event, &mut Context<'_, u32>) -> Action + Send + 'static,
    clients: impl FnOnce(SocketAddr, Remote),
) -> Outcome {
    let decide = Box::new(decide);
    let (ended, sources, parked) = (Vec::new(), Vec::new(), Vec::new());
    let mut probe = Probe {
        decide,
        ended,
        sources,
        drain_after,
        parked,
    };
    let started = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut reactor = Reactor::new(vec![listener], connections_max).unwrap();
    let remote = reactor.remote();
    let outcome = thread::scope(|scope| {
        let server = scope.spawn(move || {
            let ending = reactor.run(&mut probe).unwrap();
            Outcome {
                ending,
                stats: reactor.stats().clone(),
                probe,
                places: reactor.places(),
            }
        });
        clients(address, remote);
        server.join().unwrap()
    });
    assert!(started.elapsed() < DRAIN, "the drain's deadline ended it");
    // Whatever happened, each connection ended for one reason and none is left.
    assert_eq!(outcome.stats.open(), 0);
    assert_eq!(outcome.stats.accepted, outcome.probe.ended.len() as u64);
    outcome
}

fn connect_all(address: SocketAddr, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| Client::connect(address).unwrap());
    clients.collect()
}

fn read_all(mut client: Client) -> std::io::Result<Vec<u8>> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn act_first_an_answer_in_the_first_step_never_waits() {
    let outcome = run(
        1,
        10,
        |socket, _, event, _| {
            assert_eq!(event, Event::Start);
            socket.write_all(b"hi").unwrap();
            Action::Close(Reason::Complete)
        },
        |address, _| assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b"hi"),
    );
    assert_eq!(outcome.ending, Ending::Drained);
    assert_eq!(outcome.stats.ended(Reason::Complete), 1);
}

#[test]
fn one_that_never_blocks_holds_up_no_newcomer() {
    let (mut bulk, mut is_served) = (None, false);
    let outcome = run(
        2,
        10,
        move |_, _, _, cx| {
            is_served |= *bulk.get_or_insert(cx.token()) != cx.token();
            if is_served {
                Action::Close(Reason::Complete)
            } else {
                Action::Yield
            }
        },
        |address, _| {
            let bulk = Client::connect(address).unwrap();
            assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b"");
            assert_eq!(read_all(bulk).unwrap(), b"");
        },
    );
    assert_eq!(outcome.stats.ended(Reason::Complete), 2);
}

#[test]
fn the_run_queue_goes_round() {
    const CONNECTIONS: usize = 4;
    let (mut started, mut order) = (0, Vec::new());
    run(
        CONNECTIONS,
        10,
        move |_, steps, _, cx| {
            started += usize::from(steps == 0);
            if started == CONNECTIONS {
                order.push(cx.token());
            }
            if order.len() < 10 * CONNECTIONS {
                return Action::Yield;
            }
            // The turn in which the last one came is left out.
            for round in order[CONNECTIONS..10 * CONNECTIONS].windows(CONNECTIONS) {
                let different: HashSet<_> = round.iter().collect();
                assert_eq!(different.len(), CONNECTIONS, "{order:?}");
            }
            Action::Close(Reason::Complete)
        },
        |address, _| {
            for client in connect_all(address, CONNECTIONS) {
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
}

#[test]
fn a_turn_is_over_when_all_together_have_moved_its_bytes() {
    const CONNECTIONS: usize = 8;
    const STEPS: usize = 20 * CONNECTIONS;
    let (mut started, mut turns) = (0, Vec::new());
    run(
        CONNECTIONS,
        10,
        move |_, steps, _, cx| {
            started += usize::from(steps == 0);
            cx.turn.bytes_moved = LOOP_TURN_BYTES_MAX / 2;
            if started == CONNECTIONS {
                turns.push(cx.turn.now);
            }
            if turns.len() < STEPS {
                return Action::Yield;
            }
            let of_a_turn = turns.chunk_by(|one, next| one == next);
            assert_eq!(of_a_turn.map(<[_]>::len).max(), Some(2));
            Action::Close(Reason::Complete)
        },
        |address, _| {
            for client in connect_all(address, CONNECTIONS) {
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
}

/// Requests that come all at once, on connections that wait, are no exception.
#[test]
fn a_turn_is_over_for_those_with_news_too_and_none_of_it_is_lost() {
    const CONNECTIONS: usize = 40;
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (orders, order) = mpsc::channel();
    let mut names = HashMap::new();
    run(
        CONNECTIONS + 2,
        2 * CONNECTIONS,
        move |socket, _, event, cx| {
            let next_name = names.len();
            let name = *names.entry(cx.token()).or_insert(next_name);
            match socket.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                result => assert_eq!(result.unwrap(), 1),
            }
            match name {
                // The loop stands until all others have something for it, and one is at the door.
                CONNECTIONS => {
                    holds.send(()).unwrap();
                    released.recv().unwrap();
                }
                name => {
                    cx.turn.bytes_moved = LOOP_TURN_BYTES_MAX / 2;
                    orders.send((cx.turn.now, name, event)).unwrap();
                }
            }
            Action::Close(Reason::Complete)
        },
        |address, _| {
            let mut clients = connect_all(address, CONNECTIONS + 1);
            clients[CONNECTIONS].write_all(b"x").unwrap();
            held.recv().unwrap();
            for client in &mut clients[..CONNECTIONS] {
                client.write_all(b"x").unwrap();
                crate::common::until("the loop's kernel has it", || {
                    carafe::sockopt::acked_bytes(client).unwrap() >= 1
                });
            }
            let mut newcomer = Client::connect(address).unwrap();
            newcomer.write_all(b"x").unwrap();
            release.send(()).unwrap();
            for client in clients.into_iter().chain([newcomer]) {
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
    let order: Vec<_> = order.iter().collect();
    assert_eq!(order.len(), CONNECTIONS + 1);
    // Two make up a turn, and one from the queue goes on however much the others move.
    let turns = order.chunk_by(|one, next| one.0 == next.0);
    assert!(turns.map(<[_]>::len).all(|len| len <= 3), "{order:?}");
    // They are queued, so the newcomer has its turn in the middle.
    let place = order.iter().position(|step| step.1 > CONNECTIONS);
    assert!(place.is_some_and(|place| place <= 3), "{order:?}");
}

#[test]
fn what_edges_said_is_kept_while_others_go_first() {
    const CONNECTIONS: usize = 8;
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (events, event) = mpsc::channel();
    let mut stepped = 0;
    run(
        CONNECTIONS + 1,
        2 * CONNECTIONS,
        move |socket, _, event, cx| {
            match socket.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                result => assert_eq!(result.unwrap(), 1),
            }
            // The loop stands until all others have something for it, and again until there is more.
            if matches!(stepped, 0 | 2) {
                holds.send(()).unwrap();
                released.recv().unwrap();
            }
            stepped += 1;
            if stepped > 1 {
                cx.turn.bytes_moved = LOOP_TURN_BYTES_MAX / 2;
                events.send(event).unwrap();
            }
            Action::Close(Reason::Complete)
        },
        |address, _| {
            let mut clients = connect_all(address, CONNECTIONS + 1);
            let until_acked = |client: &Client, bytes| {
                crate::common::until("the loop's kernel has it", || {
                    carafe::sockopt::acked_bytes(client).unwrap() >= bytes
                });
            };
            clients[CONNECTIONS].write_all(b"x").unwrap();
            held.recv().unwrap();
            for client in &mut clients[..CONNECTIONS] {
                client.write_all(b"x").unwrap();
                until_acked(client, 1);
            }
            release.send(()).unwrap();
            held.recv().unwrap();
            for client in &clients[..CONNECTIONS] {
                client.shutdown(std::net::Shutdown::Write).unwrap();
                // A FIN counts for one.
                until_acked(client, 2);
            }
            release.send(()).unwrap();
            for client in clients {
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
    let said: Vec<_> = event.iter().collect();
    assert_eq!(said.len(), CONNECTIONS);
    for (place, event) in said.into_iter().enumerate() {
        let Event::Ready(edge) = event else {
            panic!("{place}: {event:?}");
        };
        // The first two make up a turn; the others' FIN came while they were queued.
        let expected = (true, place >= 2);
        assert_eq!((edge.readable, edge.read_closed), expected, "{place}");
    }
}

#[test]
fn who_wants_a_lot_has_a_step_a_turn_however_much_newcomers_move() {
    const NEWCOMERS: usize = 50;
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (mut bulk, mut waited, mut most_waited) = (None, 0, 0);
    run(
        NEWCOMERS + 1,
        2 * NEWCOMERS,
        move |_, steps, event, cx| {
            cx.turn.bytes_moved = LOOP_TURN_BYTES_MAX;
            if *bulk.get_or_insert(cx.token()) != cx.token() {
                assert_eq!(event, Event::Start);
                waited += 1;
                most_waited = most_waited.max(waited);
                return Action::Close(Reason::Complete);
            }
            if steps == 0 {
                // The loop stands until all the others are at the door.
                holds.send(()).unwrap();
                released.recv().unwrap();
            }
            waited = 0;
            if cx.control.stats.accepted > NEWCOMERS as u64 {
                assert!(most_waited <= 2, "{most_waited} went before it");
                Action::Close(Reason::Complete)
            } else {
                Action::Yield
            }
        },
        |address, _| {
            let bulk = Client::connect(address).unwrap();
            held.recv().unwrap();
            let newcomers: Vec<_> = (0..NEWCOMERS)
                .map(|_| Client::connect(address).unwrap())
                .collect();
            release.send(()).unwrap();
            for client in newcomers {
                assert_eq!(read_all(client).unwrap(), b"");
            }
            assert_eq!(read_all(bulk).unwrap(), b"");
        },
    );
}

#[test]
fn who_wants_little_goes_before_who_wants_a_lot() {
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (orders, order) = mpsc::channel();
    let mut names = HashMap::new();
    run(
        3,
        10,
        move |socket, _, _, cx| {
            let next_name = ["greedy", "modest", "holding"][names.len().min(2)];
            let name = *names.entry(cx.token()).or_insert(next_name);
            if name == "greedy" {
                cx.turn.bytes_moved = LARGE_STEP_BYTES;
            }
            match socket.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                result => assert_eq!(result.unwrap(), 1),
            }
            match name {
                // The loop stands until both others have something for it.
                "holding" => {
                    holds.send(()).unwrap();
                    released.recv().unwrap();
                }
                name => orders.send(name).unwrap(),
            }
            Action::Close(Reason::Complete)
        },
        |address, _| {
            let mut clients = [(); 3].map(|()| Client::connect(address).unwrap());
            clients[2].write_all(b"x").unwrap();
            held.recv().unwrap();
            for client in &mut clients[..2] {
                client.write_all(b"x").unwrap();
                crate::common::until("the loop's kernel has it", || {
                    carafe::sockopt::acked_bytes(client).unwrap() >= 1
                });
            }
            release.send(()).unwrap();
            for client in clients {
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
    assert_eq!(order.iter().collect::<Vec<_>>(), ["modest", "greedy"]);
}

#[test]
fn reset_is_an_error_for_the_peer_and_close_is_none() {
    let mut count = 0;
    run(
        2,
        10,
        move |_, _, _, _| {
            count += 1;
            if count == 1 {
                Action::Close(Reason::Complete)
            } else {
                Action::Reset(Reason::Stalled)
            }
        },
        |address, _| {
            assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b"");
            let error = read_all(Client::connect(address).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        },
    );
}

#[test]
fn a_deadline_comes_and_not_before_its_time() {
    const AFTER: Duration = Duration::from_millis(60);
    let mut due = None;
    run(
        1,
        10,
        move |_, _, event, cx| match event {
            Event::Deadline => {
                assert!(due.is_some_and(|due| due <= Instant::now()));
                Action::Close(Reason::RequestTimeout)
            }
            Event::Start => {
                due = Some(cx.turn.now + AFTER);
                cx.turn.deadline = due;
                Action::Wait
            }
            _ => Action::Wait,
        },
        |address, _| assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b""),
    );
}

#[test]
fn parked_means_until_it_is_woken_and_a_stale_token_wakes_nobody() {
    let outcome = run(
        3,
        10,
        |socket, steps, event, cx| match (event, cx.control.stats.accepted) {
            (Event::Start, 1) => Action::Suspend,
            (Event::Start, _) => Action::Close(Reason::Complete),
            (Event::Woken, _) => {
                assert_eq!(steps, 1, "its input has not stepped it");
                assert_eq!(socket.read(&mut [0; 9]).unwrap(), 5);
                Action::Close(Reason::Stalled)
            }
            other => panic!("parked, and stepped with {other:?}"),
        },
        |address, _| {
            let mut waiting = Client::connect(address).unwrap();
            waiting.write_all(b"input").unwrap();
            // The end of one wakes the parked one, and its own token, which is stale by then.
            assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b"");
            assert_eq!(read_all(waiting).unwrap(), b"");
            assert_eq!(read_all(Client::connect(address).unwrap()).unwrap(), b"");
        },
    );
    assert_eq!(outcome.stats.ended(Reason::Stalled), 1);
}

/// Parks its connection, and wakes it when another thread calls.
#[derive(Default)]
struct Parking {
    parked: Option<Token>,
    turns_when_called: u64,
    turns_when_woken: u64,
}

impl Handler for Parking {
    type Conn = ();

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_, ()>) {}

    fn step(
        &mut self,
        (): &mut (),
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, ()>,
    ) -> Action {
        match event {
            Event::Start => {
                self.parked = Some(cx.token());
                assert_eq!(socket.write(b"!").unwrap(), 1);
                Action::Suspend
            }
            _ => {
                self.turns_when_woken = cx.control.stats.turns.counts().iter().sum();
                cx.control.drain(Duration::ZERO);
                Action::Close(Reason::Complete)
            }
        }
    }

    fn source(&mut self, _: SourceId, control: &mut LoopHandle<()>) {
        self.turns_when_called = control.stats.turns.counts().iter().sum();
        control.wake(self.parked.expect("the connection came first"));
    }

    fn ended(&mut self, (): (), _: Token, _: Reason, _: &mut LoopHandle<()>) {}
}

#[test]
fn whom_another_thread_wakes_is_stepped_in_the_same_turn() {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::connect(address).unwrap();
    let mut reactor = Reactor::new(vec![listener], 10).unwrap();
    let (remote, mut app) = (reactor.remote(), Parking::default());
    let app = thread::scope(|scope| {
        let server = scope.spawn(move || {
            reactor.run(&mut app).unwrap();
            app
        });
        client.read_exact(&mut [0]).unwrap();
        remote.notify(SourceId(0)).unwrap();
        assert_eq!(read_all(client).unwrap(), b"");
        server.join().unwrap()
    });
    assert!(app.turns_when_called > 0);
    assert_eq!(app.turns_when_woken, app.turns_when_called);
}

#[test]
fn the_death_of_its_peer_steps_a_parked_connection() {
    let outcome = run(
        1,
        10,
        |_, _, event, _| match event {
            Event::Start => Action::Suspend,
            Event::Ready(edge) if edge.dead => Action::Close(Reason::PeerReset),
            other => panic!("parked, and stepped with {other:?}"),
        },
        |address, _| {
            let client = Client::connect(address).unwrap();
            let no_linger = Some(Duration::ZERO);
            socket2::SockRef::from(&client)
                .set_linger(no_linger)
                .unwrap();
        },
    );
    assert_eq!(outcome.stats.ended(Reason::PeerReset), 1);
}

#[test]
fn a_connection_limit_rests_the_listener_and_an_end_wakes_it() {
    let outcome = run(
        20,
        2,
        |socket, _, _, _| match socket.read(&mut [0; 1]) {
            Ok(_) => Action::Close(Reason::Complete),
            Err(_) => Action::Wait,
        },
        |address, _| {
            let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address).unwrap()).collect();
            for mut client in clients.drain(..) {
                client.write_all(b"x").unwrap();
                assert_eq!(read_all(client).unwrap(), b"");
            }
        },
    );
    assert_eq!(outcome.stats.ended(Reason::Complete), 20);
}

#[test]
fn a_remote_reaches_the_loop_and_a_drain_resets_what_is_left() {
    let outcome = run(
        usize::MAX,
        10,
        |socket, _, event, _| match event {
            Event::Stop(_) => Action::Wait,
            _ => {
                let _ = socket.write(b"!");
                Action::Wait
            }
        },
        |address, remote| {
            let mut client = Client::connect(address).unwrap();
            client.read_exact(&mut [0]).unwrap();
            remote.notify(SourceId(7)).unwrap();
            let error = read_all(client).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        },
    );
    assert_eq!(outcome.probe.sources, [SourceId(7)]);
    assert_eq!(outcome.stats.ended(Reason::DrainDeadline), 1);
}

#[test]
fn the_slab_is_given_back_when_most_have_left() {
    const MANY: usize = SLAB_SLOTS_KEPT + 100;
    crate::common::raise_own_limit();
    let outcome = run(
        MANY + 1,
        MANY + 1,
        move |socket, _, event, cx| match (event, socket.read(&mut [0; 1])) {
            (Event::Deadline, _) => Action::Close(Reason::Complete),
            // The one that stays says so when the others have left, and is there for longer than
            // the slab.
            (_, Ok(1)) => {
                cx.turn.deadline = Some(cx.turn.now + 2 * SHRINK_DELAY);
                Action::Wait
            }
            (_, Ok(_)) => Action::Close(Reason::ClientLeft),
            (_, Err(_)) => Action::Wait,
        },
        |address, _| {
            let mut stays = Client::connect(address).unwrap();
            drop(connect_all(address, MANY));
            stays.write_all(b"!").unwrap();
            assert_eq!(read_all(stays).unwrap(), b"");
        },
    );
    assert_eq!(outcome.stats.ended(Reason::ClientLeft), MANY as u64);
    assert!(
        outcome.places < SLAB_SLOTS_KEPT,
        "{} places",
        outcome.places
    );
}

// ---- who makes room ----

/// Waits for input, and counts what that costs.
#[derive(Default)]
struct Waiting {
    /// Steps, and looks at what a connection waits for.
    steps: usize,
    looks: Cell<usize>,
    /// In the order in which they ended.
    ended: Vec<(u32, Reason)>,
    accepted: u32,
}

impl Handler for Waiting {
    /// A number.
    type Conn = u32;

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_, u32>) -> u32 {
        self.accepted += 1;
        self.accepted - 1
    }

    fn step(
        &mut self,
        _: &mut u32,
        socket: &mut TcpStream,
        event: Event,
        _: &mut Context<'_, u32>,
    ) -> Action {
        self.steps += 1;
        match (socket.read(&mut [0; 8]), event) {
            (Ok(0), _) => Action::Close(Reason::ClientLeft),
            (Ok(_), _) => Action::Close(Reason::Complete),
            (Err(_), Event::Reclaim) => Action::Close(Reason::Evicted),
            (Err(_), _) => Action::Wait,
        }
    }

    fn reclaimable(&self, number: &u32) -> Option<Reclaimable> {
        self.looks.set(self.looks.get() + 1);
        Some([Reclaimable::Silent, Reclaimable::Idle][*number as usize % 2])
    }

    fn source(&mut self, _: SourceId, control: &mut LoopHandle<u32>) {
        control.drain(Duration::ZERO);
    }

    fn ended(&mut self, number: u32, _: Token, reason: Reason, _: &mut LoopHandle<u32>) {
        self.ended.push((number, reason));
    }
}

#[test]
fn room_is_made_by_one_step_however_many_are_there_and_in_order() {
    const PLACES: usize = 200;
    const NEWCOMERS: usize = 300;
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut reactor = Reactor::new(vec![listener], PLACES).unwrap();
    let remote = reactor.remote();
    let mut app = Waiting::default();
    let (app, stats) = thread::scope(|scope| {
        let server = scope.spawn(move || {
            reactor.run(&mut app).unwrap();
            (app, reactor.stats().clone())
        });
        let mut clients = connect_all(address, PLACES + NEWCOMERS);
        // Who came last is there, and all before it have made their room.
        let mut last = clients.pop().unwrap();
        last.write_all(b"!").unwrap();
        assert_eq!(read_all(last).unwrap(), b"");
        remote.notify(SourceId(0)).unwrap();
        server.join().unwrap()
    });
    assert_eq!((stats.accepted, stats.open()), (500, 0));
    assert_eq!(stats.ended(Reason::Evicted), NEWCOMERS as u64);
    let evicted = app.ended.iter().filter(|end| end.1 == Reason::Evicted);
    let evicted: Vec<_> = evicted.map(|end| end.0).collect();
    // All that are silent, which is every other one, and the others when none is left.
    let (silent, idle): (Vec<u32>, Vec<u32>) = evicted.iter().partition(|&number| number % 2 == 0);
    assert!(silent.is_sorted() && idle.is_sorted(), "{evicted:?}");
    assert!(
        evicted[..PLACES].iter().all(|number| number % 2 == 0),
        "{evicted:?}"
    );
    // A first step each, one for its first edge, and one to go; of those who are left, two more.
    assert!(
        app.steps <= 3 * (PLACES + NEWCOMERS) + 2 * PLACES,
        "{}",
        app.steps
    );
    assert!(app.looks.get() <= app.steps, "{}", app.looks.get());
}

// ---- connections that the application begins ----

/// How a connection of [`Caller`] ended: its number, what it was stepped with, and the reason.
type Call = (u32, Vec<Event>, Reason);

/// Connects to a listener, so many times, and may stop the loop at once.
struct Caller {
    to: SocketAddr,
    calls: u32,
    stops: bool,
    stepped: HashMap<u32, Vec<Event>>,
    ended: Vec<Call>,
}

impl Handler for Caller {
    type Conn = u32;

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_, u32>) -> u32 {
        panic!("there is no listener")
    }

    fn step(
        &mut self,
        number: &mut u32,
        socket: &mut TcpStream,
        event: Event,
        _: &mut Context<'_, u32>,
    ) -> Action {
        self.stepped.entry(*number).or_default().push(event);
        match (event, socket.read(&mut [0; 8])) {
            (Event::Stop(reason), _) => Action::Reset(reason),
            (_, Ok(0)) => Action::Close(Reason::Complete),
            (_, Ok(_)) => Action::Yield,
            (_, Err(_)) => Action::Wait,
        }
    }

    fn source(&mut self, _: SourceId, control: &mut LoopHandle<u32>) {
        for number in 0..self.calls {
            let socket = TcpStream::connect(self.to).unwrap();
            control.connect(socket, number);
        }
        if self.stops {
            control.stop();
        }
    }

    fn ended(&mut self, number: u32, _: Token, reason: Reason, control: &mut LoopHandle<u32>) {
        let steps = self.stepped.remove(&number).unwrap_or_default();
        self.ended.push((number, steps, reason));
        if self.ended.len() == self.calls as usize {
            control.stop();
        }
    }
}

/// Runs a loop that calls a server which says a word and closes.
fn call(calls: u32, stops: bool) -> (Ending, Stats, Vec<Call>) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // All call at once. Where the queue is full the kernel gives a connection up after half a minute,
    // and its client, which has nothing to send, never hears of it.
    rustix::net::listen(&server, 1024).unwrap();
    let to = server.local_addr().unwrap();
    thread::spawn(move || {
        let mut unanswered = Vec::new();
        for mut client in server.incoming().flatten() {
            if stops {
                unanswered.push(client)
            } else {
                drop(client.write_all(b"word"))
            }
        }
    });
    let mut reactor = Reactor::new(Vec::new(), 0).unwrap();
    reactor.remote().notify(SourceId(0)).unwrap();
    let mut caller = Caller {
        to,
        calls,
        stops,
        stepped: HashMap::new(),
        ended: Vec::new(),
    };
    let ending = reactor.run(&mut caller).unwrap();
    caller.ended.sort_by_key(|call| call.0);
    (ending, reactor.stats().clone(), caller.ended)
}

#[test]
fn an_application_may_connect() {
    let (ending, stats, calls) = call(300, false);
    assert_eq!(ending, Ending::Stopped);
    assert_eq!(stats.ended(Reason::Complete), 300);
    assert!(calls.iter().map(|call| call.0).eq(0..300));
    for (number, steps, reason) in calls {
        assert_eq!(
            (steps[0], reason),
            (Event::Start, Reason::Complete),
            "{number}"
        );
    }
}

#[test]
fn connects_that_are_queued_when_the_loop_stops_are_ended() {
    let (ending, stats, calls) = call(300, true);
    assert_eq!(ending, Ending::Stopped);
    assert!(calls.iter().map(|call| call.0).eq(0..300));
    for (number, steps, reason) in &calls {
        let last = steps.last();
        assert_eq!(last, Some(&Event::Stop(Reason::Stopped)), "{number}");
        assert_eq!(*reason, Reason::Stopped, "{number}");
    }
    assert_eq!(stats.ended(Reason::Stopped), 300);
}

/// Holds up the end of its loop until it has been told so many times.
struct Lingerer {
    told: u32,
    enough: u32,
    /// Hears of each time.
    heard: mpsc::Sender<u32>,
    turns: u64,
}

impl Handler for Lingerer {
    type Conn = ();

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_, ()>) {}

    fn step(
        &mut self,
        (): &mut (),
        _: &mut TcpStream,
        _: Event,
        _: &mut Context<'_, ()>,
    ) -> Action {
        Action::Wait
    }

    fn source(&mut self, _: SourceId, control: &mut LoopHandle<()>) {
        self.told += 1;
        // Over at once, whoever is there.
        control.drain(Duration::ZERO);
        self.heard.send(self.told).unwrap();
    }

    fn ended(&mut self, (): (), _: Token, _: Reason, _: &mut LoopHandle<()>) {}

    fn may_end(&self) -> bool {
        self.told == self.enough
    }

    fn turn_over(&mut self, _: &Stats, _: Instant) -> Option<Instant> {
        self.turns += 1;
        None
    }
}

#[test]
fn a_loop_that_may_not_end_yet_serves_its_sources_and_sleeps_between() {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = Client::connect(listener.local_addr().unwrap()).unwrap();
    let mut reactor = Reactor::new(vec![listener], 10).unwrap();
    let remote = reactor.remote();
    let (heard, hears) = mpsc::channel();
    let enough = 100;
    let mut app = Lingerer {
        told: 0,
        enough,
        heard,
        turns: 0,
    };
    let ending = thread::scope(|scope| {
        scope.spawn(move || {
            for told in 1..=enough {
                remote.notify(SourceId(0)).unwrap();
                assert_eq!(hears.recv().unwrap(), told);
            }
        });
        reactor.run(&mut app).unwrap()
    });
    assert_eq!(ending, Ending::Drained);
    assert_eq!(reactor.stats().ended(Reason::DrainDeadline), 1);
    // One for each time and each client, and a few in the beginning and the end.
    assert!(app.turns < u64::from(enough) + 10, "{} turns", app.turns);
}

/// Only the first of several notes writes to the waker; none is lost for that.
#[test]
fn notes_of_several_threads_at_once_are_all_told() {
    const THREADS: u32 = 4;
    const EACH: u32 = 5_000;
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut reactor = Reactor::new(vec![listener], 10).unwrap();
    let remote = reactor.remote();
    let (heard, hears) = mpsc::channel();
    let enough = THREADS * EACH;
    let mut app = Lingerer {
        told: 0,
        enough,
        heard,
        turns: 0,
    };
    let server = thread::spawn(move || reactor.run(&mut app).unwrap());
    for _ in 0..THREADS {
        let remote = remote.clone();
        thread::spawn(move || (0..EACH).for_each(|_| remote.notify(SourceId(0)).unwrap()));
    }
    for told in 1..=enough {
        assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), told);
    }
    assert_eq!(server.join().unwrap(), Ending::Drained);
}
