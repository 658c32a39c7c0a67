//! Folders in one piece: what a tar holds, read by the programs that people unpack it with; parts of it; and
//! what becomes of it when a folder changes, or has too much in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use carafe::limits::TASK_RESULT_BYTES_MAX;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{
    Carafe, assert_no_trouble, has_tool, next_random, pattern, run_carafe, serve_unprivileged,
    shell, sparse_file, until,
};
use crate::talk::{Answer, Talk, ask, get, set_time};

/// What is known of an entry: its permissions, its time, and its content or where it leads.
type Entry = (char, u32, (i64, i64), Vec<u8>);

/// All that is beneath a folder.
fn tree(folder: &Path) -> BTreeMap<Vec<u8>, Entry> {
    fn walk(folder: &Path, prefix: &Path, into: &mut BTreeMap<Vec<u8>, Entry>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, content) = if meta.is_dir() {
                walk(&path, prefix, into);
                ('d', Vec::new())
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                ('l', target.as_os_str().as_bytes().to_vec())
            } else {
                ('f', fs::read(&path).unwrap())
            };
            let name = path.strip_prefix(prefix).unwrap().as_os_str();
            let time = match kind {
                // Not every program sets a link's.
                'l' => (0, 0),
                _ => (meta.mtime(), meta.mtime_nsec()),
            };
            let entry = (kind, meta.mode() & 0o777, time, content);
            into.insert(name.as_bytes().to_vec(), entry);
        }
    }
    let mut all = BTreeMap::new();
    walk(folder, folder, &mut all);
    all
}

/// A folder `d` with all that tars are known to stumble over, and what they leave out.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("d");
    let at = |name: &str| d.join(name);
    fs::create_dir_all(at("sub/deep")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("empty file"), "").unwrap();
    fs::write(at("a"), "of one block").unwrap();
    fs::write(at("block"), [7; 512]).unwrap();
    fs::write(at("sub-"), "stands behind what is in sub").unwrap();
    fs::write(at("sub/deep/long"), pattern(3, 1_000_000)).unwrap();
    fs::write(at("木"), "wood").unwrap();
    fs::write(d.join(OsStr::from_bytes(b"n\xff\x80")), "no text").unwrap();
    for long in [100, 101, 255] {
        fs::write(at(&"l".repeat(long)), "a long name").unwrap();
    }
    let folder = at("deep").join("f".repeat(200)).join("g".repeat(200));
    fs::create_dir_all(&folder).unwrap();
    let name = [&[b'x'; 120][..], b"\xfe"].concat();
    fs::write(folder.join(OsStr::from_bytes(&name)), "deep").unwrap();
    symlink("a", at("link")).unwrap();
    symlink("sub/deep", at("to a folder")).unwrap();
    symlink("../beside", at("beside")).unwrap();
    symlink("l".repeat(255), at("to a long name")).unwrap();
    sparse_file(&at("sparse"), 300_000)
        .write_all(b"begins")
        .unwrap();
    for (name, mode) in [("a", 0o4751), ("sub", 0o750), ("block", 0o400)] {
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    }
    let epoch = SystemTime::UNIX_EPOCH;
    set_time(&at("a"), epoch + Duration::new(981_173_106, 789_000_000));
    set_time(&at("sub-"), epoch + Duration::from_secs(5));
    set_time(&at("木"), epoch - Duration::from_secs(315_619_200));
    fs::write(root.path().join("beside"), "beside").unwrap();
    root
}

