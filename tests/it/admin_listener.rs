//! An admin listener, on the loop alone: whom it lets in is not counted, waits for nobody and is
//! waited for by nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as Client};
use std::thread;
use std::time::Duration;

use carafe::reactor::event::{Action, Event};
use carafe::reactor::{Context, Ending, Handler, ListenerId, LoopHandle, Reactor, SourceId, Token};
use carafe::telemetry::Reason;
use mio::net::{TcpListener, TcpStream};

/// Holds everyone, and greets those who come by the admin listener.
struct Host {
    admin: ListenerId,
    /// How long a drain may take.
    patience: Duration,
    ended: Vec<(bool, Reason)>,
}

impl Handler for Host {
    /// Whether it came by the admin listener.
    type Conn = bool;

    fn accepted(
        &mut self,
        from: ListenerId,
        _: Option<SocketAddr>,
        _: &mut Context<'_, bool>,
    ) -> bool {
        from == self.admin
    }

    fn step(
        &mut self,
        is_admin: &mut bool,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, bool>,
    ) -> Action {
        if event == Event::Start {
            // A client that is in keeps the others out.
            cx.control.set_accepting(*is_admin);
            if *is_admin {
                socket.write_all(b"x").unwrap();
            }
        }
        Action::Wait
    }

    fn source(&mut self, _: SourceId, control: &mut LoopHandle<bool>) {
        control.drain(self.patience);
    }

    fn ended(&mut self, is_admin: bool, _: Token, reason: Reason, _: &mut LoopHandle<bool>) {
        self.ended.push((is_admin, reason));
    }
}

/// A loop for one client, and for so many of the admin listener's, with the addresses of both.
fn reactor(admin_max: usize, patience: Duration) -> (Reactor<bool>, Host, [SocketAddr; 2]) {
    let (clients, address) = listener();
    let (admin, admin_address) = listener();
    let mut reactor = Reactor::new(vec![clients], 1).unwrap();
    let host = Host {
        admin: reactor.add_admin_listener(admin, admin_max).unwrap(),
        patience,
        ended: Vec::new(),
    };
    (reactor, host, [address, admin_address])
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn greeted(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

#[test]
fn its_connections_are_let_in_uncounted_and_hold_up_no_end() {
    let (mut reactor, mut host, [address, admin_address]) = reactor(3, Duration::ZERO);
    let remote = reactor.remote();
    let (ending, stats, host) = thread::scope(|scope| {
        let server = scope.spawn(move || {
            let ending = reactor.run(&mut host).unwrap();
            (ending, reactor.stats().clone(), host)
        });
        // Whether or not the client has been let in, they are.
        let client = Client::connect(address).unwrap();
        let held = [(); 3].map(|()| greeted(admin_address));
        remote.notify(SourceId(0)).unwrap();
        let result = server.join().unwrap();
        drop((client, held));
        result
    });
    assert_eq!(ending, Ending::Drained);
    assert_eq!((stats.accepted, stats.open()), (1, 0));
    assert!(stats.turns.counts().iter().sum::<u64>() > 0);
    let mut ended = host.ended;
    ended.sort_by_key(|&(is_admin, _)| is_admin);
    // The client met the drain's deadline; they had to go with the loop.
    assert_eq!(ended[0], (false, Reason::DrainDeadline));
    assert_eq!(ended.len(), 4);
    assert!(ended[1..].iter().all(|&(is_admin, _)| is_admin));
}

#[test]
fn a_drain_is_over_while_one_is_there() {
    let (mut reactor, mut host, [_, admin_address]) = reactor(1, Duration::from_secs(3600));
    let remote = reactor.remote();
    let (ending, host) = thread::scope(|scope| {
        let server = scope.spawn(move || (reactor.run(&mut host).unwrap(), host));
        let held = greeted(admin_address);
        remote.notify(SourceId(0)).unwrap();
        let result = server.join().unwrap();
        drop(held);
        result
    });
    assert_eq!(ending, Ending::Drained);
    assert_eq!(host.ended, [(true, Reason::Stopped)]);
}

#[test]
fn when_none_of_them_waits_for_anything_the_oldest_one_goes() {
    let (mut reactor, mut host, [_, admin_address]) = reactor(3, Duration::ZERO);
    let remote = reactor.remote();
    let host = thread::scope(|scope| {
        let server = scope.spawn(move || {
            reactor.run(&mut host).unwrap();
            host
        });
        let mut held: Vec<_> = (0..10).map(|_| greeted(admin_address)).collect();
        for mut client in held.drain(..7) {
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        remote.notify(SourceId(0)).unwrap();
        server.join().unwrap()
    });
    let evicted = |end: &&(bool, Reason)| **end == (true, Reason::Evicted);
    assert_eq!(host.ended.iter().filter(evicted).count(), 7);
    assert_eq!(host.ended.len(), 10);
}
