//! One connection over a scripted transport while its disk is slow: a row for each way into the
//! waiting for a helper, and each way out.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::Duration;

use carafe::file::{
    Chunk, DiskTask, FsClass, ListError, LookupError, MayBlock, Semaphore, TaskResult,
};
use carafe::http::entity_tag::TagKey;
use carafe::http::mime::ContentTypes;
use carafe::limits::{
    COLD_BLOCK_BYTES, COLD_READ_BYTES, COPIED_BODY_BYTES_MAX, DISK_TIMEOUT, KEEP_ALIVE, NAME_GAP,
    REQUEST_TIMEOUT, STALL_CHECKS, STALL_TIMEOUT, STEP_BYTES_MAX, SUSPENDED_CHECK_INTERVAL,
    TASK_RESULT_BYTES_MAX,
};
use carafe::protocol::Protocol;
use carafe::protocol::bare::Bare;
use carafe::protocol::http::{ErrorPage, Http, Pages};
use carafe::protocol::sniff::SharedPort;
use carafe::reactor::event::{Action, Event};
use carafe::root::Root;
use carafe::root::listing::Listings;
use carafe::telemetry::Reason;
use carafe::testing::{Bench, DEAD, READ_CLOSED, Read, Scripted, Write};
use tempfile::TempDir;

const SMALL: &[u8] = b"twelve bytes";
const BIG_BYTES: usize = COPIED_BODY_BYTES_MAX as usize + 1000;
const BULK_BYTES: usize = 2 * STEP_BYTES_MAX as usize + 5;
const ALL: Write = Write::Take(usize::MAX);
const HOUR: Duration = Duration::from_secs(3600);

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::write(at("small"), SMALL).unwrap();
    fs::write(at("big"), vec![7; BIG_BYTES]).unwrap();
    fs::write(at("bulk"), content(BULK_BYTES)).unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/index.html"), b"index").unwrap();
    root
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// A protocol whose root is taken for one on a file system of this kind.
fn bare(root: &TempDir, kind: FsClass) -> Bare {
    let mut opened = Root::open(root.path(), false).unwrap();
    opened.assume(kind);
    Bare::new(opened, Some(NAME_GAP))
}

fn http(root: &TempDir, kind: FsClass) -> SharedPort {
    let index = Some(Box::from(*b"index.html"));
    SharedPort::new(
        bare(root, kind),
        Http::new(ContentTypes::new([]), index, None, TagKey::new(b"")),
    )
}

fn bench<S: Protocol>(protocol: S, request: &[u8]) -> Bench<Scripted, S> {
    let script = Scripted::new([Read::Bytes(request.to_vec())], []);
    Bench::new(script, protocol)
}

/// Adds to the script of a bench.
fn then<S>(bench: &mut Bench<Scripted, S>, reads: &[Read], writes: &[Write]) {
    bench.transport.assert_done();
    bench.transport.reads.extend(reads.iter().cloned());
    bench.transport.writes.extend(writes);
}

/// It waits for a helper and for nothing else.
#[track_caller]
fn assert_parked<S: Protocol>(next: Action, bench: &Bench<Scripted, S>) {
    assert_eq!(next, Action::Suspend);
    assert!(bench.task.is_some() && bench.conn.awaits_task());
    assert_eq!(
        bench.patience(),
        Some(SUSPENDED_CHECK_INTERVAL),
        "not the client's"
    );
    bench.transport.assert_done();
}

/// A connection that waits for the look-up of its name.
fn looking_up(root: &TempDir, request: &[u8]) -> Bench<Scripted, Bare> {
    let mut bench = bench(bare(root, FsClass::Remote), request);
    assert_parked(bench.step(Event::Start), &bench);
    assert!(matches!(bench.task, Some(DiskTask::Open { .. })));
    bench
}

/// The look-up of `small` fails.
fn look_up_fails(bench: &mut Bench<Scripted, Bare>, error: LookupError) -> Action {
    let task_result = TaskResult::Opened {
        name: Box::from(*b"small"),
        lookup: Err(error),
    };
    bench.step_with(Event::Woken, Some(task_result))
}

/// A connection that waits for the first bytes of its file.
fn reading(root: &TempDir, request: &[u8]) -> Bench<Scripted, Bare> {
    let mut bench = bench(bare(root, FsClass::Nowait), request);
    bench.transport.colds = 1;
    assert_parked(bench.step(Event::Start), &bench);
    assert!(matches!(bench.task, Some(DiskTask::Read(_))));
    assert!(bench.transport.sent.is_empty());
    bench
}

