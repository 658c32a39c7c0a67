//! Representations over HTTP, end to end: conditions, ranges, dates and lengths. The tables of
//! RFC 9110's rules stand beside the code; here they meet files.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::{Duration, SystemTime};

use crate::common::{Carafe, assert_same, pattern, root_with, sparse_file, until};
use crate::talk::{Answer, MODIFIED, Talk, age_all, changed, get, set_time, settle};
use tempfile::TempDir;

const LENGTH: usize = 100_000;

fn server() -> (TempDir, Carafe) {
    let files = [
        ("file", pattern(1, LENGTH)),
        ("small", b"0123456789".to_vec()),
    ];
    let root = root_with(&files);
    age_all(root.path());
    let carafe = Carafe::serve(root.path(), &[]);
    (root, carafe)
}

fn ask_with(talk: &mut Talk, path: &str, fields: &str) -> Answer {
    talk.ask(&get(path, fields))
}

/// Each field once, with what it does to the answer; all their values are the unit's
/// (src/http/validators/tests.rs).
#[test]
fn conditions() {
    let (root, carafe) = server();
    settle(root.path());
    let changed = changed(&root.path().join("small"));
    let mut talk = Talk::to(carafe.addr());
    let first = talk.get("/small");
    let etag = first.field("etag").unwrap().to_owned();
    assert!(etag.starts_with('"'), "{etag}: it is strong");
    // The time of its bytes, which anybody can set, is none that it is known by.
    let earlier = MODIFIED;
    let rows = [
        (format!("If-None-Match: {etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {changed}\r\n"), 304),
        (format!("If-Modified-Since: {earlier}\r\n"), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        (format!("If-Unmodified-Since: {changed}\r\n"), 200),
        (format!("If-Unmodified-Since: {earlier}\r\n"), 412),
        (
            format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"),
            304,
        ),
        ("If-Match: \"x\"\r\nRange: bytes=10-\r\n".into(), 412),
    ];
    for (fields, status) in &rows {
        let answer = ask_with(&mut talk, "/small", fields);
        assert_eq!(answer.status, *status, "{fields}");
        match status {
            200 => assert_eq!(answer.body, b"0123456789"),
            304 => {
                assert_eq!(answer.field("etag"), Some(&*etag));
                assert_eq!(answer.field("last-modified"), Some(&*changed));
                assert_eq!(answer.field("content-length"), None);
            }
            _ => assert_eq!(answer.text(), "412 Precondition Failed\n"),
        }
        // HEAD: the same status, and no body on the connection that goes on.
        if !fields.contains("Range") {
            talk.say(get("/small", fields).replace("GET", "HEAD"));
            assert_eq!(talk.head().status, *status, "HEAD {fields}");
        }
        // What is missing is missing whatever the conditions say.
        assert_eq!(ask_with(&mut talk, "/missing", fields).status, 404);
    }
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn single_ranges() {
    let (root, carafe) = server();
    settle(root.path());
    let bytes = pattern(1, LENGTH);
    let mut talk = Talk::to(carafe.addr());
    let etag = talk.get("/file").field("etag").unwrap().to_owned();
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("0-", 0, LENGTH),
        ("1-", 1, LENGTH),
        ("99999-", 99_999, LENGTH),
        ("99999-200000", 99_999, LENGTH),
        ("-1", 99_999, LENGTH),
        ("-40000", 60_000, LENGTH),
        ("-999999999999", 0, LENGTH),
        ("5-40004", 5, 40_005),
        ("32768-65535", 32_768, 65_536),
        // Of several only one lies within.
        ("7-8,100000-", 7, 9),
    ] {
        let answer = ask_with(&mut talk, "/file", &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        let expected = format!("bytes {from}-{}/{LENGTH}", to - 1);
        assert_eq!(answer.field("content-range"), Some(&*expected));
        assert_eq!(answer.field("etag"), Some(&*etag));
        assert_same(range, &answer.body, &bytes[from..to]);
        // Range means nothing to HEAD.
        let fields = format!("Range: bytes={range}\r\n");
        talk.say(get("/file", &fields).replace("GET", "HEAD"));
        let head = talk.head();
        assert_eq!((head.status, head.field("content-range")), (200, None));
        assert_eq!(head.field("content-length"), Some("100000"));
    }
    for range in ["bytes=100000-", "bytes=-0", "bytes=100000-,200000-"] {
        let answer = ask_with(&mut talk, "/file", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.field("content-range"), Some("bytes */100000"));
    }
    for range in [
        "bytes=2-1",
        "bytes=x",
        "lines=1-2",
        "bytes=0-9,5-14",
        "bytes=-",
    ] {
        let answer = ask_with(&mut talk, "/file", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.body.len()), (200, LENGTH), "{range}");
    }
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_range_if_the_file_is_still_the_same() {
    let (root, carafe) = server();
    settle(root.path());
    let date = changed(&root.path().join("small"));
    let mut talk = Talk::to(carafe.addr());
    let etag = talk.get("/small").field("etag").unwrap().to_owned();
    let mut ask = |if_range: &str| {
        let fields = format!("Range: bytes=2-3\r\nIf-Range: {if_range}\r\n");
        let answer = ask_with(&mut talk, "/small", &fields);
        (answer.status, answer.text())
    };
    let (part, whole) = ((206, "23".into()), (200, "0123456789".into()));
    assert_eq!(ask(&etag), part);
    assert_eq!(ask(&date), part);
    assert_eq!(ask(&format!("W/{etag}")), whole);
    assert_eq!(ask("\"other\""), whole);
    assert_eq!(ask(MODIFIED), whole);
    assert_eq!(ask("Fri, 31 Dec 9999 23:59:59 GMT"), whole);
    assert_eq!(ask("nonsense"), whole);
    drop(talk);
    carafe.stop_clean();
}

/// Asks for a file until its answer has both validators, and returns the tags that came, without the
/// missing ones.
fn tags_until_final(carafe: &Carafe, path: &str) -> Vec<String> {
    let (mut talk, mut tags) = (Talk::to(carafe.addr()), Vec::new());
    until("both validators are there", || {
        let answer = talk.get(path);
        let tag = answer.field("etag").map(str::to_owned);
        let is_final = answer.field("last-modified").is_some();
        assert!(tag.is_some() || tags.is_empty(), "it is given and taken");
        assert!(tag.is_some() || !is_final);
        tags.extend(tag);
        is_final
    });
    tags
}

#[test]
fn a_tag_is_there_when_the_file_is_old_enough_and_stays() {
    let files = [("short", vec![7; 100]), ("long", vec![7; LENGTH])];
    let root = root_with(&files);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut last = Vec::new();
    for (name, bytes) in files {
        // It is known, and in the cache, before it changes.
        let path = format!("/{name}");
        let before = tags_until_final(&carafe, &path);
        std::fs::write(root.path().join(name), bytes).unwrap();
        let mut after = tags_until_final(&carafe, &path);
        assert!(!after.contains(&before[0]), "the bytes were written anew");
        for mut tags in [before, after.clone()] {
            tags.dedup();
            assert_eq!(tags.len(), 1, "{name}: a tag stays");
            assert!(tags[0].starts_with('"'), "{tags:?}: and is strong");
        }
        last.push((path, after.remove(0)));
    }
    carafe.stop_clean();
    let carafe = Carafe::serve(root.path(), &[]);
    for (path, tag) in last {
        let answer = Talk::to(carafe.addr()).get(&path);
        assert_eq!(answer.field("etag"), Some(&*tag), "after a restart");
        let inode = std::fs::metadata(root.path().join(&path[1..]))
            .unwrap()
            .ino();
        assert!(!tag.contains(&format!("{inode:x}")), "{tag}");
    }
    carafe.stop_clean();
}

/// Deployments that give every file the same time: its inode is that of the last but one.
#[test]
fn versions_of_one_time_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let put = |bytes: &str| {
        std::fs::write(at(".new"), bytes).unwrap();
        set_time(&at(".new"), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        std::fs::rename(at(".new"), at("file")).unwrap();
    };
    put("AAAA");
    let carafe = Carafe::serve(root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    let mut known = Vec::<String>::new();
    for bytes in ["AAAA", "BBBB", "CCCC", "DDDDD", "EEEEE"] {
        put(bytes);
        // At once, and when it has validators; what its predecessors had counts for nothing.
        let mut fields = vec!["Thu, 01 Jan 1970 00:00:01 GMT".to_owned()];
        for round in 0..2 {
            for known in known.iter().chain(&fields) {
                let (condition, part) = if known.starts_with('"') {
                    ("If-None-Match", "If-Range")
                } else {
                    ("If-Modified-Since", "If-Range")
                };
                for condition in [condition, part] {
                    let fields = format!("{condition}: {known}\r\nRange: bytes=2-\r\n");
                    let answer = ask_with(&mut talk, "/file", &fields);
                    let status = if condition == part { 200 } else { 206 };
                    assert_eq!(answer.status, status, "{bytes}, {round}: {fields}");
                }
            }
            fields.clear();
            let tags = tags_until_final(&carafe, "/file");
            let date = talk.get("/file").field("last-modified").unwrap().to_owned();
            assert!(!known.contains(&tags[0]) && !known.contains(&date));
            if round == 1 {
                known.extend([tags[0].clone(), date]);
            }
        }
    }
    drop(talk);
    carafe.stop_clean();
}

/// The parts of a multipart/byteranges body: each one's Content-Range and bytes.
fn parts_of(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let content_type = answer.field("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=");
    let delimiter = format!("\r\n--{}", boundary.expect(content_type));
    let body = &answer.body;
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|at| at == what);
    let mut rest = &body[delimiter.len()..];
    assert!(body.starts_with(delimiter.as_bytes()));
    let mut parts = Vec::new();
    while rest != b"--\r\n" {
        let head_ends = find(rest, b"\r\n\r\n").expect("a part's head");
        let head = String::from_utf8(rest[..head_ends].to_vec()).unwrap();
        let range = head.split("Content-Range: ").nth(1).unwrap();
        rest = &rest[head_ends + 4..];
        let ends = find(rest, delimiter.as_bytes()).expect("a delimiter");
        parts.push((range.lines().next().unwrap().into(), rest[..ends].to_vec()));
        rest = &rest[ends + delimiter.len()..];
    }
    parts
}

#[test]
fn several_ranges() {
    let (_root, carafe) = server();
    let bytes = pattern(1, LENGTH);
    let mut talk = Talk::to(carafe.addr());
    // Below and above what is copied, adjacent, out of order, and as many as there may be.
    let most: Vec<_> = (0..16).map(|at| (at * 100, at * 100 + 1)).collect();
    for ranges in [
        vec![(0, 1), (99_999, LENGTH)],
        vec![(0, 50_000), (50_000, LENGTH)],
        vec![(90_000, 99_000), (0, 40_000), (40_001, 80_000)],
        most,
    ] {
        let spec = |(from, to): &(usize, usize)| format!("{from}-{}", to - 1);
        let set: Vec<_> = ranges.iter().map(spec).collect();
        let fields = format!("Range: bytes={}\r\n", set.join(", "));
        let answer = ask_with(&mut talk, "/file", &fields);
        assert_eq!((answer.status, answer.field("content-range")), (206, None));
        let parts = parts_of(&answer);
        assert_eq!(parts.len(), ranges.len());
        for ((range, got), (from, to)) in parts.into_iter().zip(ranges) {
            assert_eq!(range, format!("bytes {from}-{}/{LENGTH}", to - 1));
            assert_same(&range, &got, &bytes[from..to]);
        }
    }
    // One more than there may be: all of it.
    let set: Vec<_> = (0..17).map(|at| format!("{0}-{0}", 2 * at)).collect();
    let fields = format!("Range: bytes={}\r\n", set.join(","));
    assert_eq!(ask_with(&mut talk, "/file", &fields).status, 200);
    // The last of a connection, which isn't sent without delay, comes whole, too.
    let close = "Connection: close\r\nRange: bytes=0-1,5-6,50000-90000\r\n";
    let mut talk = Talk::to(carafe.addr());
    let answer = ask_with(&mut talk, "/file", close);
    assert_eq!(parts_of(&answer).len(), 3);
    talk.ends();
    carafe.stop_clean();
}

#[test]
fn a_file_of_more_than_four_gigabytes() {
    const HUGE: u64 = (5 << 30) + 3;
    let (root, carafe) = server();
    let file = sparse_file(&root.path().join("huge"), HUGE);
    let bytes = pattern(2, 70_000);
    file.write_all_at(&bytes, HUGE - 70_000).unwrap();
    let mut talk = Talk::to(carafe.addr());
    talk.say(get("/huge", "").replace("GET", "HEAD"));
    assert_eq!(talk.head().field("content-length"), Some("5368709123"));
    for count in [1, 4_000, 70_000] {
        let expected = &bytes[70_000 - count..];
        let first = HUGE - count as u64;
        for range in [format!("-{count}"), format!("{first}-")] {
            let answer = ask_with(&mut talk, "/huge", &format!("Range: bytes={range}\r\n"));
            let content_range = format!("bytes {first}-5368709122/5368709123");
            assert_eq!(answer.field("content-range"), Some(&*content_range));
            assert_same(&range, &answer.body, expected);
        }
    }
    let fields = format!("Range: bytes=0-9,{}-\r\n", HUGE - 3);
    let parts = parts_of(&ask_with(&mut talk, "/huge", &fields));
    assert_eq!(parts[1].0, "bytes 5368709120-5368709122/5368709123");
    assert_eq!(parts[1].1, bytes[69_997..]);
    let answer = ask_with(&mut talk, "/huge", "Range: bytes=5368709123-\r\n");
    assert_eq!(answer.field("content-range"), Some("bytes */5368709123"));
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn odd_times_do_no_harm() {
    let (root, carafe) = server();
    let path = root.path().join("small");
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds = Duration::from_secs;
    let mut talk = Talk::to(carafe.addr());
    for time in [
        epoch,
        epoch - seconds(1),
        epoch - seconds(86_400 * 365 * 60),
        SystemTime::now() + seconds(86_400),
        epoch + seconds(253_402_300_800),
        epoch + seconds(1 << 40),
    ] {
        set_time(&path, time);
        // Whatever was set, it was changed now.
        let etag = tags_until_final(&carafe, "/small").remove(0);
        let answer = talk.get("/small");
        assert_eq!((answer.status, answer.body.len()), (200, 10), "{time:?}");
        let written = changed(&path);
        assert_eq!(answer.field("last-modified"), Some(&*written), "{time:?}");
        let again = ask_with(&mut talk, "/small", &format!("If-None-Match: {etag}\r\n"));
        assert_eq!(again.status, 304, "{time:?}");
        for date in [
            MODIFIED,
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ] {
            for field in ["If-Modified-Since", "If-Unmodified-Since", "If-Range"] {
                let fields = format!("{field}: {date}\r\nRange: bytes=0-1\r\n");
                let status = ask_with(&mut talk, "/small", &fields).status;
                assert!([200, 206, 304, 412].contains(&status), "{time:?} {fields}");
            }
        }
    }
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn an_empty_file_is_told_from_a_missing_one() {
    let root = root_with(&[("empty", "")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    let answer = talk.get("/empty");
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("0"))
    );
    for range in ["0-", "0-0", "5-9", "-1", "-0", "0-1,3-4"] {
        let answer = ask_with(&mut talk, "/empty", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{range}");
    }
    assert_eq!(talk.get("/missing").status, 404);
    drop(talk);
    carafe.stop_clean();
}
