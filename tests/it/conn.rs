//! One connection over a scripted transport: a row for each arrow of the state machine and each
//! line of the close table. A call that a script doesn't hold fails the row, and so does one after
//! WouldBlock in the same turn.

use std::fs::{self, File};
use std::io::ErrorKind::{BrokenPipe, ConnectionReset, OutOfMemory};
use std::time::Duration;

use carafe::limits::{
    COPIED_BODY_BYTES_MAX, LINGER_BYTES_MAX, LINGER_IDLE, LINGER_TOTAL, MIN_RATE_BYTES, NAME_GAP,
    REQUEST_TIMEOUT, SCRATCH_BYTES, SENDFILE_SEGMENT_BYTES, SLOW_SHARE, STALL_CHECKS,
    STALL_TIMEOUT, STEP_BYTES_MAX, SUSPENDED_CHECK_INTERVAL,
};
use carafe::protocol::bare::Bare;
use carafe::protocol::{Decision, Protocol, Request};
use carafe::reactor::event::{Action, Event, Reclaimable};
use carafe::root::Root;
use carafe::telemetry::Reason;
use carafe::testing::{
    Bench, DEAD, READ_CLOSED, READABLE, Read, Scripted, Turning as _, WRITABLE, Write,
};
use tempfile::TempDir;

const SMALL: &[u8] = b"twelve bytes";
const BIG_LEN: usize = COPIED_BODY_BYTES_MAX as usize + 1000;
const ALL: Write = Write::Take(usize::MAX);

/// A root with a small file, one that goes by sendfile, one larger than a turn, and an empty one.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    fs::write(root.path().join("big"), vec![7; BIG_LEN]).unwrap();
    fs::write(
        root.path().join("bulk"),
        vec![7; 2 * STEP_BYTES_MAX as usize + 5],
    )
    .unwrap();
    fs::write(root.path().join("empty"), b"").unwrap();
    root
}

fn bench<R, W>(root: &TempDir, reads: R, writes: W) -> Bench<Scripted, Bare>
where
    R: IntoIterator<Item = Read>,
    W: IntoIterator<Item = Write>,
{
    let protocol = Bare::new(Root::open(root.path(), false).unwrap(), Some(NAME_GAP));
    Bench::new(Scripted::new(reads, writes), protocol)
}

fn bytes(bytes: &[u8]) -> Read {
    Read::Bytes(bytes.to_vec())
}

/// Adds to the script of a bench.
fn then<S>(bench: &mut Bench<Scripted, S>, reads: &[Read], writes: &[Write]) {
    bench.transport.assert_done();
    bench.transport.reads.extend(reads.iter().cloned());
    bench.transport.writes.extend(writes);
}

// ---- ReadingName ----

#[test]
fn a_small_download_is_three_calls_and_the_fin_rides_on_the_data() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"small\n")], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
    bench.transport.assert_done();
    assert_eq!(bench.transport.sent, SMALL);
    assert_eq!(
        bench.transport.more,
        [true],
        "the close follows in the same step"
    );
    assert!(!bench.transport.is_shut, "close alone sends the FIN");
}

#[test]
fn a_zero_length_read_before_a_name_is_a_client_that_left() {
    let root = root();
    let mut bench = bench(&root, [Read::Eof], []);
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::ClientLeft));
}

#[test]
fn a_silent_client_has_until_the_request_timeout() {
    let root = root();
    let mut bench = bench(&root, [Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.patience(), Some(REQUEST_TIMEOUT));
    assert_eq!(
        bench.step(WRITABLE),
        Action::Wait,
        "room to write is no news"
    );
    assert!(
        bench.transport.resets_on_close,
        "a sudden death is no answer"
    );
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::RequestTimeout));
    assert!(!bench.transport.resets_on_close);
}

#[test]
fn a_request_that_lay_there_when_its_time_was_over_is_served() {
    let root = root();
    let mut bench = bench(&root, [Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[bytes(b"small\n")], &[ALL]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, SMALL);
}

#[test]
fn a_part_of_a_request_is_too_late_when_its_time_is_over() {
    let root = root();
    let mut bench = bench(&root, [Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[bytes(b"smal"), Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::RequestTimeout));
}

#[test]
fn the_rest_of_a_name_that_lay_there_when_the_gap_was_over_counts() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"sma")], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[bytes(b"ll\n")], &[ALL]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
}

