//! A round trip over loopback: connect, name, bytes, close. Beside it, in the same run, the
//! plainest server there is: a blocking accept loop that reads the name, reads the file and writes
//! it. Only the ratio of the two means something on a machine that has other things to do.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench says what failed by panicking"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use carafe::conn::Timeouts;
use carafe::limits::{
    DISK_TIMEOUT, KEEP_ALIVE, MIN_RATE_BYTES, NAME_GAP, REQUEST_TIMEOUT, STALL_TIMEOUT,
};
use carafe::protocol::bare::Bare;
use carafe::root::Root;
use carafe::serve::{Server, Stopper};
use carafe::telemetry::log_writer::LineWriter;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 3] = [1024, 64 * 1024, 4 * 1024 * 1024];

/// Runs carafe in a thread of its own.
fn start_carafe(root: PathBuf) -> (SocketAddr, Stopper, thread::JoinHandle<()>) {
    let (send, receive) = std::sync::mpsc::channel();
    let server = thread::spawn(move || {
        let listener = mio::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let protocol = Bare::new(Root::open(&root, false).unwrap(), Some(NAME_GAP));
        let timeouts = Timeouts {
            request: REQUEST_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            stall: STALL_TIMEOUT,
            min_rate: MIN_RATE_BYTES,
            disk: DISK_TIMEOUT,
        };
        let outlet = LineWriter::new(io::sink()).unwrap();
        let mut server = Server::new(protocol, timeouts, vec![listener], 1000, outlet).unwrap();
        server.set_drain(Duration::from_secs(5));
        send.send((
            server.addresses()[0].ip().expect("it is no unix socket"),
            server.stopper(),
        ))
        .unwrap();
        server.run().unwrap();
    });
    let (address, stopper) = receive.recv().unwrap();
    (address, stopper, server)
}

/// Serves one client after the other until the name is empty.
fn start_plain(root: PathBuf) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 1025];
            let n = client.read(&mut request).unwrap();
            let name = std::str::from_utf8(&request[..n]).unwrap().trim_end();
            if name.is_empty() {
                return;
            }
            client
                .write_all(&fs::read(root.join(name)).unwrap())
                .unwrap();
        }
    });
    (address, server)
}

fn download(address: SocketAddr, name: &str, buffer: &mut [u8]) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(name.as_bytes()).unwrap();
    let mut bytes = 0;
    loop {
        match stream.read(buffer).unwrap() {
            0 => return bytes,
            n => bytes += n,
        }
    }
}

fn make_files(root: &Path) {
    for size in SIZES {
        fs::write(root.join(size.to_string()), vec![7; size]).unwrap();
    }
}

fn round_trips(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    make_files(folder.path());
    let (carafe, stopper, carafe_thread) = start_carafe(folder.path().to_owned());
    let (plain, plain_thread) = start_plain(folder.path().to_owned());
    let mut buffer = vec![0; 256 * 1024];
    let mut group = criterion.benchmark_group("loopback round trip");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let name = format!("{size}\n");
        for (server, address) in [("carafe", carafe), ("plain", plain)] {
            group.bench_function(BenchmarkId::new(server, size), |b| {
                b.iter(|| assert_eq!(download(address, &name, &mut buffer), size));
            });
        }
    }
    group.finish();
    stopper.stop().unwrap();
    carafe_thread.join().unwrap();
    TcpStream::connect(plain).unwrap().write_all(b"\n").unwrap();
    plain_thread.join().unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = round_trips
}
criterion_main!(benches);
