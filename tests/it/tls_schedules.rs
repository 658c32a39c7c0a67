//! TLS under every kind of schedule, with rustls on both sides: what the client gets doesn't depend on how
//! records are split, when the socket blocks and how much it takes; a body that was cut off never has a
//! close_notify behind it; and whatever else is sent to the server ends.

use std::fs;

use carafe::file::FsClass;
use carafe::limits::{COPIED_BODY_BYTES_MAX, NAME_GAP, STEP_BYTES_MAX};
use carafe::protocol::Protocol;
use carafe::protocol::bare::Bare;
use carafe::reactor::event::Action;
use carafe::root::Root;
use carafe::telemetry::Reason;
use carafe::testing::Bench;
use carafe::testing::tls_wire::{ClientEnd, TlsWire};
use carafe::testing::wire::{Choices, Wire};
use proptest::prelude::*;
use proptest::sample::select;

use crate::chaos::chaos;

const ENDS: [ClientEnd; 4] = [
    ClientEnd::Open,
    ClientEnd::Notify,
    ClientEnd::NotifyAndFin,
    ClientEnd::Fin,
];

fn bench<S: Protocol>(
    tcp: Wire,
    version: usize,
    request: &[u8],
    end: ClientEnd,
    key_updates: u32,
    service: S,
) -> Bench<TlsWire, S> {
    let (server, clients) = &*crate::targets::TLS;
    let configs = (server, &clients[version]);
    let wire = TlsWire::new(tcp, configs, request, end, key_updates);
    Bench::new(wire, service)
}

fn tcp(choices: Choices, blocks: u32) -> Wire {
    Wire::new(choices, b"", false, blocks)
}

/// Whatever comes first, comes whole, and all that is sent is taken.
fn at_once() -> Choices {
    Choices::given([255; 64])
}

#[test]
fn http_over_tls_is_http() {
    const REQUESTS: &[&str] = &[
        "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD /big HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=3-40000\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9,40-60,-7\r\n\r\n",
        "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /list/?tar HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /list/?tar HTTP/1.1\r\nHost: h\r\nRange: bytes=9-600,700-1500,-7\r\n\r\n",
        "GET /list/ HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n\r\n",
        "DELETE /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
        "GET /a HTTP/9.9\r\nHost: h\r\n\r\n",
        "a\n",
        "big\n",
        "missing\n",
    ];
    let inputs = (
        prop::collection::vec(select(REQUESTS), 1..5),
        prop::collection::vec(any::<u8>(), 0..255),
        0..2usize,
        select(&ENDS[..3]),
        0..3u32,
        select(&[None, Some(FsClass::ReadOnce), Some(FsClass::Remote)]),
    );
    chaos(
        600,
        inputs,
        |(requests, schedule, version, end, updates, kind)| {
            let input = requests.concat();
            let fin = end != ClientEnd::Open;
            let plain = Wire::new(at_once(), input.as_bytes(), fin, 0);
            let mut plain = Bench::new(plain, crate::targets::service(None));
            let plain_ended = plain.run();
            let wire = tcp(Choices::given(schedule), 20).cold(10);
            let service = crate::targets::service(kind);
            let mut secure = bench(wire, version, input.as_bytes(), end, updates, service);
            let ended = secure.run();
            secure.transport.pump();
            let client = &secure.transport;
            prop_assert!(client.error.is_none(), "{:?}", client.error);
            let without_dates = crate::targets::without_dates;
            prop_assert_eq!(
                without_dates(&client.received).escape_ascii().to_string(),
                without_dates(&plain.transport.sent)
                    .escape_ascii()
                    .to_string()
            );
            prop_assert!(
                matches!(ended, Action::Close(_)) == matches!(plain_ended, Action::Close(_))
            );
            prop_assert!(
                client.is_told_goodbye || !matches!(ended, Action::Close(_)),
                "{:?}",
                ended
            );
            Ok(())
        },
    );
}