#[test]
fn the_request_timeout_is_absolute() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"x")], []);
    let start = bench.now;
    assert_eq!(bench.step(Event::Start), Action::Wait);
    while bench.now + NAME_GAP / 2 < start + REQUEST_TIMEOUT {
        bench.now += NAME_GAP / 2;
        then(&mut bench, &[bytes(b"x")], &[]);
        assert_eq!(bench.step(READABLE), Action::Wait);
    }
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::RequestTimeout));
    assert_eq!(bench.now, start + REQUEST_TIMEOUT);
}

#[test]
fn a_reset_before_a_name_drops_the_connection() {
    let root = root();
    let mut bench = bench(&root, [Read::Fail(ConnectionReset)], []);
    assert_eq!(bench.step(Event::Start), Action::Reset(Reason::PeerReset));
}

#[test]
fn a_name_in_two_pieces_waits_for_the_gap_between() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"sma")], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.patience(), Some(NAME_GAP));
    then(&mut bench, &[bytes(b"ll\n")], &[ALL]);
    assert_eq!(bench.step(READABLE), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, SMALL);
}

#[test]
fn a_fin_that_shares_the_edge_with_data_is_read_too() {
    let root = root();
    let mut bench = bench(&root, [Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[bytes(b"small"), Read::Eof], &[ALL]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
    bench.transport.assert_done();
}

#[test]
fn an_unterminated_name_is_served_at_once_and_the_close_waits_for_the_client() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"small"), Read::Block], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.transport.sent, SMALL);
    assert_eq!(
        bench.transport.more,
        [false],
        "what may be followed by waiting is pushed"
    );
    assert!(bench.transport.is_shut);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
}

#[test]
fn the_terminator_that_a_guess_did_not_wait_for_needs_no_lingering() {
    let root = root();
    for terminator in [&b"\n"[..], b"\r\n"] {
        let mut bench = bench(&root, [bytes(b"small"), bytes(terminator)], [ALL]);
        assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
        assert!(!bench.transport.is_shut);
    }
}

#[test]
fn silence_takes_a_name_as_it_stands_and_refuses_it() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"smal")], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(
        bench.expire(),
        Action::Wait,
        "it is known that nothing came: no second look"
    );
    assert!(bench.transport.is_shut);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Refused));
    assert!(bench.transport.sent.is_empty());
}

#[test]
fn a_refused_line_closes_at_once_without_a_byte() {
    let root = root();
    for (name, reason) in [
        (&b"missing\n"[..], Reason::Refused),
        (b"\n", Reason::Refused),
        (b"../small\n", Reason::Refused),
        (b"empty\n", Reason::Complete),
    ] {
        let mut bench = bench(&root, [bytes(name)], []);
        assert_eq!(bench.step(Event::Start), Action::Close(reason));
        assert!(bench.transport.sent.is_empty() && !bench.transport.is_shut);
    }
}

#[test]
fn a_name_without_end_is_refused_when_it_is_too_long_and_the_rest_is_discarded() {
    let root = root();
    let flood = vec![b'x'; SCRATCH_BYTES];
    let mut bench = bench(&root, [bytes(&flood), bytes(&flood), Read::Eof], []);
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Refused));
    assert!(bench.transport.is_shut);
}

// ---- parked ----

/// Answers `Later` so many times, then asks the real protocol.
#[derive(Debug)]
struct NoDescriptor {
    times: u32,
    then: Bare,
}

impl Protocol for NoDescriptor {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        match self.times.checked_sub(1) {
            Some(left) => {
                self.times = left;
                Decision::WaitForFd
            }
            None => self.then.respond(request),
        }
    }
}

