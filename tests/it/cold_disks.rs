//! The real binary over disks that make it wait: a file system behind gates (FUSE), an ext4 whose
//! pages and names were forgotten, an overlay that can't be asked. Whoever asks for what is there
//! is served meanwhile: the order of events decides, not time.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{Carafe, connect, exchange, has_tool, root_with, skip, strace_calls, until};
use crate::gated::{Asked, Gated, NAME};
use carafe::limits::STEP_BYTES_MAX;
use rustix::fs::Advice;
use rustix::process::Signal;

const HOT: &[u8] = b"what everybody asks for";
const HOT_DOWNLOADS: usize = 200;

/// More than a helper reads at one time.
const SLOW_BYTES: usize = 3 * 1024 * 1024 + 17;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// A gated file system on a folder; `None`, said aloud, where that can't be.
fn gated(at: &Path) -> Option<Gated> {
    fs::create_dir_all(at).unwrap();
    match Gated::mount(at, content(SLOW_BYTES)) {
        Ok(gated) => Some(gated),
        Err(error) => {
            skip("fuse", &error.to_string());
            None
        }
    }
}

/// Downloads that all end well, each on a connection of its own.
fn download_hot(carafe: &Carafe) {
    for _ in 0..HOT_DOWNLOADS {
        assert_eq!(exchange(carafe.addr(), b"hot\n").unwrap(), HOT);
    }
}

fn ask(carafe: &Carafe, name: &str) -> TcpStream {
    let mut stream = connect(carafe.addr());
    stream.write_all(format!("{name}\n").as_bytes()).unwrap();
    stream
}

fn rest_of(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn nobody_waits_for_another_ones_slow_file_system() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    gated.gates.shut(Asked::List);
    let list = ask(&carafe, "GET /slow/ HTTP/1.0\r\n\r");
    gated.gates.wait_for(Asked::List);
    download_hot(&carafe);
    gated.gates.open(Asked::List);
    let list = rest_of(&list);
    assert!(String::from_utf8_lossy(&list).contains(NAME));
    for asked in [Asked::Lookup, Asked::Open, Asked::Read, Asked::Flush] {
        gated.gates.shut(asked);
    }
    let slow = ask(&carafe, &format!("slow/{NAME}"));
    for asked in [Asked::Lookup, Asked::Open, Asked::Read] {
        gated.gates.wait_for(asked);
        download_hot(&carafe);
        gated.gates.open(asked);
    }
    // The file's close may take its time, too.
    assert_eq!(rest_of(&slow), content(SLOW_BYTES));
    drop(slow);
    gated.gates.wait_for(Asked::Flush);
    download_hot(&carafe);
    gated.gates.open(Asked::Flush);
    carafe.stop_clean();
}

#[test]
fn a_root_that_hangs_holds_up_nobody_who_asks_for_nothing_in_it() {
    let at = root_with(&[("hot", HOT)]);
    let root = at.path().join("root");
    fs::create_dir_all(&root).unwrap();
    // The kernel itself asks for the state of what it opens or watches.
    let gated = match Gated::mount_checked(&root, HOT.to_vec()) {
        Ok(gated) => gated,
        Err(error) => return skip("fuse", &error.to_string()),
    };
    let carafe = Carafe::serve(&root, &[]);
    gated.gates.shut(Asked::Attributes);
    let asked: Vec<_> = (0..3).map(|_| ask(&carafe, NAME)).collect();
    gated.gates.wait_for(Asked::Attributes);
    for _ in 0..HOT_DOWNLOADS {
        assert_eq!(exchange(carafe.addr(), b"../x\n").unwrap(), b"");
    }
    gated.gates.open(Asked::Attributes);
    for stream in asked {
        assert_eq!(rest_of(&stream), HOT);
    }
    carafe.stop_clean();
}

