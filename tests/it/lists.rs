//! Lists of folders that are large, that change while they are made, or that nobody waits for.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::common::{Carafe, has_tool, serve_unprivileged, strace_calls, until, vanish};
use crate::talk::{Talk, get};
use carafe::limits::{
    HTTP_HEAD_BYTES_MAX, LISTING_ENTRIES_MAX, LISTING_FREED_BYTES_MIN, LOOP_TURN_BYTES_MAX,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Makes a folder of files that are called `prefix` and a number.
fn fill(folder: &Path, files: usize, prefix: &str) {
    fs::create_dir(folder).unwrap();
    for at in 0..files {
        // A link is cheaper than a file. ext4 has at most 65,000 of them to one.
        let of = folder.join(format!("{prefix}{}", at - at % 50_000));
        let file = folder.join(format!("{prefix}{at}"));
        match at % 50_000 {
            0 => fs::write(file, "0123456789").unwrap(),
            _ => fs::hard_link(of, file).unwrap(),
        }
    }
}

const JSON: &str = "Accept: application/json\r\n";

#[test]
fn a_list_that_is_cut_says_so_and_how_many_there_are() {
    let root = tempfile::tempdir().unwrap();
    let total = LISTING_ENTRIES_MAX + 10;
    fill(&root.path().join("big"), total, "f");
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let mut talk = Talk::to(carafe.addr());
    let page = talk.get("/big/").text();
    assert!(page.contains("<p>100,010 files, 976.7 KiB</p>"));
    let note = "These are the first 100,000 of 100,010 entries, in this order.";
    assert!(page.contains(note));
    assert_eq!(
        page.matches("<td class=\"size\">").count(),
        LISTING_ENTRIES_MAX
    );
    let rows = talk.ask(&get("/big/", JSON)).text();
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), LISTING_ENTRIES_MAX + 1);
    let name = format!("f{}", LISTING_ENTRIES_MAX - 1);
    assert_eq!(rows[LISTING_ENTRIES_MAX - 1]["name"], name);
    let cut = json!({"type": "cut", "shown": LISTING_ENTRIES_MAX, "total": total});
    assert_eq!(rows[LISTING_ENTRIES_MAX], cut);
    drop(talk);
    let warning = "shows 100000 of its 100010 entries";
    carafe.stop_warned(&[warning]);
}

/// As many threads as may make lists, and one more.
const LISTS_MAX: usize = 5;

#[test]
fn a_list_that_nobody_waits_for_is_not_made() {
    if !has_tool("strace") {
        return;
    }
    const FILES: usize = 2_000;
    const CLIENTS: usize = 50;
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root.join("big"), FILES, "f");
    fs::write(root.join("small"), "small bytes").unwrap();
    let calls = outer.path().join("calls");
    let options = ["-f", "-e", "trace=openat2,newfstatat"];
    let carafe = Carafe::serve_traced(&root, &calls, &options, &["--listing"]);
    // All have asked before one of them leaves.
    carafe.signal(Signal::STOP);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut talk = Talk::to(carafe.addr());
            talk.say(get("/big/", ""));
            talk
        })
        .collect();
    let mut last = Talk::to(carafe.addr());
    last.say(get("/small", ""));
    carafe.signal(Signal::CONT);
    assert_eq!(last.answer().text(), "small bytes");
    for client in clients {
        vanish(client.stream.into_inner());
    }
    assert!(last.get("/big/").text().contains("2,000 files"));
    drop(last);
    carafe.stop_warned(&[]);
    let calls = fs::read_to_string(calls).unwrap();
    let looks = calls
        .lines()
        .filter(|call| call.contains("\"f1000\""))
        .count();
    assert!((1..=LISTS_MAX).contains(&looks), "{looks} lists were made");
}

