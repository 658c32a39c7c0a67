//! A connection that is kept alive, over a scripted transport: requests one after the other, and
//! what becomes of it between them. The protocol of this room answers each line by itself.

use std::io::ErrorKind::ConnectionReset;
use std::sync::Arc;
use std::time::Duration;

use carafe::file::FsClass;
use carafe::limits::{
    INPUT_ON_HEAP_BYTES_MAX, KEEP_ALIVE, REPLIES_PER_STEP_MAX, REQUEST_MEMORY_SHARE_BYTES,
    REQUEST_READ_BYTES_MAX, REQUEST_TIMEOUT, STALL_TIMEOUT, STEP_BYTES_MAX,
};
use carafe::protocol::{Body, Decision, InputState, Protocol, Reply, Request, RequestEnd};
use carafe::reactor::event::{Action, Event, Readiness, Reclaimable};
use carafe::telemetry::{Reason, Stage};
use carafe::testing::{Bench, READABLE, Read, Scripted, WRITABLE, Write};

const ALL: Write = Write::Take(usize::MAX);
const LONG: usize = 3 * STEP_BYTES_MAX as usize;

/// Answers a line `NAME` with `(NAME)`, as a head and a body, and reads on; `close` is the last
/// one, `long` has a long body.
struct Echo;

impl Protocol for Echo {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let Some(end) = request.bytes.iter().position(|&byte| byte == b'\n') else {
            return Decision::NEED_MORE;
        };
        let line = &request.bytes[..end];
        let body = match line {
            b"long" => vec![b'x'; LONG],
            line => [line, b")"].concat(),
        };
        Decision::Reply(Reply {
            target: line.into(),
            head: (*b"(").into(),
            body: Body::Bytes(body.into()),
            refused: None,
            used: end + 1,
            ended_by: RequestEnd::LineFeed,
            keep_alive: line != b"close" && !request.draining && !request.is_crowded,
            status: None,
            http_log: None,
        })
    }
}

fn bench<R, W>(reads: R, writes: W) -> Bench<Scripted, Echo>
where
    R: IntoIterator<Item = Read>,
    W: IntoIterator<Item = Write>,
{
    Bench::new(Scripted::new(reads, writes), Echo)
}

fn bytes(text: &str) -> Read {
    Read::Bytes(text.as_bytes().to_vec())
}

/// Adds to the script of a bench.
fn then(bench: &mut Bench<Scripted, Echo>, reads: &[Read], writes: &[Write]) {
    bench.transport.assert_done();
    bench.transport.reads.extend(reads.iter().cloned());
    bench.transport.writes.extend(writes);
}