#[test]
fn a_list_asks_nothing_of_a_slow_file_system_on_the_loop() {
    let root = root_with(&[("hot", HOT)]);
    let links = root.path().join("links");
    fs::create_dir(&links).unwrap();
    symlink(format!("../slow/{NAME}"), links.join("link")).unwrap();
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    for (folder, shown) in [("/", "slow/"), ("/links/", "link")] {
        gated.gates.shut(Asked::Attributes);
        let list = ask(&carafe, &format!("GET {folder} HTTP/1.0\r\n\r"));
        gated.gates.wait_for(Asked::Attributes);
        download_hot(&carafe);
        gated.gates.open(Asked::Attributes);
        let list = rest_of(&list);
        assert!(String::from_utf8_lossy(&list).contains(shown));
    }
    carafe.stop_clean();
}

#[test]
fn who_waits_for_ever_does_not_stand_in_the_line_for_descriptors() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--cache", "0"]);
    // The helpers have their descriptors.
    assert_eq!(
        rest_of(&ask(&carafe, &format!("slow/{NAME}"))),
        content(SLOW_BYTES)
    );
    let before = carafe.descriptors();
    carafe.leave_descriptors(1);
    gated.gates.shut(Asked::Open);
    let slow = ask(&carafe, &format!("slow/{NAME}"));
    carafe.wait_for_log("no descriptor is free for a file: clients wait");
    carafe.limit_descriptors(before as u64 + 100);
    gated.gates.wait_for(Asked::Open);
    download_hot(&carafe);
    gated.gates.open(Asked::Open);
    assert_eq!(rest_of(&slow), content(SLOW_BYTES));
    carafe.stop();
}

#[test]
fn a_file_system_that_does_not_answer_keeps_nobody_from_this_machines_disk() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &[]);
    gated.gates.shut(Asked::Open);
    // More than there are helpers.
    let slow: Vec<_> = (0..3 * carafe::limits::POOL_THREADS_MAX)
        .map(|_| ask(&carafe, &format!("slow/{NAME}")))
        .collect();
    gated.gates.wait_for(Asked::Open);
    for number in 0..HOT_DOWNLOADS {
        // Nobody asked for these before: the disk must be.
        let missing = exchange(carafe.addr(), format!("missing-{number}\n").as_bytes());
        assert!(missing.unwrap().is_empty());
    }
    gated.gates.open(Asked::Open);
    for slow in &slow {
        assert_eq!(rest_of(slow), content(SLOW_BYTES));
    }
    carafe.stop_clean();
}

#[test]
fn clients_of_a_slow_file_system_have_as_much_time_as_it_needs() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let flags = ["--request-timeout", "100ms", "--stall-timeout", "100ms"];
    let carafe = Carafe::serve(root.path(), &flags);
    gated.gates.shut(Asked::Open);
    gated.gates.shut(Asked::Read);
    let slow = ask(&carafe, &format!("slow/{NAME}"));
    for asked in [Asked::Open, Asked::Read] {
        gated.gates.wait_for(asked);
        // Whoever waits for the client has given up by now.
        for _ in 0..3 {
            let silent = connect(carafe.addr());
            assert!(rest_of(&silent).is_empty());
        }
        gated.gates.open(asked);
    }
    assert_eq!(rest_of(&slow), content(SLOW_BYTES));
    carafe.stop_clean();
}

#[test]
fn clients_that_close_give_their_places_back_whatever_their_file_system_does() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--max-connections", "20"]);
    for (ended, asked) in [(20, Asked::Lookup), (40, Asked::Read)] {
        gated.gates.shut(asked);
        for _ in 0..20 {
            // A FIN, and nobody there any more.
            drop(ask(&carafe, &format!("slow/{NAME}")));
        }
        gated.gates.wait_for(asked);
        download_hot(&carafe);
        gated.gates.open(asked);
        // Those who kept their places are served; nobody is there to take it.
        until("all have ended", || {
            carafe.log().matches(&format!("\"slow/{NAME}")).count() == ended
        });
    }
    assert!(carafe.log().contains("client left"));
    carafe.stop();
}