/// Ends well, once input that may have come meanwhile was looked for.
#[track_caller]
fn assert_completes<S: Protocol>(bench: &Bench<Scripted, S>, next: Action, body: &[u8]) {
    assert_eq!(next, Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, body);
    bench.transport.assert_done();
}

// ---- the look-up ----

#[test]
fn a_name_that_may_wait_is_looked_up_by_a_helper_and_so_are_its_bytes() {
    let root = root();
    let mut bench = looking_up(&root, b"small\n");
    let next = bench.fetch();
    assert_parked(next, &bench);
    assert!(matches!(bench.task, Some(DiskTask::Read(_))));
    then(&mut bench, &[Read::Block], &[ALL]);
    let next = bench.fetch();
    assert_completes(&bench, next, SMALL);
}

#[test]
fn what_came_after_a_name_while_it_was_looked_up_is_discarded_before_the_close() {
    let root = root();
    for (request, reads) in [
        (&b"missing\nmore"[..], vec![Read::Block]),
        (
            b"missing\n",
            vec![Read::Bytes(b"more".to_vec()), Read::Block],
        ),
    ] {
        let mut bench = looking_up(&root, request);
        then(&mut bench, &reads, &[]);
        assert_eq!(bench.fetch(), Action::Wait);
        assert!(bench.transport.is_shut);
        then(&mut bench, &[Read::Eof], &[]);
        assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Refused));
    }
}

#[test]
fn what_a_helper_does_not_find_is_refused_as_ever() {
    let root = root();
    for name in [&b"missing\n"[..], b"folder\n", b"small/x\n"] {
        let mut bench = looking_up(&root, name);
        then(&mut bench, &[Read::Block], &[]);
        assert_eq!(bench.fetch(), Action::Close(Reason::Refused));
        assert!(bench.transport.sent.is_empty() && !bench.transport.is_shut);
    }
}

#[test]
fn a_name_that_is_no_name_needs_no_helper() {
    let root = root();
    for name in [&b"\n"[..], b"../small\n", b".hidden\n"] {
        let mut bench = bench(bare(&root, FsClass::Remote), name);
        assert_eq!(bench.step(Event::Start), Action::Close(Reason::Refused));
    }
}

#[test]
fn the_requests_clock_stands_while_its_name_is_looked_up() {
    let root = root();
    let mut bench = looking_up(&root, b"smal");
    let start = bench.now;
    bench.now += HOUR;
    // The guess was wrong.
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(bench.fetch(), Action::Wait);
    assert_eq!(bench.patience(), Some(NAME_GAP));
    while bench.now + NAME_GAP < start + HOUR + REQUEST_TIMEOUT {
        bench.now += NAME_GAP / 2;
        let byte = Read::Bytes(b"x".to_vec());
        then(&mut bench, &[byte], &[]);
        let mut next = bench.step(carafe::testing::READABLE);
        while next == Action::Suspend {
            then(&mut bench, &[Read::Block], &[]);
            next = bench.fetch();
        }
        assert_eq!(next, Action::Wait);
    }
    bench.now = start + HOUR + REQUEST_TIMEOUT;
    then(&mut bench, &[Read::Block], &[]);
    assert_eq!(
        bench.step(Event::Deadline),
        Action::Close(Reason::RequestTimeout)
    );
}

#[test]
fn what_came_during_the_look_up_of_a_wrong_guess_is_read_then() {
    let root = root();
    let mut bench = looking_up(&root, b"smal");
    let rest = Read::Bytes(b"l\n".to_vec());
    then(&mut bench, &[rest], &[]);
    let next = bench.fetch();
    assert_parked(next, &bench);
    let next = bench.fetch();
    assert_parked(next, &bench);
    then(&mut bench, &[Read::Block], &[ALL]);
    let next = bench.fetch();
    assert_completes(&bench, next, SMALL);
}