fn parked(root: &TempDir, name: &[u8], times: u32) -> Bench<Scripted, NoDescriptor> {
    let then = Bare::new(Root::open(root.path(), false).unwrap(), Some(NAME_GAP));
    let protocol = NoDescriptor { times, then };
    let mut bench = Bench::new(Scripted::new([bytes(name)], []), protocol);
    assert_eq!(bench.step(Event::Start), Action::Suspend);
    assert_eq!(bench.patience(), Some(SUSPENDED_CHECK_INTERVAL));
    bench
}

#[test]
fn a_parked_connection_is_served_when_a_descriptor_is_free() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 2);
    assert_eq!(bench.step(Event::Woken), Action::Suspend);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(
        bench.step(Event::Woken),
        Action::Close(Reason::Complete),
        "no input came meanwhile, and others want its descriptors"
    );
    assert_eq!(bench.transport.sent, SMALL);
}

#[test]
fn a_parked_connection_lingers_if_input_came_meanwhile() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 2);
    assert_eq!(bench.step(Event::Woken), Action::Suspend);
    then(&mut bench, &[bytes(b"more"), Read::Block], &[ALL]);
    assert_eq!(bench.step(Event::Woken), Action::Wait);
    assert_eq!(bench.transport.sent, SMALL);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
}

#[test]
fn a_parked_guess_that_was_wrong_reads_what_came_meanwhile() {
    let root = root();
    let mut bench = parked(&root, b"sma", 1);
    // No edge is remembered while parked, so the queue is read until it is empty.
    then(&mut bench, &[bytes(b"l"), bytes(b"l"), Read::Eof], &[ALL]);
    assert_eq!(bench.step(Event::Woken), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, SMALL);
}

#[test]
fn a_parked_connection_gives_up_after_the_stall_timeout() {
    let root = root();
    let mut bench = parked(&root, b"small\n", u32::MAX);
    let start = bench.now;
    let end = loop {
        match bench.expire() {
            Action::Suspend => {}
            end => break end,
        }
    };
    assert_eq!(end, Action::Reset(Reason::NoDescriptor));
    assert_eq!(bench.now - start, STALL_TIMEOUT);
}

#[test]
fn a_parked_connection_whose_client_said_its_last_gives_its_place_to_others() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 1);
    bench.transport.peer_has_finished = true;
    bench.now += SUSPENDED_CHECK_INTERVAL;
    assert_eq!(
        bench.step(Event::Drain),
        Action::Suspend,
        "nobody needs its place"
    );
    bench.is_crowded = true;
    bench.draining = true;
    assert_eq!(
        bench.step(Event::Drain),
        Action::Suspend,
        "it is to be served still"
    );
    bench.draining = false;
    assert_eq!(bench.step(Event::Drain), Action::Reset(Reason::ClientLeft));
}

#[test]
fn a_parked_connection_whose_client_may_say_more_keeps_its_place() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 1);
    bench.is_crowded = true;
    let start = bench.now;
    while bench.now + SUSPENDED_CHECK_INTERVAL < start + STALL_TIMEOUT {
        bench.now += SUSPENDED_CHECK_INTERVAL;
        assert_eq!(bench.step(Event::Drain), Action::Suspend);
        assert_eq!(bench.patience(), Some(SUSPENDED_CHECK_INTERVAL));
    }
    bench.now = start + STALL_TIMEOUT;
    then(&mut bench, &[Read::Block], &[ALL]);
    let end = Action::Close(Reason::Complete);
    assert_eq!(bench.step(Event::Drain), end, "the last look");
    assert_eq!(bench.transport.sent, SMALL);
}

#[test]
fn a_parked_connection_whose_peer_died_is_dropped() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 1);
    assert_eq!(bench.step(DEAD), Action::Close(Reason::PeerReset));
}

#[test]
fn a_parked_connection_is_reset_when_the_drain_ends() {
    let root = root();
    let mut bench = parked(&root, b"small\n", 1);
    assert_eq!(
        bench.step(Event::Stop(Reason::DrainDeadline)),
        Action::Reset(Reason::DrainDeadline)
    );
}

#[derive(Debug)]
struct Failing;