#[test]
fn a_client_that_has_no_more_to_say_waits_for_its_slow_file() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &[]);
    gated.gates.shut(Asked::Lookup);
    let slow = ask(&carafe, &format!("slow/{NAME}"));
    slow.shutdown(std::net::Shutdown::Write).unwrap();
    gated.gates.wait_for(Asked::Lookup);
    download_hot(&carafe);
    gated.gates.open(Asked::Lookup);
    assert_eq!(rest_of(&slow), content(SLOW_BYTES));
    carafe.stop_clean();
}

#[test]
fn a_disk_that_does_not_answer_in_time_is_given_up() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--disk-timeout", "300ms"]);
    for (count, asked) in (1..).zip([Asked::Open, Asked::Read]) {
        gated.gates.shut(asked);
        let slow = ask(&carafe, &format!("slow/{NAME}"));
        let mut bytes = Vec::new();
        crate::common::assert_reset((&slow).read_to_end(&mut bytes).map(|_| bytes));
        carafe.wait_for_log("the disk has not answered within 300ms");
        download_hot(&carafe);
        gated.gates.open(asked);
        until("it is told", || {
            crate::common::count_lines(&carafe.log(), "s disk timeout") == count
        });
    }
    carafe.stop();
}

#[test]
fn clients_that_leave_while_a_slow_file_system_is_waited_for_are_forgotten() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &[]);
    let before = carafe.sockets();
    let file = root.path().join("slow").join(NAME);
    let mut left = 0;
    for asked in [Asked::Open, Asked::Read] {
        gated.gates.shut(asked);
        let slow: Vec<_> = (0..10)
            .map(|_| ask(&carafe, &format!("slow/{NAME}")))
            .collect();
        gated.gates.wait_for(asked);
        left += slow.len();
        for slow in slow {
            // A reset: nobody is there any more.
            let at_once = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&slow).set_linger(at_once).unwrap();
        }
        until("they are gone", || {
            carafe.log().matches("reset by peer").count() == left
        });
        download_hot(&carafe);
        gated.gates.open(asked);
        until("all is closed", || {
            carafe.sockets() == before && carafe.descriptors_of(&file) == 0
        });
    }
    download_hot(&carafe);
    carafe.stop();
}

#[test]
fn a_drain_resets_those_who_wait_for_a_slow_file_system() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--drain", "300ms"]);
    gated.gates.shut(Asked::Open);
    let mut slow = ask(&carafe, &format!("slow/{NAME}"));
    gated.gates.wait_for(Asked::Open);
    carafe.signal(rustix::process::Signal::TERM);
    assert!(slow.read(&mut [0]).is_err(), "a reset");
    // The kernel ends a process when its helper's call is over.
    gated.gates.open(Asked::Open);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(
        crate::common::reason_count(&log, "drain deadline"),
        1,
        "{log}"
    );
}

#[test]
fn a_root_on_a_slow_file_system_is_served_in_full() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let Some(gated) = gated(&root) else {
        return;
    };
    let carafe = Carafe::serve(&root, &[]);
    assert_eq!(
        exchange(carafe.addr(), format!("{NAME}\n").as_bytes()).unwrap(),
        content(SLOW_BYTES)
    );
    assert!(exchange(carafe.addr(), b"missing\n").unwrap().is_empty());
    let get = format!(
        "GET /{NAME} HTTP/1.1\r\nHost: h\r\nRange: bytes=100-300000\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(carafe.addr(), get.as_bytes()).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 206 "));
    assert!(answer.ends_with(&content(SLOW_BYTES)[100..=300_000]));
    carafe.stop_clean();
    // Not before: it is busy.
    drop(gated);
}