#[test]
fn a_helper_without_a_descriptor_makes_the_connection_stand_in_line() {
    let root = root();
    let mut bench = looking_up(&root, b"small\n");
    bench.task = None;
    assert_eq!(
        look_up_fails(&mut bench, LookupError::NoDescriptor),
        Action::Suspend
    );
    assert!(!bench.conn.awaits_task() && bench.task.is_none());
    assert_eq!(bench.patience(), Some(SUSPENDED_CHECK_INTERVAL));
    // It is looked for anew, and what is waited for then isn't a descriptor.
    bench.now += STALL_TIMEOUT / 2;
    let next = bench.step(Event::Woken);
    assert_parked(next, &bench);
    bench.now += HOUR;
    assert_eq!(
        look_up_fails(&mut bench, LookupError::NoDescriptor),
        Action::Suspend
    );
    bench.now += STALL_TIMEOUT / 2 - SUSPENDED_CHECK_INTERVAL / 2;
    assert_eq!(bench.step(Event::Drain), Action::Suspend);
    assert_eq!(bench.patience(), Some(SUSPENDED_CHECK_INTERVAL / 2));
    assert_eq!(bench.expire(), Action::Suspend, "the last look");
    let next = look_up_fails(&mut bench, LookupError::NoDescriptor);
    assert_eq!(next, Action::Reset(Reason::NoDescriptor));
}

#[test]
fn a_failure_of_a_helpers_look_up_is_a_reset() {
    let root = root();
    let mut bench = looking_up(&root, b"small\n");
    let failed = LookupError::Failed(rustix::io::Errno::IO);
    let next = look_up_fails(&mut bench, failed);
    assert_eq!(next, Action::Reset(Reason::OpenFailed));
}

// ---- the read ----

#[test]
fn a_cold_file_is_read_by_a_helper_and_then_sent() {
    let root = root();
    for (name, length) in [(&b"small\n"[..], SMALL.len()), (b"big\n", BIG_BYTES)] {
        let mut bench = reading(&root, name);
        then(&mut bench, &[Read::Block], &[ALL]);
        let next = bench.fetch();
        assert_eq!(next, Action::Close(Reason::Complete));
        assert_eq!(bench.transport.sent.len(), length);
    }
}

#[test]
fn a_file_may_be_cold_in_the_middle() {
    let root = root();
    let mut bench = bench(bare(&root, FsClass::Nowait), b"bulk\n");
    bench.transport.writes.push_back(ALL);
    assert_eq!(bench.step(Event::Start), Action::Yield);
    bench.transport.colds = 1;
    let next = bench.step(Event::Resume);
    assert_parked(next, &bench);
    then(&mut bench, &[], &[Write::Take(5), Write::Block]);
    assert_eq!(bench.fetch(), Action::Wait);
    assert_eq!(bench.patience(), Some(STALL_TIMEOUT / STALL_CHECKS));
    // What was in memory may have left it.
    bench.transport.colds = 1;
    let next = bench.step(carafe::testing::WRITABLE);
    assert_parked(next, &bench);
    then(&mut bench, &[Read::Block], &[ALL, ALL]);
    assert_eq!(bench.fetch(), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, content(BULK_BYTES));
}

#[test]
fn what_was_read_is_sent_although_it_is_cold_again() {
    let root = root();
    let mut bench = reading(&root, b"big\n");
    bench.transport.colds = 1;
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Close(Reason::Complete));
}

#[test]
fn the_stall_clock_stands_while_the_disk_is_waited_for() {
    let root = root();
    let mut bench = bench(bare(&root, FsClass::Nowait), b"bulk\n");
    bench
        .transport
        .writes
        .extend([Write::Take(5), Write::Block]);
    assert_eq!(bench.step(Event::Start), Action::Wait);
    bench.now += STALL_TIMEOUT - Duration::from_secs(1);
    bench.transport.colds = 1;
    let next = bench.step(carafe::testing::WRITABLE);
    assert_parked(next, &bench);
    bench.now += HOUR;
    then(&mut bench, &[], &[Write::Block]);
    assert_eq!(bench.fetch(), Action::Wait);
    bench.deadline = Some(bench.now + Duration::from_millis(999));
    assert_eq!(bench.expire(), Action::Wait, "it goes on from where it was");
    assert_eq!(bench.patience(), Some(Duration::from_millis(1)));
    assert_eq!(bench.expire(), Action::Reset(Reason::Stalled));
}