impl Protocol for Failing {
    fn respond(&mut self, _request: &Request<'_>) -> Decision {
        Decision::Abort(Reason::OpenFailed)
    }
}

#[test]
fn a_failure_of_ours_is_a_reset_and_never_no_such_file() {
    let mut bench = Bench::new(Scripted::new([bytes(b"small\n")], []), Failing);
    assert_eq!(bench.step(Event::Start), Action::Reset(Reason::OpenFailed));
}

// ---- Sending ----

/// A bench whose reply to `name` was stopped by a full socket after `taken` bytes.
fn sending(root: &TempDir, name: &[u8], taken: usize) -> Bench<Scripted, Bare> {
    let mut bench = bench(root, [bytes(name)], [Write::Take(taken), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.patience(), Some(STALL_TIMEOUT / STALL_CHECKS));
    assert!(
        bench.transport.resets_on_close,
        "a sudden death must not look like a good end"
    );
    bench
}

#[test]
fn partial_writes_go_on_where_they_stopped() {
    let root = root();
    for (name, len) in [(&b"small\n"[..], SMALL.len()), (b"big\n", BIG_LEN)] {
        let mut bench = sending(&root, name, 5);
        then(
            &mut bench,
            &[],
            &[Write::Take(1), Write::Take(2), Write::Block],
        );
        assert_eq!(bench.step(WRITABLE), Action::Wait);
        then(&mut bench, &[Read::Block], &[ALL]);
        assert_eq!(bench.step(WRITABLE), Action::Close(Reason::Complete));
        assert_eq!(bench.transport.sent.len(), len);
        assert!(!bench.transport.resets_on_close && !bench.transport.is_shut);
    }
}

#[test]
fn input_is_left_alone_while_sending() {
    let root = root();
    let mut bench = sending(&root, b"big\n", 5);
    assert_eq!(bench.step(READABLE), Action::Wait);
    assert_eq!(
        bench.step(READ_CLOSED),
        Action::Wait,
        "half-closed is not gone"
    );
}

/// How long a peer keeps its place that has acknowledged so much in all when the clock shows so much,
/// within an hour.
fn keeps_its_place(acked: impl Fn(Duration) -> u64) -> Duration {
    const HOUR: Duration = Duration::from_secs(3600);
    let root = root();
    let mut bench = sending(&root, b"bulk\n", STEP_BYTES_MAX as usize - 1);
    let began = bench.now;
    while bench.now - began < HOUR {
        let at = bench.deadline.unwrap() - began;
        bench.transport.acked = acked(at);
        match bench.expire() {
            Action::Wait => {}
            next => {
                assert_eq!(next, Action::Reset(Reason::Stalled));
                return bench.now - began;
            }
        }
    }
    HOUR
}

#[test]
fn a_peer_that_takes_nothing_or_too_little_is_reset_after_the_stall_timeout() {
    const ENOUGH: u64 = MIN_RATE_BYTES * STALL_TIMEOUT.as_secs();
    let seconds = Duration::from_secs;
    let latest = STALL_TIMEOUT + STALL_TIMEOUT / STALL_CHECKS;
    type Acked = fn(Duration) -> u64;
    let gone: [(&str, Acked); 5] = [
        ("nothing", |_| 0),
        ("what its buffer takes, at once", |_| 500_000),
        ("a byte a minute", |at| at.as_secs() / 60),
        ("a byte at every look", |at| at.as_secs() / 3),
        ("a byte less than enough", |at| {
            u64::from(at >= Duration::from_secs(30)) * (ENOUGH - 1)
        }),
    ];
    for (what, acked) in gone {
        let stayed = keeps_its_place(acked);
        assert!(
            stayed >= STALL_TIMEOUT && stayed <= latest,
            "{what}: {stayed:?}"
        );
    }
    let hour = seconds(3600);
    let stay: [(&str, Acked); 4] = [
        ("a little more than enough", |at| {
            at.as_secs() * (MIN_RATE_BYTES + 4)
        }),
        ("enough at the last moment, again and again", |at| {
            at.as_secs().div_ceil(57) * ENOUGH
        }),
        ("a segment now and then", |at| at.as_secs() / 15 * 1448),
        ("all that was sent", |_| STEP_BYTES_MAX - 1),
    ];
    for (what, acked) in stay {
        assert_eq!(keeps_its_place(acked), hour, "{what}");
    }
    // Who took its last so late is waited for from then on.
    let stopped = keeps_its_place(|at| at.as_secs().min(302) * 3000);
    let longest = seconds(302) + latest;
    assert!(
        stopped >= seconds(302) + STALL_TIMEOUT && stopped <= longest,
        "{stopped:?}"
    );
}

#[test]
fn a_peer_that_takes_too_little_for_a_quarter_of_the_stall_timeout_makes_room() {
    let root = root();
    for (acked_since, next) in [
        (MIN_RATE_BYTES, Action::Reset(Reason::Evicted)),
        (MIN_RATE_BYTES * STALL_TIMEOUT.as_secs(), Action::Wait),
    ] {
        let mut bench = sending(&root, b"bulk\n", STEP_BYTES_MAX as usize - 1);
        let began = bench.now;
        while bench.conn.reclaimable().is_none() {
            // Whoever isn't slow keeps its place.
            assert_eq!(bench.step(Event::Reclaim), Action::Wait);
            assert_eq!(bench.expire(), Action::Wait);
        }
        assert_eq!(bench.conn.reclaimable(), Some(Reclaimable::Slow));
        let waited = bench.now - began;
        let (slow, check) = (STALL_TIMEOUT / SLOW_SHARE, STALL_TIMEOUT / STALL_CHECKS);
        assert!(waited >= slow && waited <= slow + check, "{waited:?}");
        bench.transport.acked += acked_since;
        assert_eq!(bench.step(Event::Reclaim), next);
        if next == Action::Wait {
            assert_eq!(bench.conn.reclaimable(), None);
        }
    }
}

#[test]
fn a_peer_that_broke_the_connection_is_dropped() {
    let root = root();
    for kind in [ConnectionReset, BrokenPipe] {
        for name in [&b"small\n"[..], b"big\n"] {
            let mut bench = bench(&root, [bytes(name)], [Write::Fail(kind)]);
            assert_eq!(bench.step(Event::Start), Action::Reset(Reason::PeerReset));
        }
    }
}

#[test]
fn a_socket_that_fails_by_our_fault_is_a_reset_and_never_looks_whole() {
    let root = root();
    for name in [&b"small\n"[..], b"big\n"] {
        for writes in [vec![], vec![Write::Take(3)]] {
            let writes = writes.into_iter().chain([Write::Fail(OutOfMemory)]);
            let mut bench = bench(&root, [bytes(name)], writes);
            assert_eq!(bench.step(Event::Start), Action::Reset(Reason::SendFailed));
            assert!(bench.transport.resets_on_close);
        }
    }
}

#[test]
fn what_sendfile_moves_in_pieces_is_guarded_from_the_first() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"bulk\n")], [Write::Fail(ConnectionReset)]);
    assert_eq!(bench.step(Event::Start), Action::Reset(Reason::PeerReset));
    assert_eq!(bench.transport.guards, [true]);
}