#[test]
fn a_root_that_does_not_answer_is_opened_anew_by_helpers() {
    let outer = root_with(&[("site/hot", HOT)]);
    let (at, link) = (outer.path().join("slow"), outer.path().join("root"));
    let Some(gated) = gated(&at) else {
        return;
    };
    for workers in ["1", "2"] {
        let _ = fs::remove_file(&link);
        symlink("slow", &link).unwrap();
        let carafe = Carafe::serve(&link, &["--workers", workers]);
        for asked in [Asked::Statfs, Asked::Lookup] {
            gated.gates.shut(asked);
        }
        let slow: Vec<_> = (0..10).map(|_| ask(&carafe, NAME)).collect();
        gated.gates.wait_for(Asked::Lookup);
        for _ in 0..2 {
            carafe.signal(Signal::HUP);
            gated.gates.wait_for(Asked::Statfs);
            // The loop, all of them, are there.
            for _ in 0..20 {
                assert!(exchange(carafe.addr(), b"../x\n").unwrap().is_empty());
            }
        }
        fs::remove_file(&link).unwrap();
        symlink("site", &link).unwrap();
        carafe.signal(Signal::HUP);
        let count: usize = workers.parse().unwrap();
        until("all have another root", || {
            crate::common::count_lines(&carafe.log(), "was opened anew") == count
        });
        download_hot(&carafe);
        for asked in [Asked::Statfs, Asked::Lookup] {
            gated.gates.open(asked);
        }
        for slow in &slow {
            assert_eq!(rest_of(slow), content(SLOW_BYTES), "as of when they asked");
        }
        // What came too late is not believed.
        download_hot(&carafe);
        carafe.stop_clean();
    }
}

// ---- disks of this machine ----

/// Something mounted; unmounted in the end.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Runs mount(8); `None`, said aloud, where that can't be.
    fn new(at: &'a Path, arguments: &[&OsStr]) -> Option<Self> {
        if !at.exists() {
            fs::create_dir_all(at).unwrap();
        }
        let output = Command::new("mount").args(arguments).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(at)),
            Ok(output) => {
                skip("mount", &String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                skip("mount", &error.to_string());
                None
            }
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// An ext4 file system in a file, with what the closure puts there, mounted anew: nothing of it is
/// in memory.
fn forgotten_ext4<'a>(outer: &Path, at: &'a Path, fill: impl FnOnce()) -> Option<Mounted<'a>> {
    if !has_tool("mkfs.ext4") || !has_tool("mount") {
        return None;
    }
    let image = outer.join("image");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    crate::common::shell("mkfs.ext4 -q \"$1\"", &[image.as_os_str()]);
    let arguments = [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()];
    let mounted = Mounted::new(at, &arguments)?;
    fill();
    drop(mounted);
    Mounted::new(at, &arguments)
}

/// What strace saw since the root was opened: threads, and their calls with their results.
fn calls(text: &str) -> Vec<(&str, String)> {
    let mut calls = strace_calls(text);
    let opens = |call: &(&str, String)| call.1.starts_with("openat2");
    let begin = calls.iter().position(opens).unwrap_or(calls.len());
    calls.split_off(begin)
}