#[test]
fn a_file_that_a_helper_cannot_read_is_a_reset() {
    let root = root();
    for name in [&b"small\n"[..], b"big\n"] {
        let mut bench = reading(&root, name);
        let failed = TaskResult::Read(Err(ErrorKind::Other.into()));
        assert_eq!(
            bench.step_with(Event::Woken, Some(failed)),
            Action::Reset(Reason::ReadFailed)
        );
        assert!(bench.transport.resets_on_close);
    }
}

#[test]
fn a_helper_that_panics_is_a_reset() {
    let root = root();
    let mut bench = looking_up(&root, b"small\n");
    let next = bench.step_with(Event::Woken, Some(TaskResult::Panicked));
    assert_eq!(next, Action::Reset(Reason::OpenFailed));
    let mut bench = reading(&root, b"small\n");
    let next = bench.step_with(Event::Woken, Some(TaskResult::Panicked));
    assert_eq!(next, Action::Reset(Reason::ReadFailed));
}

#[test]
fn a_file_cut_short_while_it_was_cold_is_a_reset() {
    let root = root();
    for name in ["small", "big"] {
        let mut bench = reading(&root, format!("{name}\n").as_bytes());
        let file = File::options().write(true).open(root.path().join(name));
        file.unwrap().set_len(0).unwrap();
        // A copied body never reaches the socket; sendfile does, and finds nothing.
        let writes = if name == "big" { vec![ALL] } else { vec![] };
        then(&mut bench, &[], &writes);
        assert_eq!(bench.fetch(), Action::Reset(Reason::FileShort));
    }
}

#[test]
fn a_file_overwritten_while_it_was_cold_is_a_reset() {
    let root = root();
    for kind in [FsClass::Nowait, FsClass::Remote] {
        fs::write(root.path().join("small"), SMALL).unwrap();
        let mut bench = bench(bare(&root, kind), b"small\n");
        bench.transport.colds = 1;
        let mut next = bench.step(Event::Start);
        if kind == FsClass::Remote {
            next = bench.fetch();
        }
        assert_parked(next, &bench);
        let past = std::time::SystemTime::UNIX_EPOCH;
        let file = File::options().write(true).open(root.path().join("small"));
        file.unwrap().set_modified(past).unwrap();
        assert_eq!(
            bench.fetch(),
            Action::Reset(Reason::FileChanged),
            "{kind:?}"
        );
    }
}

#[test]
fn what_helpers_bring_of_a_foreign_file_is_bounded() {
    let root = root();
    let mut bench = looking_up(&root, b"bulk\n");
    let mut next = bench.fetch();
    let mut brought = Vec::new();
    loop {
        next = match next {
            Action::Suspend => match bench.task.take().unwrap().run(MayBlock::Forever) {
                TaskResult::Read(Ok(portion)) => {
                    let Chunk { range, kept } = &portion;
                    let bytes = &kept.as_ref().unwrap().bytes;
                    assert_eq!(bytes.len() as u64, range.end - range.start);
                    assert!(bytes.len() as u64 <= TASK_RESULT_BYTES_MAX);
                    brought.push(bytes.len());
                    let writes = bytes.len().div_ceil(carafe::limits::SCRATCH_BYTES);
                    bench.transport.writes.extend(vec![ALL; writes]);
                    bench.transport.reads.push_back(Read::Block);
                    bench.step_with(Event::Woken, Some(TaskResult::Read(Ok(portion))))
                }
                other => panic!("{other:?}"),
            },
            Action::Yield => bench.step(Event::Resume),
            end => break assert_eq!(end, Action::Close(Reason::Complete)),
        };
    }
    assert_eq!(brought.iter().sum::<usize>(), BULK_BYTES);
    assert_eq!(bench.transport.sent, content(BULK_BYTES));
}

#[test]
fn a_foreign_file_is_sent_slowly_from_what_was_brought() {
    let root = root();
    let mut bench = looking_up(&root, b"big\n");
    let next = bench.fetch();
    assert_parked(next, &bench);
    then(&mut bench, &[], &[Write::Take(5), Write::Block]);
    assert_eq!(bench.fetch(), Action::Wait);
    then(&mut bench, &[Read::Block], &[ALL]);
    let next = bench.step(carafe::testing::WRITABLE);
    assert!(bench.task.is_none(), "nothing is fetched twice");
    assert_completes(&bench, next, &[7; BIG_BYTES]);
}