#[test]
fn a_turn_has_a_budget() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"bulk\n")], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Yield);
    assert_eq!(bench.transport.sent.len() as u64, STEP_BYTES_MAX);
    let calls = STEP_BYTES_MAX.div_ceil(SENDFILE_SEGMENT_BYTES as u64);
    then(&mut bench, &[], &vec![ALL; calls as usize]);
    assert_eq!(bench.step(Event::Resume), Action::Yield);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.step(Event::Resume), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent.len() as u64, 2 * STEP_BYTES_MAX + 5);
    bench.transport.assert_done();
}

#[test]
fn only_who_keeps_up_is_sent_single_segments() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"bulk\n")], [Write::Take(5), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[], &[ALL]);
    assert_eq!(bench.step(WRITABLE), Action::Yield);
    then(&mut bench, &[], &[ALL, Write::Block]);
    assert_eq!(bench.step(Event::Resume), Action::Wait);
    let sent = 5 + STEP_BYTES_MAX + SENDFILE_SEGMENT_BYTES as u64;
    assert_eq!(bench.transport.sent.len() as u64, sent);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.step(WRITABLE), Action::Close(Reason::Complete));
    bench.transport.assert_done();
}

#[test]
fn a_file_system_without_sendfile_is_copied_from() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"big\n")], [Write::Unsupported, ALL]);
    assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent.len(), BIG_LEN);
}