/// Adds what isn't sent.
fn add_others(d: &Path) {
    fs::write(d.join(".hidden"), "hidden").unwrap();
    fs::create_dir(d.join(".folder")).unwrap();
    fs::write(d.join(".folder/x"), "hidden").unwrap();
    symlink("/etc/passwd", d.join("outside")).unwrap();
    symlink("../../etc/passwd", d.join("above")).unwrap();
    symlink("nowhere", d.join("dangling")).unwrap();
    mknodat(CWD, d.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
}

const D_TAR: &str = "/d/?tar";

#[test]
fn unpacked_it_is_the_same_tree() {
    let root = root();
    let d = root.path().join("d");
    fs::hard_link(d.join("a"), d.join("hard")).unwrap();
    let expected = tree(&d);
    let times = fs::metadata(&d).unwrap();
    add_others(&d);
    // Only what was left out has come.
    set_time_of_folder(&d, (times.mtime(), times.mtime_nsec()));
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let url = format!("http://{}{D_TAR}", carafe.addr());
    for (tool, script) in [
        ("tar", "curl -sf \"$1\" | tar xp -C \"$2\""),
        ("bsdtar", "curl -sf \"$1\" | bsdtar xp -C \"$2\""),
        (
            "python3",
            "curl -sf \"$1\" | python3 -c 'import sys, tarfile\n\
             t = tarfile.open(fileobj=sys.stdin.buffer, mode=\"r|\")\n\
             t.extractall(sys.argv[1])' \"$2\"",
        ),
    ] {
        if !has_tool(tool) {
            continue;
        }
        let out = tempfile::tempdir().unwrap();
        shell(script, &[url.as_ref(), out.path().as_os_str()]);
        let mut unpacked = tree(&out.path().join("d"));
        let mut expected = expected.clone();
        if tool == "python3" {
            // It reckons times as floating point numbers, and what permissions it sets depends on its version.
            for entry in expected.values_mut().chain(unpacked.values_mut()) {
                (entry.1, entry.2.1) = (0, 0);
            }
        }
        for (name, entry) in &expected {
            assert!(unpacked.get(name) == Some(entry), "{tool}: {name:?}");
        }
        assert_eq!(unpacked.len(), expected.len(), "{tool}");
    }
    carafe.stop_clean();
}

fn set_time_of_folder(folder: &Path, (seconds, nanoseconds): (i64, i64)) {
    let time = Duration::new(seconds.unsigned_abs(), nanoseconds as u32);
    let folder = fs::File::open(folder).unwrap();
    folder.set_modified(SystemTime::UNIX_EPOCH + time).unwrap();
}

/// The whole tar, once it has a tag.
fn whole(carafe: &Carafe, path: &str) -> Answer {
    let head = format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let has_tag = || {
        let mut talk = Talk::to(carafe.addr());
        talk.say(&head);
        talk.head().field("etag").is_some()
    };
    until("nothing of it can change and look the same", has_tag);
    ask(carafe.addr(), &get(path, ""))
}

#[test]
fn every_part_is_a_part_of_the_whole() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let whole = whole(&carafe, D_TAR);
    let (body, length) = (&whole.body, whole.body.len());
    assert_eq!(whole.status, 200);
    assert_eq!(whole.field("content-type"), Some("application/x-tar"));
    assert_eq!(whole.field("accept-ranges"), Some("bytes"));
    let disposition = "attachment; filename=\"d.tar\"";
    assert_eq!(whole.field("content-disposition"), Some(disposition));
    let tag = whole.field("etag").unwrap();
    let mut talk = Talk::to(carafe.addr());
    talk.say(format!("HEAD {D_TAR} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let head = talk.head();
    let content_length = length.to_string();
    assert_eq!(head.field("content-length"), Some(&*content_length));
    assert_eq!(head.field("etag"), Some(tag));
    let mut part = |range: String, fields: &str| {
        talk.ask(&get(D_TAR, &format!("Range: bytes={range}\r\n{fields}")))
    };
    let mut state = 7;
    for round in 0..150 {
        let start = next_random(&mut state) as usize % length;
        let longest = [700, 40_000, length][round % 3];
        let end = (start + 1 + next_random(&mut state) as usize % longest).min(length);
        let answer = part(format!("{start}-{}", end - 1), "");
        assert_eq!(answer.status, 206);
        assert!(answer.body == body[start..end], "{start}..{end}");
    }
    for (range, expected) in [
        ("-700", length - 700..length),
        ("-1", length - 1..length),
        ("0-0", 0..1),
        ("5-", 5..length),
    ] {
        let answer = part(range.into(), &format!("If-Range: {tag}\r\n"));
        assert!(answer.status == 206 && answer.body == body[expected]);
    }
    let several = part("0-9,1000-1999,400000-500000,-5".into(), "");
    let content_type = several.field("content-type").unwrap();
    let (_, boundary) = content_type.split_once("boundary=").unwrap();
    let mut expected = Vec::new();
    for range in [0..10, 1000..2000, 400_000..500_001, length - 5..length] {
        let (start, last) = (range.start, range.end - 1);
        let part = format!(
            "\r\n--{boundary}\r\nContent-Type: application/x-tar\r\n\
             Content-Range: bytes {start}-{last}/{length}\r\n\r\n"
        );
        expected.extend_from_slice(part.as_bytes());
        expected.extend_from_slice(&body[range]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(several.body == expected);
    let beyond = part(format!("{length}-"), "");
    assert_eq!(beyond.status, 416);
    let other = part("5-".into(), "If-Range: \"other\"\r\n");
    assert!(other.status == 200 && other.body == *body);
    let same = talk.ask(&get(D_TAR, &format!("If-None-Match: {tag}\r\n")));
    assert_eq!(same.status, 304);
    let other = talk.ask(&get(D_TAR, "If-Match: \"other\"\r\n"));
    assert_eq!(other.status, 412);
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_download_that_broke_off_is_continued() {
    let root = root();
    let big = root.path().join("d/big");
    sparse_file(&big, 100_000_000);
    fs::write(root.path().join("d/z"), "after it").unwrap();
    let log = root.path().join("log");
    let flags = ["--listing", "--access-log", log.to_str().unwrap()];
    let carafe = Carafe::serve(root.path(), &flags);
    let whole = whole(&carafe, D_TAR).body;
    let out = tempfile::tempdir().unwrap();
    let url = format!("http://{}{D_TAR}", carafe.addr());
    let had = 3_333_333;
    for (tool, script) in [
        ("curl", "curl -sf -C - -o \"$2\" \"$1\""),
        ("wget", "wget -q -c -O \"$2\" \"$1\""),
    ] {
        if has_tool(tool) {
            let file = out.path().join(tool);
            fs::write(&file, &whole[..had]).unwrap();
            shell(script, &[url.as_ref(), file.as_os_str()]);
            assert!(fs::read(file).unwrap() == whole, "{tool}");
        }
    }
    let get = ["get", "-q", "-P"].map(OsStr::new);
    let get = [&get[..], &[out.path().as_os_str(), url.as_ref()]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_carafe"))
        .args(&get)
        .spawn()
        .unwrap();
    let part = out.path().join("d.tar.part");
    until("a part of it has come", || {
        fs::metadata(&part).is_ok_and(|part| part.len() > 0)
    });
    carafe.signal(Signal::STOP);
    child.kill().unwrap();
    child.wait().unwrap();
    carafe.signal(Signal::CONT);
    let had = fs::metadata(&part).unwrap().len();
    assert!(had < whole.len() as u64);
    assert!(run_carafe(&get).status.success());
    assert!(fs::read(out.path().join("d.tar")).unwrap() == whole);
    drop(carafe);
    let log = fs::read_to_string(log).unwrap();
    let last = log.lines().rev().find(|line| line.contains("carafe/"));
    assert!(last.unwrap().contains("\" 206 "), "{log}");
}

/// Serves a folder with a long file and a short one after it, and has a client read what comes before the
/// short one's turn. Gives what the client gets in all when this was done to the folder meanwhile.
fn changed_meanwhile(change: impl FnOnce(&Path)) -> (std::io::Result<Vec<u8>>, usize, String) {
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("d");
    fs::create_dir(&d).unwrap();
    sparse_file(&d.join("long"), 12_000_000);
    fs::write(d.join("short"), "as it was").unwrap();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let mut talk = Talk::to(carafe.addr());
    talk.say(get(D_TAR, "Connection: close\r\n"));
    let length = talk.head().field("content-length").unwrap().parse();
    let mut body = talk.take(1000);
    change(&d);
    let read = talk.stream.read_to_end(&mut body);
    drop(talk);
    (read.map(|_| body), length.unwrap(), carafe.stop())
}

#[test]
fn what_changes_meanwhile_cuts_it_off() {
    let (read, length, log) = changed_meanwhile(|_| ());
    assert_eq!(read.unwrap().len(), length);
    assert_no_trouble(&log);
    let renamed = |d: &Path| {
        fs::write(d.join("new"), "as it is!").unwrap();
        fs::rename(d.join("new"), d.join("short")).unwrap();
    };
    let overwritten = |d: &Path| {
        let mut file = fs::OpenOptions::new().write(true).open(d.join("long"));
        file.as_mut().unwrap().write_all(b"other").unwrap();
    };
    let changes: [&dyn Fn(&Path); 6] = [
        &renamed,
        &overwritten,
        &|d| fs::write(d.join("short"), "as it is!").unwrap(),
        &|d| fs::write(d.join("short"), "").unwrap(),
        &|d| fs::remove_file(d.join("short")).unwrap(),
        &|d| fs::rename(d, d.with_file_name("elsewhere")).unwrap(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (read, _, log) = changed_meanwhile(change);
        assert!(read.is_err(), "{at}");
        assert!(log.contains("changed"), "{at}: {log}");
    }
    // What has come since isn't in it.
    let (read, length, _) = changed_meanwhile(|d| fs::write(d.join("more"), "").unwrap());
    assert_eq!(read.unwrap().len(), length);
}

#[test]
fn another_version_has_another_tag() {
    let root = root();
    let d = root.path().join("d");
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let tag = || {
        let answer = whole(&carafe, D_TAR);
        answer.field("etag").unwrap().to_owned()
    };
    let mut tags = vec![tag()];
    assert_eq!(tag(), tags[0]);
    let changes: [&dyn Fn(); 6] = [
        &|| fs::write(d.join("a"), "of another block").unwrap(),
        &|| fs::set_permissions(d.join("sub"), Permissions::from_mode(0o700)).unwrap(),
        &|| fs::remove_file(d.join("link")).unwrap(),
        &|| symlink("木", d.join("link")).unwrap(),
        &|| fs::rename(d.join("sub/deep"), d.join("sub/deeper")).unwrap(),
        &|| set_time(&d.join("a"), SystemTime::UNIX_EPOCH),
    ];
    for change in changes {
        change();
        tags.push(tag());
    }
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count);
    carafe.stop_clean();
}

/// What a client of one descriptor's worth of files gets is whole, too.
#[test]
fn files_are_opened_one_after_the_other() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("d");
    fs::create_dir(&d).unwrap();
    for name in ["a", "b", "c"] {
        sparse_file(&d.join(name), 12_000_000)
            .write_all(name.as_bytes())
            .unwrap();
    }
    let carafe = Carafe::serve(root.path(), &["--listing", "--open-files", "1"]);
    let whole = whole(&carafe, D_TAR).body;
    let clients = [(); 3].map(|()| {
        let mut talk = Talk::to(carafe.addr());
        talk.say(get(D_TAR, ""));
        let begin = talk.take(1000);
        (talk, begin)
    });
    let open = |name| carafe.descriptors_of(&d.join(name));
    until("one has a file", || open("a") + open("b") == 1);
    assert_eq!(open("c"), 0);
    for (mut talk, begin) in clients {
        let (mut body, mut rest) = (begin, Vec::new());
        talk.say("GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        talk.stream.read_to_end(&mut rest).unwrap();
        body.extend_from_slice(&rest);
        let begins = body
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        assert!(body[begins..][..whole.len()] == whole);
    }
    until("all files are closed", || {
        open("a") + open("b") + open("c") == 0
    });
    carafe.stop_clean();
}

#[test]
fn what_is_not_listed_is_not_in_it() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("www");
    for folder in ["d/closed", "d/covered/sub", "d/plain", "d/badly covered"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in [
        "d/secret",
        "d/closed/x",
        "d/covered/index.html",
        "d/covered/x",
        "d/covered/sub/x",
        "d/plain/x",
        "d/badly covered/index.html",
        "d/badly covered/x",
    ] {
        fs::write(root.join(file), file).unwrap();
    }
    for name in ["d/closed", "d/secret", "d/badly covered/index.html"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let Some(carafe) = serve_unprivileged(outer.path(), &["--listing"]) else {
        return;
    };
    let names = |path: &str| {
        let tar = ask(carafe.addr(), &get(path, "")).body;
        let mut child = Command::new("tar")
            .arg("t")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&tar).unwrap();
        let names = child.wait_with_output().unwrap();
        assert!(names.status.success());
        String::from_utf8(names.stdout).unwrap()
    };
    let listed = [
        "d/",
        "d/badly covered/",
        "d/covered/",
        "d/covered/index.html",
        "d/plain/",
        "d/plain/x",
    ];
    assert_eq!(names("/d/?tar").lines().collect::<Vec<_>>(), listed);
    assert_eq!(names("/d/plain/?tar"), "plain/\nplain/x\n");
    assert!(names("/?tar").starts_with("www/\nwww/d/\n"));
    // A folder that is covered itself has its index in the place of everything.
    let covered = ask(carafe.addr(), &get("/d/covered/?tar", ""));
    assert_eq!(covered.text(), "d/covered/index.html");
    assert_eq!(ask(carafe.addr(), &get("/d/none/?tar", "")).status, 404);
    let moved = ask(carafe.addr(), &get("/d/plain?tar", ""));
    assert_eq!(moved.field("location"), Some("plain/?tar"));
    carafe.stop();
    let unlisted = Carafe::serve(&root, &[]);
    assert_eq!(ask(unlisted.addr(), &get("/d/plain/?tar", "")).status, 404);
    unlisted.stop_clean();
}

/// Neither a length beyond what a head's number holds in octal, nor one beyond 32 bits.
#[test]
fn a_file_of_nine_gigabytes_has_its_place() {
    const NINE: u64 = 9 << 30;
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("d");
    fs::create_dir(&d).unwrap();
    sparse_file(&d.join("a"), NINE);
    fs::write(d.join("b"), "after it").unwrap();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let mut talk = Talk::to(carafe.addr());
    let last = talk.ask(&get(D_TAR, "Range: bytes=-8000\r\n"));
    let length = last.field("content-range").unwrap();
    let length: u64 = length.rsplit('/').next().unwrap().parse().unwrap();
    assert!(length > NINE && length < NINE + 10_000);
    let begin = talk.ask(&get(D_TAR, "Range: bytes=0-9999\r\n")).body;
    // What lies between is zeros.
    let script = "import sys, tarfile\n\
                  class Tar:\n\
                  \x20   def __init__(self): self.at = 0\n\
                  \x20   def tell(self): return self.at\n\
                  \x20   def seek(self, at, how=0): self.at = at\n\
                  \x20   def read(self, count):\n\
                  \x20       start, self.at = self.at, min(length, self.at + count)\n\
                  \x20       byte = lambda at: begin[at] if at < len(begin) else \
                  last[at - length + 8000] if at >= length - 8000 else 0\n\
                  \x20       return bytes(map(byte, range(start, self.at)))\n\
                  begin, last = (open(name, 'rb').read() for name in sys.argv[1:3])\n\
                  length = int(sys.argv[3])\n\
                  tar = tarfile.open(fileobj=Tar())\n\
                  print([(m.name, m.size) for m in tar], tar.extractfile('d/b').read())";
    let files = tempfile::tempdir().unwrap();
    let [first, second] = [("begin", &begin), ("last", &last.body)].map(|(name, bytes)| {
        let path = files.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let output = Command::new("python3")
        .args(["-c", script])
        .args([first, second])
        .arg(length.to_string())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("[('d', 0), ('d/a', {NINE}), ('d/b', 8)] b'after it'"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(talk);
    carafe.stop_clean();
}

/// Tens of thousands of small files come in pieces, and the server's memory doesn't grow with them.
#[test]
fn a_folder_of_many_files_takes_little_memory() {
    const FILES: usize = 20_000;
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("d");
    fs::create_dir(&d).unwrap();
    fs::write(d.join("0"), "0123456789").unwrap();
    for at in 1..FILES {
        fs::hard_link(d.join("0"), d.join(at.to_string())).unwrap();
    }
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let mut small = Talk::to(carafe.addr());
    assert_eq!(small.get("/d/0").status, 200);
    let before = carafe.resident_bytes();
    let mut talk = Talk::narrow(carafe.addr());
    talk.say(get(D_TAR, ""));
    let length: usize = talk
        .head()
        .field("content-length")
        .unwrap()
        .parse()
        .unwrap();
    assert!(length > 2048 * FILES);
    // Meanwhile others are served.
    assert_eq!(small.get("/d/0").status, 200);
    let mut left = length;
    while left > 0 {
        left -= talk.take(left.min(1_000_000)).len();
        let more = carafe.resident_bytes().saturating_sub(before);
        // The plan, what a thread needs to make it, and a piece or two.
        let bound = 250 * FILES as u64 + 8 * TASK_RESULT_BYTES_MAX;
        assert!(more < bound, "{more} bytes more");
    }
    drop((small, talk));
    carafe.stop_clean();
}