#[test]
fn where_all_keep_too_much_nobody_keeps_what_its_client_does_not_take() {
    let root = root();
    let (mut reads, mut taken) = (0, 0);
    let mut bench = looking_up(&root, b"big\n");
    let mut next = bench.fetch();
    while taken < BIG_BYTES {
        assert_parked(next, &bench);
        reads += 1;
        let memory = Semaphore::new(TASK_RESULT_BYTES_MAX);
        let TaskResult::Read(Ok(mut portion)) = bench.task.take().unwrap().run(MayBlock::Forever)
        else {
            panic!("it is a read");
        };
        portion.kept.as_mut().unwrap().permit = memory.try_acquire(TASK_RESULT_BYTES_MAX);
        then(&mut bench, &[], &[Write::Take(10_000), Write::Block]);
        taken += 10_000;
        if taken >= BIG_BYTES {
            bench.transport.writes.pop_back();
            bench.transport.reads.push_back(Read::Block);
        }
        next = bench.step_with(Event::Woken, Some(TaskResult::Read(Ok(portion))));
        if taken < BIG_BYTES {
            assert_eq!(next, Action::Wait);
            assert!(
                memory.try_acquire(TASK_RESULT_BYTES_MAX).is_some(),
                "it was given back"
            );
            next = bench.step(carafe::testing::WRITABLE);
        }
    }
    assert_completes(&bench, next, &[7; BIG_BYTES]);
    assert_eq!(reads, BIG_BYTES.div_ceil(10_000));
}

#[test]
fn a_file_that_cannot_be_asked_is_read_once() {
    let root = root();
    let mut bench = bench(bare(&root, FsClass::ReadOnce), b"bulk\n");
    bench.transport.reads.push_back(Read::Block);
    let (mut next, mut read) = (bench.step(Event::Start), Vec::new());
    let end = loop {
        next = match next {
            Action::Suspend => {
                let task_result = bench.task.take().unwrap().run(MayBlock::Forever);
                if let TaskResult::Read(Ok(portion)) = &task_result {
                    read.push(portion.range.end - portion.range.start);
                }
                bench.transport.writes.push_back(ALL);
                bench.step_with(Event::Woken, Some(task_result))
            }
            Action::Yield => bench.step(Event::Resume),
            end => break end,
        };
    };
    assert_completes(&bench, end, &content(BULK_BYTES));
    // It begins with little, since its client may break off.
    let block = COLD_BLOCK_BYTES;
    assert_eq!(read[..4], [block, 2 * block, 4 * block, 8 * block]);
    assert_eq!(read[4..], [COLD_READ_BYTES; 2], "and ends within one");
}

#[test]
fn what_is_in_memory_is_never_asked() {
    let root = root();
    for name in [&b"small\n"[..], b"big\n"] {
        let mut bench = bench(bare(&root, FsClass::InMemory), name);
        bench.transport.writes.push_back(ALL);
        assert_eq!(bench.step(Event::Start), Action::Close(Reason::Complete));
    }
}

// ---- ways out ----

#[test]
fn a_wake_up_without_anything_brought_changes_nothing() {
    let root = root();
    for mut bench in [looking_up(&root, b"small\n"), reading(&root, b"small\n")] {
        for event in [Event::Woken, Event::Drain, Event::Deadline] {
            let next = bench.step(event);
            assert_parked(next, &bench);
        }
    }
}

#[test]
fn a_disk_has_its_time_and_no_more() {
    let root = root();
    for mut bench in [looking_up(&root, b"small\n"), reading(&root, b"small\n")] {
        let start = bench.now;
        let end = loop {
            match bench.expire() {
                Action::Suspend => {}
                end => break end,
            }
        };
        assert_eq!(end, Action::Reset(Reason::DiskTimeout));
        assert_eq!(bench.now - start, DISK_TIMEOUT);
        assert!(bench.transport.resets_on_close, "nor may a sudden death");
    }
}

#[test]
fn what_was_brought_in_the_last_moment_counts() {
    let root = root();
    let mut bench = reading(&root, b"small\n");
    bench.now += HOUR;
    let task_result = bench.task.take().unwrap().run(MayBlock::Forever);
    then(&mut bench, &[Read::Block], &[ALL]);
    let next = bench.step_with(Event::Deadline, Some(task_result));
    assert_completes(&bench, next, SMALL);
}