#[test]
fn the_loop_reads_nothing_that_is_not_in_memory() {
    if !has_tool("strace") {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let files = [("small", 5000), ("big", SLOW_BYTES)];
    let fill = || {
        fs::create_dir(root.join("deep")).unwrap();
        for (name, length) in files {
            fs::write(root.join("deep").join(name), content(length)).unwrap();
        }
    };
    let Some(_mounted) = forgotten_ext4(outer.path(), &root, fill) else {
        return;
    };
    let trace = outer.path().join("calls");
    let options = ["-f", "-e", "trace=openat2,pread64,preadv2,sendfile"];
    let carafe = Carafe::serve_traced(&root, &trace, &options, &[]);
    let pid = carafe.pid().to_string();
    for (name, length) in files {
        let request = format!("deep/{name}\n");
        assert_eq!(
            exchange(carafe.addr(), request.as_bytes()).unwrap(),
            content(length)
        );
    }
    // Its name is known now; its pages go.
    let big = File::open(root.join("deep/big")).unwrap();
    rustix::fs::fadvise(&big, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(
        exchange(carafe.addr(), b"deep/big\n").unwrap(),
        content(SLOW_BYTES)
    );
    carafe.stop_clean();
    let text = fs::read_to_string(&trace).unwrap();
    let calls = calls(&text);
    let (on_loop, by_helpers): (Vec<_>, Vec<_>) = calls
        .iter()
        .cloned()
        .partition(|(thread, _)| *thread == pid);
    let count = |calls: &[(&str, String)], name: &str, part: &str| {
        let is_meant = |call: &str| call.starts_with(name) && call.contains(part);
        calls.iter().filter(|(_, call)| is_meant(call)).count()
    };
    assert_eq!(count(&on_loop, "pread64", ""), 0, "{text}");
    assert_eq!(
        count(&on_loop, "preadv2", "RWF_NOWAIT"),
        count(&on_loop, "preadv2", ""),
        "{text}"
    );
    assert!(count(&on_loop, "openat2", "EAGAIN") >= 2, "{text}");
    assert!(count(&by_helpers, "openat2", "= ") >= 2, "{text}");
    // The long one, twice. The try that tells the kind of the file system begins to read the other.
    assert!(count(&on_loop, "preadv2", "EAGAIN") >= 2, "{text}");
    assert!(count(&by_helpers, "pread64", "= ") >= 2, "{text}");
    assert_eq!(count(&by_helpers, "sendfile", ""), 0, "{text}");
    // What is sent was found in memory, or had just been read.
    let mut may_send = false;
    for (thread, call) in &calls {
        match *thread == pid {
            true if call.starts_with("preadv2") => may_send = !call.contains("EAGAIN"),
            true if call.starts_with("sendfile") => assert!(may_send, "{call} in {text}"),
            false if call.starts_with("pread64") => may_send = true,
            _ => {}
        }
    }
}

/// The part of a file that a call of these concerns, which strace has shown with its result.
fn part_of(call: &str) -> Option<Range<u64>> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments: Vec<_> = arguments
        .trim_end()
        .strip_suffix(')')?
        .split(", ")
        .collect();
    let number = |text: &str| text.trim_matches(['[', ']']).parse::<u64>().ok();
    let from_end = |back: usize| number(arguments.get(arguments.len().checked_sub(back)?)?);
    let (start, length) = match name {
        "pread64" => (from_end(1)?, number(result)?),
        "fadvise64" => (from_end(3)?, from_end(2)?),
        // What it would have waited for, whatever it sent.
        "sendfile" => (number(arguments.get(2)?.split(' ').next()?)?, from_end(1)?),
        _ => return None,
    };
    Some(start..start + length)
}

#[test]
fn a_page_that_was_only_asked_about_vouches_for_no_others() {
    if !has_tool("strace") {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let length = SLOW_BYTES;
    let fill = || fs::write(root.join("big"), content(length)).unwrap();
    let Some(_mounted) = forgotten_ext4(outer.path(), &root, fill) else {
        return;
    };
    let trace = outer.path().join("calls");
    let options = ["-f", "-e", "trace=openat2,pread64,fadvise64,sendfile"];
    let carafe = Carafe::serve_traced(&root, &trace, &options, &[]);
    let pid = carafe.pid().to_string();
    assert_eq!(exchange(carafe.addr(), b"big\n").unwrap(), content(length));
    carafe.stop_clean();
    let text = fs::read_to_string(&trace).unwrap();
    let (mut read, mut sent) = (vec![false; length], 0);
    for (thread, call) in calls(&text) {
        let Some(part) = part_of(&call) else {
            continue;
        };
        let bytes = &mut read[part.start as usize..length.min(part.end as usize)];
        if thread != pid {
            bytes.fill(true);
        } else if call.starts_with("sendfile") && part.start < STEP_BYTES_MAX {
            // Later the kernel itself has read ahead.
            assert!(bytes.iter().all(|&is_read| is_read), "{call} in {text}");
            sent += 1;
        }
    }
    assert!(sent > 0, "{text}");
}

#[test]
fn a_page_that_somebody_else_asked_about_vouches_for_few() {
    const FILES: usize = 20;
    if !has_tool("strace") {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let length = 1024 * 1024;
    let fill = || {
        for number in 0..FILES {
            fs::write(root.join(number.to_string()), content(length)).unwrap();
        }
    };
    let Some(_mounted) = forgotten_ext4(outer.path(), &root, fill) else {
        return;
    };
    let trace = outer.path().join("calls");
    let options = ["-f", "-e", "trace=openat2,pread64,sendfile"];
    let carafe = Carafe::serve_traced(&root, &trace, &options, &[]);
    let pid = carafe.pid().to_string();
    for number in 0..FILES {
        let file = File::open(root.join(number.to_string())).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::Random).unwrap();
        for end in [0, length - 1] {
            file.read_exact_at(&mut [0], end as u64).unwrap();
        }
        let request = format!("{number}\n");
        assert_eq!(
            exchange(carafe.addr(), request.as_bytes()).unwrap(),
            content(length)
        );
    }
    carafe.stop_clean();
    let text = fs::read_to_string(&trace).unwrap();
    let by_helpers = calls(&text)
        .iter()
        .filter(|(thread, call)| {
            *thread != pid
                && part_of(call).is_some_and(|part| call.starts_with("pread64") && part.start == 0)
        })
        .count();
    // By chance: a page that is there, of 256, was asked about for each of these files.
    assert!(by_helpers >= FILES / 2, "{by_helpers} of {FILES}: {text}");
}

#[test]
fn an_overlay_is_read_once_by_a_helper() {
    if !has_tool("strace") {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let ext4 = outer.path().join("ext4");
    let fill = || {
        for folder in ["lower", "upper", "work"] {
            fs::create_dir(ext4.join(folder)).unwrap();
        }
        fs::write(ext4.join("lower/file"), content(SLOW_BYTES)).unwrap();
    };
    let Some(_mounted) = forgotten_ext4(outer.path(), &ext4, fill) else {
        return;
    };
    let root = outer.path().join("root");
    let shown = ext4.display();
    let layers = format!("lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work");
    let arguments = ["-t", "overlay", "overlay", "-o", &layers].map(OsStr::new);
    let Some(_overlay) = Mounted::new(&root, &arguments) else {
        return;
    };
    let trace = outer.path().join("calls");
    let options = ["-f", "-e", "trace=openat2,pread64,sendfile"];
    let carafe = Carafe::serve_traced(&root, &trace, &options, &[]);
    let pid = carafe.pid().to_string();
    assert_eq!(
        exchange(carafe.addr(), b"file\n").unwrap(),
        content(SLOW_BYTES)
    );
    // Not those of the process beside it.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads: Vec<_> = threads.map(|thread| thread.unwrap().file_name()).collect();
    carafe.stop_clean();
    let text = fs::read_to_string(&trace).unwrap();
    let mut calls = calls(&text);
    calls.retain(|(thread, _)| threads.iter().any(|known| known == thread));
    let by_helpers = calls.iter().filter(|(thread, _)| *thread != pid);
    let read: usize = by_helpers
        .filter(|(_, call)| call.starts_with("pread64"))
        .filter_map(|(_, call)| call.rsplit("= ").next()?.trim().parse::<usize>().ok())
        .sum();
    assert_eq!(read, SLOW_BYTES, "{text}");
    let on_loop = |(thread, call): &(&str, String)| *thread == pid && call.starts_with("pread64");
    assert!(!calls.iter().any(on_loop), "{text}");
}

#[test]
fn those_who_leave_take_their_errands_along() {
    let root = root_with(&[("hot", HOT)]);
    let Some(gated) = gated(&root.path().join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &[]);
    gated.gates.shut(Asked::Lookup);
    let stuck: Vec<_> = (0..carafe::limits::POOL_THREADS_MAX)
        .map(|_| ask(&carafe, &format!("slow/{NAME}")))
        .collect();
    gated.gates.wait_for(Asked::Lookup);
    let before = carafe.resident_bytes();
    let name = format!("slow/{}", "x/".repeat(500));
    for _ in 0..5000 {
        let slow = ask(&carafe, &name);
        let at_once = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&slow).set_linger(at_once).unwrap();
    }
    download_hot(&carafe);
    let after = carafe.resident_bytes();
    gated.gates.open(Asked::Lookup);
    drop(stuck);
    carafe.stop();
    // Each errand has the name twice: kept, they would be 10 MB.
    assert!(after < before + 4_000_000, "{before} bytes, then {after}");
}

#[test]
fn a_folder_on_this_machines_disk_is_listed_whoever_waits_for_ever() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let fill = || {
        fs::create_dir_all(root.join("folder/deep")).unwrap();
        fs::create_dir(root.join("slow")).unwrap();
        fs::write(root.join("folder/deep/file"), b"x").unwrap();
    };
    let Some(_mounted) = forgotten_ext4(outer.path(), &root, fill) else {
        return;
    };
    let Some(gated) = gated(&root.join("slow")) else {
        return;
    };
    let carafe = Carafe::serve(&root, &["--listing"]);
    gated.gates.shut(Asked::Open);
    let slow: Vec<_> = (0..carafe::limits::POOL_THREADS_MAX)
        .map(|_| ask(&carafe, &format!("slow/{NAME}")))
        .collect();
    gated.gates.wait_for(Asked::Open);
    let list = ask(&carafe, "GET /folder/deep/ HTTP/1.0\r\n\r");
    list.set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    let mut bytes = Vec::new();
    let read = (&list).read_to_end(&mut bytes);
    gated.gates.open(Asked::Open);
    drop(slow);
    carafe.stop();
    drop(gated);
    read.unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("file"));
}

