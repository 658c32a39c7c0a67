//! Whatever the schedule, the same answer: every way to split reads, to insert WouldBlock and to
//! chunk writes for short requests, and random ones, with faults, for longer ones.
//!
//! A random run prints its seed when it fails; `CARAFE_SEED=... cargo test --test schedules`
//! replays it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::rc::Rc;

use crate::chaos::chaos;
use carafe::file::FsClass;
use carafe::limits::{COPIED_BODY_BYTES_MAX, NAME_GAP, STEP_BYTES_MAX};
use carafe::protocol::bare::Bare;
use carafe::protocol::{Decision, Protocol, Request};
use carafe::reactor::event::{Action, Event};
use carafe::root::Root;
use carafe::root::cache::CacheLimits;
use carafe::telemetry::Reason;
use carafe::testing::wire::{Choices, Wire};
use carafe::testing::{Bench, Edges as _};
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;

fn root(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(root.path().join(name), content).unwrap();
    }
    root
}

fn bare(folder: &Path, exact: bool) -> Bare {
    Bare::new(
        Root::open(folder, false).unwrap(),
        (!exact).then_some(NAME_GAP),
    )
}

/// With a cache that holds every file of the folder.
fn cached(folder: &Path, exact: bool) -> Bare {
    let mut bare = bare(folder, exact);
    let bounds = CacheLimits {
        bytes_max: 1 << 20,
        open_max: 16,
    };
    bare.root_mut().set_cache(bounds).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        // Once is not often, and then it must be watched first.
        let mut look = || bare.root_mut().find_file(name.as_encoded_bytes(), &[]);
        while look().is_ok_and(|file| file.contents().is_none()) {
            std::thread::yield_now();
        }
    }
    bare
}

/// On a file system that is taken for one of this kind.
fn on(root: &Path, kind: FsClass) -> Bare {
    let mut root = Root::open(root, false).unwrap();
    root.assume(kind);
    Bare::new(root, Some(NAME_GAP))
}