/// One request was answered; the connection waits for another.
fn idle() -> Bench<Scripted, Echo> {
    let mut bench = bench([bytes("a\n")], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    bench.transport.assert_done();
    assert_eq!(bench.finished.len(), 1);
    assert_eq!(bench.conn.stage(), Stage::Idle);
    bench
}

#[test]
fn one_request_after_the_other_is_a_read_and_a_write_each() {
    let mut bench = idle();
    assert_eq!(bench.patience(), Some(KEEP_ALIVE));
    then(&mut bench, &[bytes("b\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    then(&mut bench, &[bytes("close\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Close(Reason::Complete));
    bench.transport.assert_done();
    assert_eq!(bench.transport.sent, b"(a)(b)(close)");
    // Only what is followed by the close is held back for its FIN.
    assert_eq!(bench.transport.more, [false, false, true]);
    assert!(bench.transport.guards.is_empty(), "a head says the length");
    let subjects: Vec<_> = bench.finished.iter().map(|one| &*one.target).collect();
    assert_eq!(subjects, [b"a", b"b"]);
}

#[test]
fn pipelined_requests_are_answered_before_the_socket_is_read_again() {
    let mut bench = bench([bytes("a\nb\nclo"), Read::Block], [ALL, ALL]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.transport.sent, b"(a)(b)");
    // The rest of a request has the request's time.
    assert_eq!(bench.patience(), Some(REQUEST_TIMEOUT));
    assert_ne!(bench.conn.stage(), Stage::Idle);
    then(&mut bench, &[bytes("se\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Close(Reason::Complete));
    bench.transport.assert_done();
}

/// Answers a request without an end by its first byte, when the queue is empty: the rest is a body
/// that nobody reads.
struct Hasty;

impl Protocol for Hasty {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let bytes = match request.input_state {
            InputState::WouldBlock => b"close\n",
            _ => &b"c"[..],
        };
        let mut verdict = Echo.respond(&Request { bytes, ..*request });
        if let Decision::Reply(reply) = &mut verdict {
            (reply.used, reply.ended_by) = (1, RequestEnd::Unread);
        }
        verdict
    }
}

#[test]
fn a_queue_that_was_empty_is_not_read_again_for_what_follows_a_request() {
    let mut bench = Bench::new(Scripted::new([Read::Block], [ALL]), Hasty);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    bench.transport.reads.extend([bytes("12"), Read::Block]);
    // With the FIN in the same edge a short read tells nothing of the queue.
    let Event::Ready(edge) = READABLE else {
        panic!("it is an edge")
    };
    let read_closed = true;
    let edge = Event::Ready(Readiness {
        read_closed,
        ..edge
    });
    assert_eq!(bench.step(edge), Action::Wait);
    bench.transport.assert_done();
    assert_eq!(bench.transport.sent, b"(close)");
    // It lingers: what is unread would turn a close into a reset.
    bench.transport.reads.extend([bytes("345"), Read::Eof]);
    assert_eq!(bench.step(READABLE), Action::Close(Reason::Complete));
}

#[test]
fn very_many_pipelined_requests_leave_others_their_turn() {
    let count = 2 * REPLIES_PER_STEP_MAX as usize + 3;
    let mut bench = bench(
        [bytes(&"a\n".repeat(count))],
        vec![ALL; REPLIES_PER_STEP_MAX as usize],
    );
    assert_eq!(bench.step(Event::Start), Action::Yield);
    then(&mut bench, &[], &vec![ALL; REPLIES_PER_STEP_MAX as usize]);
    assert_eq!(bench.step(Event::Resume), Action::Yield);
    then(&mut bench, &[Read::Block], &[ALL; 3]);
    // What lies in the socket's queue made its edge while these were answered.
    assert_eq!(bench.step(Event::Resume), Action::Wait);
    bench.transport.assert_done();
    assert_eq!(bench.finished.len(), count);
}

#[test]
fn the_time_of_a_later_request_begins_with_its_first_byte() {
    let mut bench = idle();
    bench.now += KEEP_ALIVE - Duration::from_secs(1);
    then(&mut bench, &[bytes("b")], &[]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(bench.patience(), Some(REQUEST_TIMEOUT));
    bench.now += REQUEST_TIMEOUT - Duration::from_secs(1);
    then(&mut bench, &[bytes("b")], &[]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::RequestTimeout));
}

#[test]
fn between_requests_every_end_is_a_good_one() {
    let mut bench = idle();
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READABLE), Action::Close(Reason::Complete));

    let mut bench = idle();
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));

    let mut bench = idle();
    let stop = Event::Stop(Reason::DrainDeadline);
    assert_eq!(bench.step(stop), Action::Close(Reason::Complete));

    let mut bench = idle();
    then(&mut bench, &[Read::Fail(ConnectionReset)], &[]);
    assert_eq!(bench.step(READABLE), Action::Reset(Reason::PeerReset));
}

/// The server stops, or others need the place.
const EVENTS: [Event; 2] = [Event::Drain, Event::Reclaim];

#[test]
fn who_is_idle_is_ended_unless_a_request_lies_there() {
    for event in EVENTS {
        let mut bench = idle();
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.step(event), Action::Close(Reason::Complete));

        let mut bench = idle();
        then(&mut bench, &[bytes("b\n"), Read::Block], &[ALL]);
        assert_eq!(bench.step(event), Action::Wait);
        assert_eq!(bench.transport.sent, b"(a)(b)");
    }
    // The beginning of one, too: it has the request's time, as if it had been read before.
    let mut bench = idle();
    then(&mut bench, &[bytes("b"), Read::Block], &[]);
    assert_eq!(bench.step(Event::Drain), Action::Wait);
    assert_eq!(bench.patience(), Some(REQUEST_TIMEOUT));
    then(&mut bench, &[bytes("\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(bench.transport.sent, b"(a)(b)");
}

#[test]
fn who_is_not_idle_stays_when_the_server_stops() {
    // A first request that has not come.
    let mut bench = bench([Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.step(Event::Drain), Action::Wait);
    // A later one that has begun.
    let mut bench = idle();
    then(&mut bench, &[bytes("b")], &[]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(bench.step(Event::Drain), Action::Wait);
    // A reply under way.
    then(&mut bench, &[bytes("\nlong\n")], &[ALL, Write::Block]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    for event in EVENTS {
        assert_eq!(bench.conn.reclaimable(), None);
        assert_eq!(bench.step(event), Action::Wait);
    }
    bench.transport.assert_done();
}

#[test]
fn who_has_asked_for_nothing_makes_room_unless_a_request_lies_there() {
    // A first request that has not come, a part of one, and a part of a later one.
    let silent = || {
        let mut bench = bench([Read::Block], []);
        assert_eq!(bench.step(Event::Start), Action::Wait);
        assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Silent));
        bench
    };
    let with_a_part = |mut bench: Bench<_, _>| {
        then(&mut bench, &[bytes("b")], &[]);
        assert_eq!(bench.step(READABLE), Action::Wait);
        assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Partial));
        bench
    };
    let all = || [silent(), with_a_part(silent()), with_a_part(idle())];
    for mut bench in all() {
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.step(Event::Reclaim), Action::Close(Reason::Evicted));
        assert!(!bench.transport.resets_on_close);
    }
    for mut bench in all() {
        then(&mut bench, &[bytes("c"), Read::Block], &[]);
        assert_eq!(bench.step(Event::Reclaim), Action::Close(Reason::Evicted));
    }
    for mut bench in all() {
        then(&mut bench, &[bytes("c\n"), Read::Block], &[ALL]);
        assert_eq!(bench.step(Event::Reclaim), Action::Wait);
        assert!(bench.transport.sent.ends_with(b"c)"));
        assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Idle));
    }
}