/// A file is asked by its name alone, without being opened. One that is mounted on a file of this machine
/// may not answer, and only a thread of its own mount may ask it.
#[test]
fn a_file_that_is_mounted_keeps_nobody_from_this_machines_lists() {
    let root = root_with(&[("hot", HOT)]);
    let at = |name: &str| root.path().join(name);
    for folder in ["files", "others"] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("file"), "").unwrap();
    }
    let outer = tempfile::tempdir().unwrap();
    let Some(gated) = gated(outer.path()) else {
        return;
    };
    let from = outer.path().join(NAME);
    let (at_file, arguments) = (at("files/file"), [OsStr::new("--bind"), from.as_os_str()]);
    let Some(_mounted) = Mounted::new(&at_file, &arguments) else {
        return;
    };
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    gated.gates.shut(Asked::Attributes);
    let orders = ["name", "size", "time"].map(|key| ["asc", "desc"].map(|order| (key, order)));
    // Each order is a list of its own, and there are more than threads for this machine's disks.
    assert!(orders.as_flattened().len() > carafe::limits::POOL_THREADS_MAX);
    let lists = orders.as_flattened().iter().map(|(key, order)| {
        let query = format!("sort={key}&order={order}");
        ask(&carafe, &format!("GET /files/?{query} HTTP/1.0\r\n\r"))
    });
    let lists: Vec<_> = lists.collect();
    gated.gates.wait_for(Asked::Attributes);
    for _ in 0..3 {
        let other = exchange(carafe.addr(), b"GET /others/ HTTP/1.0\r\n\r\n").unwrap();
        assert!(String::from_utf8_lossy(&other).contains(">file<"));
    }
    gated.gates.open(Asked::Attributes);
    for list in lists {
        let list = rest_of(&list);
        let size = "title=\"3,145,745 bytes\"";
        assert!(String::from_utf8_lossy(&list).contains(size));
    }
    carafe.stop_clean();
}

