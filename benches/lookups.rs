//! From a client's bytes to a file, without the connection: reading a request's head, looking a name
//! up in the root, and finding it in the cache (which asks inotify first).
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench says what failed by panicking"
)]

use std::fs;
use std::hint::black_box;

use carafe::http::fields::NO_FIELD;
use carafe::http::request::parse;
use carafe::limits::HTTP_FIELDS_USUAL;
use carafe::root::Root;
use carafe::root::cache::CacheLimits;
use criterion::{Criterion, criterion_group, criterion_main};

const PLAIN: &[u8] = b"GET /file HTTP/1.1\r\nHost: localhost:7890\r\n\r\n";
const BROWSER: &[u8] = b"GET /a/folder/file.html?x=1 HTTP/1.1\r\n\
    Host: files.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    If-None-Match: \"fe00-a16012-11-6b03f881.1cb06c22\"\r\n\
    Priority: u=0, i\r\n\r\n";

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a request's head");
    for (name, head) in [("plain", PLAIN), ("of a browser", BROWSER)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut table = [NO_FIELD; HTTP_FIELDS_USUAL];
                black_box(parse(black_box(head), &mut table));
            });
        });
    }
    group.finish();
}

fn names(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/folder")).unwrap();
    let names = ["file", "a/folder/file"];
    for name in names {
        fs::write(folder.path().join(name), [7; 1024]).unwrap();
    }
    let mut group = criterion.benchmark_group("a name to its file");
    for name in names {
        let mut root = Root::open(folder.path(), false).unwrap();
        let look = |root: &mut Root| root.find_file(name.as_bytes(), &[]).unwrap();
        group.bench_function(format!("{name}, looked up"), |b| b.iter(|| look(&mut root)));
        root.set_cache(CacheLimits {
            bytes_max: 1 << 20,
            open_max: 16,
        })
        .unwrap();
        group.bench_function(format!("{name}, from the cache"), |b| {
            b.iter(|| look(&mut root));
        });
    }
    group.finish();
}

criterion_group!(benches, requests, names);
criterion_main!(benches);