/// Every place at which what the client sends may be cut in two.
#[test]
fn what_is_said_may_be_cut_anywhere() {
    for version in 0..2 {
        let mut first = 0;
        loop {
            let wire = tcp(at_once(), 0).cut_at(first);
            let service = crate::targets::service(None);
            let mut bench = bench(wire, version, b"a\n", ClientEnd::Open, 0, service);
            let ended = bench.run();
            bench.transport.pump();
            assert_eq!(ended, Action::Close(Reason::Complete), "{first}");
            assert_eq!(bench.transport.received, b"body", "{first}");
            assert!(bench.transport.is_told_goodbye, "{first}");
            first += 1;
            if first > bench.transport.tcp.said() {
                break;
            }
        }
        assert!(first > 300, "a hello and a request are long");
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn chaos_never_makes_a_part_look_whole() {
    let small = content(COPIED_BODY_BYTES_MAX as usize - 7);
    let large = content(2 * STEP_BYTES_MAX as usize + 11);
    let folder = tempfile::tempdir().unwrap();
    let bodies = [&small[..], &large[..], b"", b""];
    let names = ["small", "large", "none", "nothing"];
    for (name, body) in names.iter().zip(bodies).take(3) {
        fs::write(folder.path().join(name), body).unwrap();
    }
    const ENDINGS: &[&str] = &["\n", "\r\n", "", "\nand more that nobody asked for"];
    let inputs = (
        0..4usize,
        select(ENDINGS),
        0..2usize,
        select(&ENDS[..]),
        0..2u32,
        select(&[
            FsClass::InMemory,
            FsClass::Nowait,
            FsClass::ReadOnce,
            FsClass::Remote,
        ]),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    chaos(
        400,
        inputs,
        |(name, ending, version, end, updates, kind, schedule)| {
            let input = format!("{}{ending}", names[name]);
            let mut root = Root::open(folder.path(), false).unwrap();
            root.assume(kind);
            let service = Bare::new(root, Some(NAME_GAP));
            let wire = tcp(Choices::given(schedule), 50).fragile().cold(20);
            let mut bench = bench(wire, version, input.as_bytes(), end, updates, service);
            let ended = bench.run();
            bench.transport.pump();
            let (client, whole) = (&bench.transport, bodies[name]);
            prop_assert!(client.error.is_none(), "{:?}", client.error);
            prop_assert!(
                whole.starts_with(&client.received),
                "only bytes of the file"
            );
            let is_whole = client.received.len() == whole.len();
            // A FIN alone, before something was answered, is no end of a request.
            let is_unanswered = ending.is_empty() || whole.is_empty();
            let is_cut = client.tcp.is_broken() || (end == ClientEnd::Fin && is_unanswered);
            prop_assert!(
                is_whole || !client.is_told_goodbye,
                "what was cut off looks whole"
            );
            match ended {
                Action::Close(Reason::Complete) => prop_assert!(is_whole),
                Action::Close(Reason::Refused) => prop_assert!(names[name] == "nothing"),
                Action::Close(Reason::PeerReset) | Action::Reset(Reason::PeerReset) => {
                    prop_assert!(is_cut);
                }
                other => prop_assert!(is_cut, "no reason for {:?}", other),
            }
            prop_assert!(is_whole || is_cut);
            Ok(())
        },
    );
}

/// What breaks TLS's rules ends, without a panic, and brings nothing.
#[test]
fn hostile_records_end() {
    #[derive(Clone, Debug)]
    enum Harm {
        /// A bit of what the client sends is another.
        Flip(prop::sample::Index, u8),
        /// It ends early.
        Cut(prop::sample::Index),
        /// Something is put into it.
        Insert(prop::sample::Index, Vec<u8>),
        /// A part of it comes twice.
        Repeat(prop::sample::Index, prop::sample::Index),
    }
    let at = any::<prop::sample::Index>;
    let record = (
        select(&[20u8, 21, 22, 23, 24, 99]),
        prop::collection::vec(any::<u8>(), 0..80),
    );
    let record = record.prop_map(|(kind, body)| {
        let mut bytes = vec![kind, 3, 3, 0, body.len() as u8];
        bytes.extend(body);
        bytes
    });
    let harm = prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        at().prop_map(Harm::Cut),
        (at(), record).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (at(), at()).prop_map(|(from, to)| Harm::Repeat(from, to)),
    ];
    let inputs = (
        prop::collection::vec(harm, 1..3),
        0..4usize,
        0..2usize,
        prop::collection::vec(any::<u8>(), 0..60),
    );
    chaos(1500, inputs, |(harms, flight, version, schedule)| {
        let service = crate::targets::service(None);
        let wire = tcp(Choices::given(schedule), 5);
        let mut bench = bench(wire, version, b"big\n", ClientEnd::Open, 0, service);
        bench.transport.harm(flight, move |bytes| {
            for harm in &harms {
                match harm {
                    _ if bytes.is_empty() => {}
                    Harm::Flip(at, bit) => {
                        let at = at.index(bytes.len());
                        bytes[at] ^= 1 << bit;
                    }
                    Harm::Cut(at) => bytes.truncate(at.index(bytes.len())),
                    Harm::Insert(at, record) => {
                        let at = at.index(bytes.len());
                        bytes.splice(at..at, record.iter().copied());
                    }
                    Harm::Repeat(from, to) => {
                        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                        let part = bytes[from.min(to)..from.max(to)].to_vec();
                        bytes.extend(part);
                    }
                }
            }
        });
        let ended = bench.run();
        prop_assert!(matches!(ended, Action::Close(_) | Action::Reset(_)));
        Ok(())
    });
}