/// A call of strace's, of one thread: what it returned, if that is a number.
fn returned(call: &str) -> u64 {
    let value = call.rsplit_once(" = ").map_or("", |(_, value)| value);
    let digits = value.split(' ').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// However large a folder is, a turn of the loop sends what any other may, and does nothing else for it. A
/// file takes one call of the thread that makes the list.
#[test]
fn a_list_holds_up_the_loop_for_no_more_than_a_turns_bytes() {
    if !has_tool("strace") {
        return;
    }
    const FILES: usize = 5_000;
    const LISTS: usize = 3;
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root.join("big"), FILES, &"x".repeat(200));
    let calls = outer.path().join("calls");
    let traced = "trace=openat2,newfstatat,getdents64,munmap,sendmsg,sendto,epoll_wait,epoll_pwait";
    let carafe = Carafe::serve_traced(&root, &calls, &["-f", "-e", traced], &["--listing"]);
    let pid = carafe.pid().to_string();
    let mut talk = Talk::to(carafe.addr());
    let bytes = (0..LISTS).map(|_| talk.get("/big/").text().len() as u64);
    let bytes: u64 = bytes.sum();
    drop(talk);
    carafe.stop_clean();
    let text = fs::read_to_string(calls).unwrap();
    let (mut this_turn, mut sent, mut looks, mut opens) = (0, 0, 0, 0);
    for (thread, call) in strace_calls(&text) {
        let name = call.split('(').next().unwrap_or_default();
        match (name, thread == pid) {
            ("epoll_wait" | "epoll_pwait", true) => this_turn = 0,
            ("sendmsg" | "sendto", true) => {
                this_turn += returned(&call);
                sent += returned(&call);
                // Beside the page there is a head.
                let most = LOOP_TURN_BYTES_MAX + HTTP_HEAD_BYTES_MAX as u64;
                assert!(this_turn <= most, "{this_turn} bytes in a turn");
            }
            ("munmap", true) => {
                let length = call.split([',', ')']).nth(1).unwrap().trim();
                let length: usize = length.parse().unwrap();
                assert!(length < LISTING_FREED_BYTES_MIN, "{call}");
            }
            ("getdents64", is_loop) => assert!(!is_loop, "{call}"),
            ("newfstatat", false) if call.contains("\"xxx") => looks += 1,
            ("openat2", false) if call.contains("\"xxx") => opens += 1,
            _ => {}
        }
    }
    assert!(
        sent >= bytes && bytes > 3 * LOOP_TURN_BYTES_MAX,
        "{sent} of {bytes}"
    );
    // The last one was perhaps kept.
    assert!(
        (2 * FILES..=LISTS * FILES).contains(&looks),
        "{looks} calls for entries"
    );
    assert_eq!(opens, 0);
}

/// Clients who want the same and don't read hold it together.
#[test]
fn a_list_is_in_memory_once_however_many_have_it() {
    const CLIENTS: u64 = 16;
    let root = tempfile::tempdir().unwrap();
    // Long names: more than sockets take.
    fill(&root.path().join("big"), 8_000, &"x".repeat(200));
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let mut talk = Talk::to(carafe.addr());
    let bytes = talk.get("/big/").text().len() as u64;
    let before = carafe.resident_bytes();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut talk = Talk::narrow(carafe.addr());
            talk.say(get("/big/", ""));
            // One after the other: each gets a list of its own.
            assert_eq!(talk.head().status, 200);
            talk
        })
        .collect();
    let more = carafe.resident_bytes().saturating_sub(before);
    // The threads that make them have some memory of their own.
    let bound = CLIENTS / 2 * bytes;
    assert!(more < bound, "{more} bytes more for lists of {bytes}");
    drop(clients);
    drop(talk);
    carafe.stop_warned(&[]);
}

/// What would answer 404 isn't shown.
#[test]
fn what_cannot_be_read_is_not_listed() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("www");
    fs::create_dir_all(root.join("open")).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    for name in ["file", "secret"] {
        fs::write(root.join(name), name).unwrap();
        symlink(name, root.join(format!("to-{name}"))).unwrap();
    }
    symlink("/etc/passwd", root.join("outside")).unwrap();
    for name in ["closed", "secret"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let Some(carafe) = serve_unprivileged(outer.path(), &["--listing"]) else {
        return;
    };
    let mut talk = Talk::to(carafe.addr());
    let rows: Value = serde_json::from_str(&talk.ask(&get("/", JSON)).text()).unwrap();
    let rows = rows.as_array().unwrap().iter();
    let hrefs: Vec<_> = rows.map(|row| row["href"].as_str().unwrap()).collect();
    assert_eq!(hrefs, ["open/", "file", "to-file"]);
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn what_is_asked_for_now_is_listed_now() {
    let root = tempfile::tempdir().unwrap();
    let big = root.path().join("big");
    fill(&big, 5_000, "f");
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    for round in 0..5 {
        // Its list is under way.
        let mut first = Talk::to(carafe.addr());
        first.say(get("/big/", ""));
        let mut small = Talk::to(carafe.addr());
        assert_eq!(small.get("/none").status, 404);
        let aside = root.path().join(format!("aside{round}"));
        fs::rename(&big, &aside).unwrap();
        fs::create_dir(&big).unwrap();
        fs::write(big.join("new"), "").unwrap();
        let page = small.get("/big/").text();
        assert!(
            page.contains(">new<") && page.contains("1 file,"),
            "{page:.3000}"
        );
        if round % 2 == 0 {
            assert!(matches!(first.answer().status, 200 | 404));
        }
        fs::remove_dir_all(&big).unwrap();
        fs::rename(&aside, &big).unwrap();
    }
    until("all are forgotten", || carafe.is_asleep());
    carafe.stop_warned(&[]);
}