#[test]
fn a_mount_that_does_not_answer_keeps_nobody_from_the_others() {
    let root = root_with(&[("hot", HOT)]);
    let at = |name: &str| root.path().join(name);
    let Some(hung) = gated(&at("slow")) else {
        return;
    };
    let Some(_sound) = gated(&at("sound")) else {
        return;
    };
    let local = at("local");
    let arguments = ["-t", "tmpfs", "tmpfs"].map(OsStr::new);
    let Some(_local) = Mounted::new(&local, &arguments) else {
        return;
    };
    fs::create_dir(local.join("folder")).unwrap();
    fs::write(local.join("folder/small"), b"local").unwrap();
    fs::create_dir(at("links")).unwrap();
    for number in 0..40 {
        // However many ways lead there.
        symlink(format!("../slow/{NAME}"), at(&format!("links/{number}"))).unwrap();
    }
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    // Some hang while they look for the file, others while they read it.
    hung.gates.shut(Asked::Read);
    let reading = ask(&carafe, &format!("slow/{NAME}"));
    hung.gates.wait_for(Asked::Read);
    hung.gates.shut(Asked::Lookup);
    let by_name = (0..40).map(|_| ask(&carafe, &format!("slow/{NAME}")));
    let slow: Vec<_> = by_name
        .chain((0..40).map(|number| ask(&carafe, &format!("links/{number}"))))
        .collect();
    hung.gates.wait_for(Asked::Lookup);
    for _ in 0..10 {
        let small = exchange(carafe.addr(), b"local/folder/small\n").unwrap();
        assert_eq!(small, b"local");
        let sound = exchange(carafe.addr(), format!("sound/{NAME}\n").as_bytes());
        assert_eq!(sound.unwrap(), content(SLOW_BYTES));
        let list = exchange(carafe.addr(), b"GET /local/folder/ HTTP/1.0\r\n\r\n").unwrap();
        assert!(String::from_utf8_lossy(&list).contains("small"));
    }
    drop(slow);
    hung.gates.open(Asked::Lookup);
    hung.gates.open(Asked::Read);
    assert_eq!(rest_of(&reading), content(SLOW_BYTES));
    carafe.stop_clean();
}