#[test]
fn a_file_that_cannot_be_read_is_a_reset() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"big\n")], [Write::FailFile]);
    assert_eq!(bench.step(Event::Start), Action::Reset(Reason::ReadFailed));
}

#[test]
fn a_file_cut_short_is_a_reset() {
    let root = root();
    for name in ["small", "big"] {
        let mut bench = sending(&root, format!("{name}\n").as_bytes(), 5);
        File::options()
            .write(true)
            .open(root.path().join(name))
            .unwrap()
            .set_len(5)
            .unwrap();
        // A copied body never reaches the socket; sendfile does, and finds nothing.
        let writes = if name == "big" { vec![ALL] } else { vec![] };
        then(&mut bench, &[], &writes);
        assert_eq!(bench.step(WRITABLE), Action::Reset(Reason::FileShort));
    }
}

#[test]
fn a_file_overwritten_in_place_is_a_reset_before_the_last_bytes() {
    let root = root();
    let mut bench = sending(&root, b"big\n", 5);
    fs::write(root.path().join("big"), vec![8; BIG_LEN]).unwrap();
    assert_eq!(bench.step(WRITABLE), Action::Reset(Reason::FileChanged));
    assert_eq!(bench.transport.sent.len(), 5);
}

#[test]
fn a_file_that_grew_or_was_replaced_or_unlinked_is_sent_as_it_was_promised() {
    use std::io::Write as _;
    let changes: [fn(&std::path::Path); 3] = [
        |big| {
            File::options()
                .append(true)
                .open(big)
                .unwrap()
                .write_all(b"more")
                .unwrap()
        },
        |big| fs::rename(big.with_file_name("bulk"), big).unwrap(),
        |big| fs::remove_file(big).unwrap(),
    ];
    for change in changes {
        let root = root();
        let mut bench = sending(&root, b"big\n", 5);
        change(&root.path().join("big"));
        then(&mut bench, &[Read::Block], &[ALL]);
        assert_eq!(bench.step(WRITABLE), Action::Close(Reason::Complete));
        assert_eq!(bench.transport.sent, vec![7; BIG_LEN]);
    }
}

#[test]
fn a_body_unfinished_when_the_drain_ends_is_reset() {
    let root = root();
    let mut bench = sending(&root, b"big\n", 5);
    assert_eq!(
        bench.step(Event::Stop(Reason::DrainDeadline)),
        Action::Reset(Reason::DrainDeadline)
    );
}

// ---- Closing ----