#[test]
fn one_whose_client_said_its_last_gives_its_place_to_others() {
    let root = root();
    for mut bench in [looking_up(&root, b"small\n"), reading(&root, b"small\n")] {
        bench.transport.peer_has_finished = true;
        assert_eq!(bench.expire(), Action::Suspend, "nobody needs its place");
        bench.transport.peer_has_finished = false;
        bench.is_crowded = true;
        assert_eq!(bench.expire(), Action::Suspend, "it may say more");
        bench.transport.peer_has_finished = true;
        assert_eq!(bench.expire(), Action::Reset(Reason::ClientLeft));
    }
    let mut bench = looking_up(&root, b"small\n");
    bench.transport.peer_has_finished = true;
    bench.is_crowded = true;
    let next = bench.step(Event::Woken);
    assert_eq!(
        next,
        Action::Suspend,
        "a disk that works answers within a second"
    );
}

#[test]
fn what_was_brought_counts_whatever_the_step_is_for() {
    let root = root();
    let mut bench = reading(&root, b"small\n");
    let task_result = bench.task.take().unwrap().run(MayBlock::Forever);
    then(&mut bench, &[Read::Block], &[ALL]);
    let next = bench.step_with(Event::Drain, Some(task_result));
    assert_completes(&bench, next, SMALL);
}

#[test]
fn a_connection_whose_peer_died_meanwhile_is_dropped() {
    let root = root();
    let mut bench = looking_up(&root, b"small\n");
    assert_eq!(bench.step(DEAD), Action::Close(Reason::PeerReset));
    let mut bench = reading(&root, b"small\n");
    assert_eq!(bench.step(DEAD), Action::Reset(Reason::PeerReset));
}

#[test]
fn a_connection_that_still_waits_when_the_drain_ends_is_reset() {
    let root = root();
    for mut bench in [looking_up(&root, b"small\n"), reading(&root, b"small\n")] {
        assert!(bench.transport.resets_on_close, "nor may a sudden death");
        let reason = Reason::DrainDeadline;
        assert_eq!(bench.step(Event::Stop(reason)), Action::Reset(reason));
    }
}

#[test]
fn while_draining_a_cold_file_is_sent_whole_and_waits_for_the_client() {
    let root = root();
    let mut bench = reading(&root, b"small\n");
    bench.draining = true;
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
    assert!(bench.transport.is_shut);
    then(&mut bench, &[Read::Eof], &[]);
    assert_eq!(bench.step(READ_CLOSED), Action::Close(Reason::Complete));
    assert_eq!(bench.transport.sent, SMALL);
}

// ---- HTTP ----

#[test]
fn a_folder_and_its_index_are_looked_up_one_after_the_other() {
    let root = root();
    let request = b"GET /folder/ HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut bench = bench(http(&root, FsClass::Remote), request);
    let next = looks_up(&mut bench, &["folder/", "folder/index.html"]);
    assert_parked(next, &bench);
    assert!(bench.transport.sent.is_empty());
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
    assert!(bench.transport.sent.ends_with(b"\r\n\r\nindex"));
    assert_eq!(bench.patience(), Some(KEEP_ALIVE));
    // The root itself is a folder, too.
    let again = Read::Bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec());
    then(&mut bench, &[again], &[]);
    let next = bench.step(carafe::testing::READABLE);
    assert_parked(next, &bench);
    let next = bench.fetch();
    assert_parked(next, &bench);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
}

/// It waits for one look-up after the other, of these names. Returns what it does after the last.
fn looks_up(bench: &mut Bench<Scripted, SharedPort>, names: &[&str]) -> Action {
    let mut next = bench.step(Event::Start);
    for name in names {
        assert_parked(next, bench);
        let task = bench.task.take().unwrap();
        match &task {
            DiskTask::Open { name: asked, .. } => assert_eq!(**asked, *name.as_bytes()),
            other => panic!("{other:?}"),
        }
        next = bench.step_with(Event::Woken, Some(task.run(MayBlock::Forever)));
    }
    next
}

#[test]
fn siblings_are_looked_up_one_after_the_other() {
    let root = root();
    fs::write(root.path().join("small.gz"), b"gzip").unwrap();
    let mut web = Http::new(ContentTypes::new([]), None, None, TagKey::new(b""));
    web.set_precompressed(true);
    let request = b"GET /small HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip, br\r\n\r\n";
    let mut bench = bench(SharedPort::new(bare(&root, FsClass::Remote), web), request);
    let next = looks_up(&mut bench, &["small", "small.br", "small.gz"]);
    assert_parked(next, &bench);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
    assert!(bench.transport.sent.ends_with(b"\r\n\r\ngzip"));
}

