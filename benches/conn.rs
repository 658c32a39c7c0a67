//! The connection alone: nanoseconds for a download over a transport without a kernel, and what
//! one weighs. The look-up in the root is real, so its system calls are in it; a
//! body from memory shows the rest.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench says what failed by panicking"
)]

use std::fs;
use std::hint::black_box;
use std::rc::Rc;

use carafe::conn::Conn;
use carafe::limits::{NAME_GAP, STEP_BYTES_MAX};
use carafe::protocol::bare::Bare;
use carafe::protocol::{Body, Decision, Protocol, Reply, Request, RequestEnd};
use carafe::reactor::Reactor;
use carafe::reactor::event::{Action, Event};
use carafe::root::Root;
use carafe::serve::ConnRecord;
use carafe::telemetry::Reason;
use carafe::testing::{Bench, Null};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Answers everything with the same bytes.
struct Memory(Rc<[u8]>);

impl Protocol for Memory {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let (body, used) = (Body::Bytes(Rc::clone(&self.0)), request.bytes.len());
        let end = RequestEnd::LineFeed;
        let reply = Reply::bare(Box::default(), body, None, used, end);
        Decision::Reply(reply)
    }
}

/// One whole connection over the null transport.
fn download<S: Protocol>(bench: &mut Bench<Null, S>, request: &'static [u8]) {
    bench.conn = Conn::new(bench.now);
    bench.transport.request = request;
    let mut next = bench.step(Event::Start);
    while next == Action::Yield {
        next = bench.step(Event::Resume);
    }
    assert_eq!(black_box(next), Action::Close(Reason::Complete));
}

fn connections(criterion: &mut Criterion) {
    println!(
        "a place in the slab: {} bytes; the state machine of a connection that has spoken: {}",
        Reactor::<ConnRecord>::slot_bytes(),
        size_of::<Conn>()
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1k"), [7; 1024]).unwrap();
    fs::write(
        folder.path().join("bulk"),
        vec![7; 8 * STEP_BYTES_MAX as usize],
    )
    .unwrap();
    let null = || Null {
        request: b"",
        sent: 0,
    };

    let mut group = criterion.benchmark_group("download over a null transport");
    group.throughput(Throughput::Elements(1));
    let mut memory = Bench::new(null(), Memory(Rc::new([7; 1024])));
    group.bench_function("1 KiB from memory", |b| {
        b.iter(|| download(&mut memory, b"1k\n"))
    });
    let bare = Bare::new(Root::open(folder.path(), false).unwrap(), Some(NAME_GAP));
    let mut files = Bench::new(null(), bare);
    group.bench_function("1 KiB from a file", |b| {
        b.iter(|| download(&mut files, b"1k\n"))
    });
    group.bench_function("2 MiB in 8 turns", |b| {
        b.iter(|| download(&mut files, b"bulk\n"))
    });
    group.finish();
}

criterion_group!(benches, connections);
criterion_main!(benches);