#[test]
fn what_was_heard_and_not_judged_is_no_part_of_a_request() {
    let count = REPLIES_PER_STEP_MAX as usize + 1;
    let mut bench = bench(
        [bytes(&"a\n".repeat(count))],
        vec![ALL; REPLIES_PER_STEP_MAX as usize],
    );
    assert_eq!(bench.step(Event::Start), Action::Yield);
    assert_eq!(bench.conn.reclaimable(), None);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Wait);
}

#[test]
fn who_lingers_makes_room() {
    let mut bench = bench([bytes("close\nmore"), Read::Block], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Lingering));
    then(&mut bench, &[bytes("more"), Read::Block], &[]);
    assert_eq!(bench.step(Event::Reclaim), Action::Close(Reason::Complete));
}

#[test]
fn nobody_is_kept_alive_while_places_are_short() {
    let mut bench = bench([bytes("a\n")], [ALL]);
    bench.is_crowded = true;
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
}

#[test]
fn what_came_while_a_reply_waited_is_read_after_it() {
    let mut bench = bench([bytes("long\n")], [Write::Take(100), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.step(READABLE), Action::Wait, "not now");
    then(&mut bench, &[], &[ALL]);
    assert_eq!(bench.step(WRITABLE), Action::Yield);
    then(&mut bench, &[], &[ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Yield);
    then(&mut bench, &[bytes("b\n"), Read::Block], &[ALL, ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Wait);
    bench.transport.assert_done();
    assert!(bench.transport.sent.ends_with(b"x(b)"));
    assert_eq!(bench.transport.sent.len(), 1 + LONG + 3);
}

/// What a client sends ahead stays with the kernel, but for what one read takes.
#[test]
fn while_a_reply_waits_little_is_kept_of_what_follows() {
    const COUNT: usize = 32 * 1024;
    let requests = format!("long\n{}", "a\n".repeat(COUNT));
    let mut bench = bench([bytes(&requests)], [Write::Take(100), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    let Some(Read::Bytes(unread)) = bench.transport.reads.front() else {
        panic!("all was read");
    };
    assert_eq!(unread.len(), requests.len() - REQUEST_READ_BYTES_MAX);
    // None of it is lost.
    bench.transport.reads.push_back(Read::Block);
    bench.transport.writes.extend(vec![ALL; COUNT + 3]);
    let mut next = bench.step(WRITABLE);
    while next == Action::Yield {
        next = bench.step(Event::Resume);
    }
    assert_eq!(next, Action::Wait);
    assert_eq!(bench.finished.len(), COUNT + 1);
    assert!(bench.transport.reads.is_empty());
}

#[test]
fn a_part_of_a_request_beyond_its_share_of_memory_goes_first() {
    let part = "x".repeat(INPUT_ON_HEAP_BYTES_MAX);
    let mut bench = bench([bytes(&part)], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Partial));
    assert_eq!(bench.conn.held_bytes(), INPUT_ON_HEAP_BYTES_MAX);
    then(&mut bench, &[bytes("x")], &[]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Large));
    assert!(bench.conn.held_bytes() > REQUEST_MEMORY_SHARE_BYTES);
    then(&mut bench, &[bytes("\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Idle));
    assert_eq!(bench.conn.held_bytes(), 0);
}

#[test]
fn a_head_and_its_body_go_in_one_write_and_may_be_cut_anywhere() {
    for cuts in [vec![1, 1, 1], vec![2, 1], vec![1, 2]] {
        let writes: Vec<_> = cuts.iter().map(|&cut| Write::Take(cut)).collect();
        let mut bench = bench([bytes("a\n")], writes);
        assert_eq!(bench.step(Event::Start), Action::Wait);
        bench.transport.assert_done();
        assert_eq!(bench.transport.sent, b"(a)", "{cuts:?}");
        assert_eq!(bench.finished[0].offset, 2, "the head does not count");
    }
}

#[test]
fn a_reply_that_stalls_is_reset_all_the_same() {
    let mut bench = bench([bytes("long\n")], [Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    let began = bench.now;
    while bench.expire() == Action::Wait {
        assert!(bench.now < began + STALL_TIMEOUT);
    }
    assert_eq!(bench.now, began + STALL_TIMEOUT);
}

#[test]
fn a_stopping_server_ends_after_the_reply() {
    let mut bench = bench([bytes("a\nb\n")], [ALL]);
    bench.draining = true;
    // It lingers, since there is more input.
    bench.transport.reads.push_back(Read::Eof);
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
    bench.transport.assert_done();
    assert_eq!(bench.transport.sent, b"(a)");
}

#[test]
fn a_drain_that_begins_while_a_reply_is_sent_ends_the_connection_after_it() {
    let mut bench = bench([bytes("long\n")], [Write::Take(100), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    bench.draining = true;
    then(&mut bench, &[], &[ALL]);
    assert_eq!(bench.step(WRITABLE), Action::Yield);
    then(&mut bench, &[], &[ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Yield);
    then(&mut bench, &[Read::Eof], &[ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Close(Reason::Complete));
    bench.transport.assert_done();
}

#[test]
fn a_stopping_server_waits_until_the_peer_has_all_of_the_last_reply() {
    let mut bench = idle();
    bench.draining = true;
    then(&mut bench, &[bytes("b\n"), Read::Block], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    // The reply before it, its own head and body, and the FIN.
    for acked in [3, 4, 5, 6] {
        bench.transport.acked = acked;
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.expire(), Action::Wait, "{acked}");
    }
    bench.transport.acked = 7;
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
}

#[test]
fn a_body_of_several_parts_comes_in_order() {
    use carafe::file::OpenFile;
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"0123456789").unwrap();
    let state = carafe::file::version::Snapshot::of(&file).unwrap();
    let file = Arc::new(OpenFile::new(file, state, FsClass::Nowait));
    let parts = [("<", 2..5), ("|", 9..10), (">", 0..0)];
    let parts = parts.map(|(text, range)| (text.as_bytes().into(), range));
    let body = Body::Parts(file, parts.into());
    struct Once(Option<Body>);
    impl Protocol for Once {
        fn respond(&mut self, request: &Request<'_>) -> Decision {
            let (body, used) = (self.0.take().unwrap(), request.bytes.len());
            let end = RequestEnd::LineFeed;
            let target = Box::default();
            Decision::Reply(Reply::bare(target, body, None, used, end))
        }
    }
    for (cut, writes) in [(1, 7), (2, 4), (7, 1), (100, 1)] {
        let script = Scripted::new([bytes("a\n")], vec![Write::Take(cut); writes]);
        let mut bench = Bench::new(script, Once(Some(body.clone())));
        assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
        assert_eq!(bench.transport.sent, b"<234|9>", "{cut}");
        bench.transport.assert_done();
    }
}

/// Short parts go out together, and with what is before or after them, as far as a buffer reaches.
#[test]
fn no_short_part_of_a_body_makes_a_packet_of_its_own() {
    use carafe::file::OpenFile;
    const LONG: usize = 200_000;
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..LONG).map(|at| (at % 251) as u8).collect();
    std::io::Write::write_all(&mut file, &content).unwrap();
    let state = carafe::file::version::Snapshot::of(&file).unwrap();
    let file = Arc::new(OpenFile::new(file, state, FsClass::Nowait));
    struct Once(Option<Body>);
    impl Protocol for Once {
        fn respond(&mut self, request: &Request<'_>) -> Decision {
            let (body, used) = (self.0.take().unwrap(), request.bytes.len());
            let end = RequestEnd::LineFeed;
            Decision::Reply(Reply {
                head: b"head ".to_vec(),
                ..Reply::bare(Box::default(), body, None, used, end)
            })
        }
    }
    let parts = [
        // One call for what is before the long one, which goes by sendfile.
        ("a", 5..8),
        ("b", 7..100_007),
        // And one for all that is after it.
        ("c", 1..20_001),
        ("d", 9..20_009),
        ("e", 0..0),
    ];
    let parts = parts.map(|(text, range)| (text.as_bytes().into(), range));
    let mut expected = b"head a".to_vec();
    for (text, start, length) in [
        ("b", 5, 3),
        ("c", 7, 100_000),
        ("d", 1, 20_000),
        ("e", 9, 20_000),
    ] {
        expected.extend_from_slice(&content[start..start + length]);
        expected.extend_from_slice(text.as_bytes());
    }
    let script = Scripted::new([bytes("a\n")], vec![ALL; 3]);
    let mut bench = Bench::new(script, Once(Some(Body::Parts(file, parts.into()))));
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
    assert!(bench.transport.sent == expected);
    // What is last rides with the end of the connection.
    assert_eq!(bench.transport.more, [true, true]);
    bench.transport.assert_done();
}