#[test]
fn pages_that_stand_for_others_are_looked_up_where_nothing_is_found() {
    let root = root();
    let mut web = Http::new(ContentTypes::new([]), None, None, TagKey::new(b""));
    web.set_pages(Pages {
        clean_urls: true,
        spa: Some(Box::from(*b"lost")),
        errors: vec![ErrorPage::parse(b"404=small").unwrap()],
    });
    let request = b"GET /none HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n";
    let mut bench = bench(SharedPort::new(bare(&root, FsClass::Remote), web), request);
    let next = looks_up(&mut bench, &["none", "none.html", "lost", "small"]);
    assert_parked(next, &bench);
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
    let sent = &bench.transport.sent;
    assert!(sent.starts_with(b"HTTP/1.1 404 ") && sent.ends_with(SMALL));
}

#[test]
fn a_folder_that_a_helper_found_is_read_by_a_helper_too() {
    let root = root();
    let request =
        b"GET /folder HTTP/1.1\r\nHost: h\r\n\r\nGET /folder/ HTTP/1.1\r\nHost: h\r\n\r\n";
    let protocol = SharedPort::new(
        bare(&root, FsClass::Remote),
        Http::new(
            ContentTypes::new([]),
            None,
            Some(Listings::new()),
            TagKey::new(b""),
        ),
    );
    let mut bench = bench(protocol, request);
    let next = bench.step(Event::Start);
    assert_parked(next, &bench);
    then(&mut bench, &[], &[ALL]);
    let next = bench.fetch();
    assert_parked(next, &bench);
    let next = bench.fetch();
    assert_parked(next, &bench);
    assert!(matches!(bench.task, Some(DiskTask::List(_))));
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.fetch(), Action::Wait);
    let sent = String::from_utf8_lossy(&bench.transport.sent);
    assert!(sent.contains("index.html"), "{sent}");
}

#[test]
fn without_memory_for_a_list_the_client_is_told_to_try_again() {
    let root = root();
    let parked = |request: &[u8]| {
        let folders = Some(Listings::new());
        let protocol = SharedPort::new(
            bare(&root, FsClass::InMemory),
            Http::new(ContentTypes::new([]), None, folders, TagKey::new(b"")),
        );
        let mut bench = bench(protocol, request);
        let next = bench.step(Event::Start);
        assert_parked(next, &bench);
        assert!(matches!(bench.task, Some(DiskTask::List(_))));
        bench
    };
    let no_memory = || Some(TaskResult::Listed(Err(ListError::NoMemory)));
    let mut bench = parked(b"GET /folder/ HTTP/1.1\r\nHost: h\r\n\r\n");
    then(&mut bench, &[Read::Block], &[ALL]);
    assert_eq!(bench.step_with(Event::Woken, no_memory()), Action::Wait);
    let sent = String::from_utf8_lossy(&bench.transport.sent);
    assert!(
        sent.starts_with("HTTP/1.1 503 ") && sent.contains("\r\nRetry-After: 5\r\n"),
        "{sent}"
    );
    // The bare protocol has no words for it.
    let mut bench = parked(b"folder\n");
    let next = bench.step_with(Event::Woken, no_memory());
    assert_eq!(next, Action::Reset(Reason::OpenFailed));
}

#[test]
fn a_head_is_not_sent_before_its_body_is_there() {
    let root = root();
    for kind in [FsClass::Nowait, FsClass::Remote] {
        let request = b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut bench = bench(http(&root, kind), request);
        bench.transport.colds = 1;
        let mut next = bench.step(Event::Start);
        if kind == FsClass::Remote {
            next = bench.fetch();
        }
        assert_parked(next, &bench);
        assert!(bench.transport.sent.is_empty());
        let writes = if kind == FsClass::Nowait { 2 } else { 1 };
        then(&mut bench, &[Read::Block], &vec![ALL; writes]);
        assert_eq!(bench.fetch(), Action::Wait);
        assert!(bench.transport.sent.ends_with(&[7; BIG_BYTES]));
        assert_eq!(bench.patience(), Some(KEEP_ALIVE));
    }
}