/// A bench that lingers after a whole reply, with nothing in the receive queue.
fn lingering(root: &TempDir) -> Bench<Scripted, Bare> {
    let mut bench = bench(root, [bytes(b"small\nmore"), Read::Block], [ALL]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert!(bench.transport.is_shut);
    assert_eq!(bench.patience(), Some(LINGER_IDLE));
    bench
}

#[test]
fn input_after_the_name_is_discarded_until_the_fin() {
    let root = root();
    let mut bench = lingering(&root);
    assert_eq!(bench.step(WRITABLE), Action::Wait);
    then(&mut bench, &[bytes(b"still more"), Read::Block], &[]);
    assert_eq!(bench.step(READABLE), Action::Wait);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
}

#[test]
fn lingering_ends_after_idle_time() {
    let root = root();
    let mut bench = lingering(&root);
    // The acknowledgement of our own FIN is no progress.
    bench.transport.acked += 1;
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
}

#[test]
fn input_that_lay_there_when_lingering_was_over_is_discarded_first() {
    let root = root();
    let mut bench = lingering(&root);
    then(&mut bench, &[bytes(b"x"), Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Wait);
    assert_eq!(bench.patience(), Some(LINGER_IDLE));
}

#[test]
fn lingering_ends_after_all_its_time_for_a_peer_that_keeps_talking() {
    let root = root();
    let mut bench = lingering(&root);
    let start = bench.now;
    while bench.now - start < LINGER_TOTAL - LINGER_IDLE / 2 {
        bench.now += LINGER_IDLE / 2;
        then(&mut bench, &[bytes(b"x"), Read::Block], &[]);
        assert_eq!(bench.step(READABLE), Action::Wait);
    }
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
    assert_eq!(bench.now - start, LINGER_TOTAL);
}

#[test]
fn lingering_goes_on_while_the_peer_acknowledges() {
    let root = root();
    let mut bench = lingering(&root);
    for acked in 1..50 {
        // More than the least, and a byte for the FIN.
        bench.transport.acked = acked * (MIN_RATE_BYTES * LINGER_IDLE.as_secs() + 1);
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.expire(), Action::Wait);
    }
    bench.transport.acked += MIN_RATE_BYTES * LINGER_IDLE.as_secs();
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
}

#[test]
fn lingering_discards_so_much_and_no_more() {
    let root = root();
    let mut bench = lingering(&root);
    let chunk = bytes(&vec![0; SCRATCH_BYTES]);
    let chunks = LINGER_BYTES_MAX as usize / SCRATCH_BYTES + 1;
    then(&mut bench, &vec![chunk; chunks], &[]);
    let mut next = bench.step(READABLE);
    let mut turns = 1;
    while next == Action::Yield {
        turns += 1;
        next = bench.step(Event::Resume);
    }
    assert_eq!(next, Action::Close(Reason::Complete));
    assert_eq!(
        turns,
        LINGER_BYTES_MAX / STEP_BYTES_MAX + 1,
        "a turn's budget holds here too"
    );
    bench.transport.assert_done();
}

#[test]
fn a_reset_while_lingering_is_counted_as_one() {
    let root = root();
    let mut bench = lingering(&root);
    then(&mut bench, &[Read::Fail(ConnectionReset)], &[]);
    assert_eq!(bench.step(DEAD), Action::Close(Reason::PeerReset));
}

#[test]
fn closing_is_closed_and_not_reset_when_the_drain_ends() {
    let root = root();
    assert_eq!(
        lingering(&root).step(Event::Stop(Reason::DrainDeadline)),
        Action::Close(Reason::Complete)
    );
}

// ---- draining ----

#[test]
fn while_draining_a_whole_reply_waits_until_the_client_has_it() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"small\n"), Read::Block], [ALL]);
    bench.draining = true;
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(bench.transport.more, [false]);
    assert!(bench.transport.is_shut);
    for _ in 0..20 {
        bench.transport.acked = SMALL.len() as u64;
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.expire(), Action::Wait, "the FIN is not acknowledged");
    }
    bench.transport.acked = SMALL.len() as u64 + 1;
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.expire(), Action::Close(Reason::Complete));
}

#[test]
fn while_draining_the_clients_fin_ends_it() {
    let root = root();
    let mut bench = bench(&root, [bytes(b"small\n"), Read::Block], [ALL]);
    bench.draining = true;
    assert_eq!(bench.step(Event::Start), Action::Wait);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
}

#[test]
fn a_silent_client_is_closed_and_not_reset_when_the_drain_ends() {
    let root = root();
    let mut bench = bench(&root, [Read::Block], []);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    assert_eq!(
        bench.step(Event::Stop(Reason::DrainDeadline)),
        Action::Close(Reason::RequestTimeout)
    );
}

#[test]
fn the_scripted_transport_catches_a_call_after_would_block() {
    use carafe::conn::transport::Transport as _;
    let mut scripted = Scripted::new([Read::Block, Read::Eof], []);
    assert!(scripted.read(&mut [0]).is_err());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scripted.read(&mut [0])));
    assert!(again.is_err());
    scripted.begin_turn();
    assert_eq!(scripted.read(&mut [0]).unwrap(), 0);
}
