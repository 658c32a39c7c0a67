//! What the fuzz targets hold. The seeds of the corpus run through the same functions as ordinary
//! tests (`tests/it/corpus.rs`).

use std::cell::RefCell;
use std::fs;
use std::sync::{Arc, LazyLock};

use carafe::file::{DiskTask, FsClass};
use carafe::http::entity_tag::TagKey;
use carafe::http::fields::NO_FIELD;
use carafe::http::mime::ContentTypes;
use carafe::http::request::{Parsed, parse};
use carafe::limits::HTTP_FIELDS_MAX;
use carafe::protocol::bare::Bare;
use carafe::protocol::http::Http;
use carafe::protocol::sniff::SharedPort;
use carafe::protocol::{Decision, InputState, Protocol as _, Request};
use carafe::reactor::event::Action;
use carafe::root::Root;
use carafe::root::listing::Listings;
use carafe::testing::Bench;
use carafe::testing::tls_wire::{ClientEnd, TlsWire};
use carafe::testing::wire::{Choices, Wire};
use carafe::tls::certificates::{Certificates, PairFiles};
use carafe::tls::config;
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// Longer inputs find nothing that shorter ones don't.
const INPUT_BYTES_MAX: usize = 2048;

/// Prefixes of a head that are tried.
const PREFIXES_MAX: usize = 300;

thread_local! {
    static ROOT: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A root with a few files: one that goes by sendfile, an empty one, a folder with an index.
fn root() -> Root {
    ROOT.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let at = |name: &str| folder.path().join(name);
            fs::write(at("a"), b"body").expect("written");
            fs::write(at("big"), vec![b'x'; 50_000]).expect("written");
            fs::write(at("empty"), b"").expect("written");
            fs::create_dir(at("d")).expect("made");
            fs::write(at("d/index.html"), b"index").expect("written");
            fs::create_dir(at("list")).expect("made");
            fs::write(at("list/b"), b"body").expect("written");
            fs::write(at("list/c"), vec![b'y'; 50_000]).expect("written");
            folder
        });
        Root::open(folder.path(), false).expect("it is a folder")
    })
}

/// A service, on a file system that is taken for one of this kind.
///
/// # Panics
/// There is no folder for its files.
#[must_use]
pub fn service(kind: Option<FsClass>) -> SharedPort {
    let mut root = root();
    if let Some(kind) = kind {
        root.assume(kind);
    }
    // Exact names: what a beginning of a name brings depends on when the rest comes.
    let bare = Bare::new(root, None);
    let index = Some(Box::from(*b"index.html"));
    SharedPort::new(
        bare,
        Http::new(
            ContentTypes::new([]),
            index,
            Some(Listings::new()),
            TagKey::new(b""),
        ),
    )
}

/// A service says what it says of any bytes, and takes no more than there are.
///
/// # Panics
/// It doesn't.
pub fn names(data: &[u8]) {
    let bytes = &data[..data.len().min(INPUT_BYTES_MAX)];
    if bytes.is_empty() {
        return;
    }
    for is_keep_alive in [false, true] {
        for input_state in [
            InputState::Arrived,
            InputState::WouldBlock,
            InputState::IdleTimeout,
            InputState::Ended,
        ] {
            let mut service = service(None);
            let request = Request {
                is_keep_alive,
                ..Request::new(bytes, input_state)
            };
            match service.respond(&request) {
                Decision::Reply(reply) => assert!(reply.used <= bytes.len()),
                Decision::NeedMore { .. } | Decision::Suspend(DiskTask::List(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A head says the same however much of what follows is there, and nothing before it is whole.
///
/// # Panics
/// It doesn't.
pub fn heads(data: &[u8]) {
    let bytes = &data[..data.len().min(INPUT_BYTES_MAX)];
    let mut table = [NO_FIELD; HTTP_FIELDS_MAX];
    let whole = parse(bytes, &mut table);
    if let Parsed::Whole { used, .. } = &whole {
        assert!(*used <= bytes.len());
    }
    for end in (0..bytes.len()).rev().take(PREFIXES_MAX) {
        let mut table = [NO_FIELD; HTTP_FIELDS_MAX];
        match (parse(&bytes[..end], &mut table), &whole) {
            (Parsed::Partial, _) => {}
            (early, whole) => assert_eq!(early, *whole, "{end} bytes of {}", bytes.len()),
        }
    }
}

/// What is sent doesn't depend on how the input is split, when writes block, how much they take, and
/// whether a disk is waited for. The first byte says how many of the next ones are the schedule.
///
/// # Panics
/// It doesn't.
pub fn connection(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (schedule, input) = rest.split_at(rest.len().min(count.into()));
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let ends = count % 2 == 0;
    let run = |choices, colds, service| {
        let wire = Wire::new(choices, input, ends, 20).cold(colds);
        let mut bench = Bench::new(wire, service);
        let next = bench.run();
        let is_closed = matches!(next, Action::Close(_));
        (is_closed, without_dates(&bench.transport.sent))
    };
    // All at once, and as the schedule says.
    let plain = run(Choices::given([255; 64]), 0, service(None));
    for kind in [None, Some(FsClass::ReadOnce), Some(FsClass::Remote)] {
        let choices = Choices::given(schedule.iter().copied());
        assert_eq!(plain, run(choices, 10, service(kind)), "{kind:?}");
    }
}

/// A TLS server, and its clients of TLS 1.3 and 1.2, which resume nothing and send records of a few bytes.
pub static TLS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 2])> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("c"), folder.path().join("k"));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let pairs = vec![PairFiles { certificate, key }];
    let certificates = Certificates::read(pairs, config::provider()).expect("a pair");
    let client = |version| {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(config::provider());
        let builder = builder.with_protocol_versions(&[version]).expect("known");
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.max_fragment_size = Some(40);
        Arc::new(client)
    };
    let server = config::server(Arc::new(certificates)).expect("configured");
    (server, [client(&TLS13), client(&TLS12)])
});

/// Whatever comes from a client that says it speaks TLS, its connection ends, and without a panic. The
/// first byte says how many of the next ones are the schedule.
///
/// # Panics
/// It doesn't.
pub fn records(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (schedule, input) = rest.split_at(rest.len().min(count.into()));
    let input = input[..input.len().min(INPUT_BYTES_MAX)].to_vec();
    let tcp = Wire::new(Choices::given(schedule.iter().copied()), b"", false, 5);
    let (server, [client, _]) = &*TLS;
    let mut wire = TlsWire::new(tcp, (server, client), b"", ClientEnd::Open, 0);
    // In place of its hello.
    wire.harm(0, |said| *said = input);
    let end = Bench::new(wire, service(None)).run();
    assert!(
        matches!(end, Action::Close(_) | Action::Reset(_)),
        "{end:?}"
    );
}

/// A second may pass between two runs, a file grow old enough to have validators, and a boundary is
/// random.
#[must_use]
pub fn without_dates(sent: &[u8]) -> Vec<u8> {
    let lines = sent.split_inclusive(|&byte| byte == b'\n');
    let kept = lines.filter(|line| {
        let volatile = [
            &b"Date: "[..],
            b"ETag: ",
            b"Last-Modified: ",
            b"Content-Type: multipart",
            b"--carafe-",
        ];
        !volatile.iter().any(|begin| line.starts_with(begin))
    });
    kept.flatten().copied().collect()
}