/// Runs every schedule of one request, and gives the different results and how many ran.
fn all_results(
    root: &TempDir,
    exact: bool,
    input: &[u8],
    ends: bool,
    blocks: u32,
) -> (BTreeSet<(Vec<u8>, &'static str)>, u64) {
    let (mut results, mut schedules) = (BTreeSet::new(), 0);
    for protocol in [bare(root.path(), exact), cached(root.path(), exact)] {
        run_all(protocol, input, ends, blocks, &mut |result| {
            results.insert(result);
            schedules += 1;
        });
    }
    (results, schedules)
}

fn run_all(
    mut protocol: Bare,
    input: &[u8],
    ends: bool,
    blocks: u32,
    note: &mut impl FnMut((Vec<u8>, &'static str)),
) {
    let mut choices = Choices::default();
    loop {
        let wire = Wire::new(choices, input, ends, blocks).cold(1);
        let mut bench = Bench::new(wire, protocol);
        let Action::Close(reason) = bench.run() else {
            panic!("a reset without a fault")
        };
        note((std::mem::take(&mut bench.transport.sent), reason.as_str()));
        (choices, protocol) = (bench.transport.choices, bench.protocol);
        if !choices.advance() {
            return;
        }
    }
}

/// One request under every schedule has one result.
fn assert_one_result(
    root: &TempDir,
    exact: bool,
    request: (&[u8], bool, u32),
    expected: (&[u8], Reason),
) {
    let (input, ends, blocks) = request;
    let (results, schedules) = all_results(root, exact, input, ends, blocks);
    let shown = input.escape_ascii();
    println!("\"{shown}\", FIN {ends}: {schedules} schedules");
    let expected = BTreeSet::from([(expected.0.to_vec(), expected.1.as_str())]);
    assert_eq!(results, expected, "\"{shown}\", FIN {ends}");
    assert!(schedules > 1);
}

#[test]
fn without_a_servable_prefix_the_answer_never_depends_on_the_schedule() {
    let root = root(&[("ab", b"xyz"), ("abc", b"")]);
    let (ok, no) = ((&b"xyz"[..], Reason::Complete), (&b""[..], Reason::Refused));
    for (input, expected) in [
        (&b"ab\n"[..], ok),
        (b"ab\r\n", ok),
        (b"/ab\n", ok),
        (b"zz\n", no),
        (b"\n", no),
        (b"a\0\n", no),
        (b"..\n", no),
        (b"ab\nz", ok),
    ] {
        for ends in [true, false] {
            assert_one_result(&root, false, (input, ends, 2), expected);
        }
    }
    assert_one_result(&root, false, (b"ab", true, 2), ok);
    assert_one_result(&root, false, (b"ab", false, 2), ok);
    assert_one_result(&root, false, (b"zz", true, 2), no);
    assert_one_result(&root, false, (b"zz", false, 2), no);
}

#[test]
fn exact_names_never_depend_on_the_schedule_whatever_the_root_holds() {
    let root = root(&[("a", b"!"), ("ab", b"xyz"), ("abc", b"?")]);
    let ok = (&b"xyz"[..], Reason::Complete);
    for input in [&b"ab\n"[..], b"ab\r\n", b"ab\nc"] {
        for ends in [true, false] {
            assert_one_result(&root, true, (input, ends, 2), ok);
        }
    }
    assert_one_result(&root, true, (b"ab", true, 2), ok);
    assert_one_result(
        &root,
        true,
        (b"ab", false, 2),
        (b"", Reason::RequestTimeout),
    );
    assert_one_result(&root, true, (b"", true, 2), (b"", Reason::ClientLeft));
}

#[test]
fn a_servable_prefix_is_the_known_limit_of_guessing() {
    let root = root(&[("a", b"!"), ("ab", b"xyz")]);
    let (results, _) = all_results(&root, false, b"ab\n", true, 0);
    let both = [(b"!".to_vec(), "complete"), (b"xyz".to_vec(), "complete")];
    assert_eq!(results, BTreeSet::from(both));
}

// ---- chaos ----

/// Sometimes there is no descriptor.
#[derive(Debug)]
struct Scarce {
    bare: Bare,
    laters: u8,
}

impl Protocol for Scarce {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        match self.laters.checked_sub(1) {
            Some(left) => {
                self.laters = left;
                Decision::WaitForFd
            }
            None => self.bare.respond(request),
        }
    }
}

fn content(len: usize) -> Rc<[u8]> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn chaos_never_makes_a_part_look_whole() {
    let small = content(COPIED_BODY_BYTES_MAX as usize - 7);
    let large = content(3 * STEP_BYTES_MAX as usize + 11);
    let root = root(&[("small", &small), ("large", &large), ("none", b"")]);
    let bodies = [&small[..], &large[..], b"", b""];
    let names = ["small", "large", "none", "nothing"];
    let ends = ["\n", "\r\n", "", "\nand more that nobody asked for"];
    let inputs = (
        0..4usize,
        0..4usize,
        any::<bool>(),
        0..4u8,
        select(&[
            FsClass::InMemory,
            FsClass::Nowait,
            FsClass::ReadOnce,
            FsClass::Remote,
        ]),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    chaos(2000, inputs, |(name, end, fin, laters, kind, schedule)| {
        let input = format!("{}{}", names[name], ends[end]);
        let wire = Wire::new(Choices::given(schedule), input.as_bytes(), fin, 50);
        let mut bench = Bench::new(
            wire.fragile().cold(20),
            Scarce {
                bare: on(root.path(), kind),
                laters,
            },
        );
        let next = bench.run();
        let (sent, whole) = (&bench.transport.sent, bodies[name]);
        prop_assert!(whole.starts_with(sent), "only bytes of the file");
        match next {
            Action::Close(Reason::Complete) => prop_assert_eq!(sent.len(), whole.len()),
            Action::Close(Reason::Refused) => prop_assert!(names[name] == "nothing"),
            Action::Close(Reason::PeerReset) | Action::Reset(Reason::PeerReset) => {
                prop_assert!(bench.transport.is_broken())
            }
            other => prop_assert!(false, "no reason for {:?}", other),
        }
        prop_assert!(sent.len() == whole.len() || bench.transport.is_broken());
        Ok(())
    });
}

#[test]
fn chaos_with_a_file_that_shrinks_ends_in_a_reset_or_whole() {
    let whole = content(2 * STEP_BYTES_MAX as usize);
    let root = root(&[("large", b"")]);
    let path = root.path().join("large");
    let inputs = (
        0..whole.len(),
        1..4usize,
        select(&[
            FsClass::InMemory,
            FsClass::Nowait,
            FsClass::ReadOnce,
            FsClass::Remote,
        ]),
        prop::collection::vec(any::<u8>(), 0..40),
    );
    chaos(200, inputs, |(new_len, steps, kind, schedule)| {
        fs::write(&path, &whole).unwrap();
        let wire = Wire::new(Choices::given(schedule), b"large\n", true, 50).cold(5);
        let mut bench = Bench::new(wire, on(root.path(), kind));
        let mut next = bench.step(Event::Start);
        let mut steps = steps;
        // The length is promised once the name is known.
        while steps > 0 || bench.conn.response().is_none() {
            steps -= usize::from(bench.conn.response().is_some());
            next = match next {
                Action::Yield => bench.step(Event::Resume),
                Action::Wait => bench.transport.edge().map_or(next, |edge| bench.step(edge)),
                Action::Suspend => bench.fetch(),
                _ => break,
            };
        }
        let was_whole = bench.transport.sent.len() == whole.len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(new_len as u64)
            .unwrap();
        let end = match next {
            Action::Close(_) | Action::Reset(_) => next,
            Action::Suspend => {
                bench.fetch();
                bench.run()
            }
            _ => bench.run(),
        };
        let is_whole = bench.transport.sent.len() == whole.len();
        prop_assert!(whole.starts_with(&bench.transport.sent));
        prop_assert!(
            is_whole || matches!(end, Action::Reset(Reason::FileShort)),
            "{:?}",
            end
        );
        prop_assert!(!was_whole || end == Action::Close(Reason::Complete));
        Ok(())
    });
}