#[test]
fn slow_readers_of_a_foreign_file_hold_no_more_together_than_they_may() {
    const CLIENTS: usize = 600;
    let root = root_with(&[("hot", HOT)]);
    let at = root.path().join("slow");
    fs::create_dir(&at).unwrap();
    let length = 16 * 1024 * 1024;
    let gated = match Gated::mount(&at, content(length)) {
        Ok(gated) => gated,
        Err(error) => return skip("fuse", &error.to_string()),
    };
    let carafe = Carafe::serve(root.path(), &[]);
    download_hot(&carafe);
    let before = carafe.resident_bytes();
    let slow: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = crate::common::connect_narrow(carafe.addr(), 4096);
            stream
                .write_all(format!("slow/{NAME}\n").as_bytes())
                .unwrap();
            stream
        })
        .collect();
    for mut stream in &slow {
        stream.read_exact(&mut [0]).unwrap();
    }
    // Nor does anybody starve: who takes it gets it all.
    assert_eq!(
        rest_of(&ask(&carafe, &format!("slow/{NAME}"))),
        content(length)
    );
    let held = carafe.resident_bytes().saturating_sub(before);
    println!("{CLIENTS} slow readers hold {held} bytes");
    assert!(held < 110_000_000, "{held} bytes");
    drop(slow);
    carafe.stop();
    drop(gated);
}
