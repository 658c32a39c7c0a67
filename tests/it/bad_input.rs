//! Names that name nothing that is served, and names that are odd but good. Refused means: no
//! byte and an orderly end, whatever was the matter.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{
    Carafe, PATIENT, assert_same, connect, exchange, exchange_half_closed, read_to_end, root_with,
    serve_unprivileged, skip,
};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use rustix::io::Errno;

/// What must never be seen from beneath the root.
const SECRET: &str = "a secret";

/// Asks for a name in both ways that end it for certain; both bring the same.
fn fetch(carafe: &Carafe, name: &[u8]) -> Vec<u8> {
    let shown = name.escape_ascii();
    let by_lf = exchange(carafe.addr(), &[name, b"\n"].concat());
    let by_lf = by_lf.unwrap_or_else(|error| panic!("{shown} with LF: {error}"));
    let by_fin = exchange_half_closed(carafe.addr(), name);
    let by_fin = by_fin.unwrap_or_else(|error| panic!("{shown} with FIN: {error}"));
    assert_same(&format!("{shown} by LF and by FIN"), &by_lf, &by_fin);
    by_lf
}

/// No byte and an orderly end; and the log says why.
fn assert_refused(carafe: &Carafe, name: &[u8], why: &str) {
    let shown = name.escape_ascii();
    assert_eq!(
        fetch(carafe, name).escape_ascii().to_string(),
        "",
        "{shown}"
    );
    carafe.wait_for_log(&format!("\"{}\" 0/0 bytes", carafe::escape::Escaped(name)));
    let log = carafe.wait_for_log(&format!("refused: {why}"));
    let quoted = format!("\"{}\"", carafe::escape::Escaped(name));
    let mut lines = log.lines().filter(|line| line.contains(&quoted));
    assert!(
        lines.all(|line| line.ends_with(&format!("refused: {why}"))),
        "{log}"
    );
}

fn assert_served(carafe: &Carafe, name: &[u8], expected: &str) {
    let got = fetch(carafe, name);
    let shown = name.escape_ascii();
    assert_eq!(
        got.escape_ascii().to_string(),
        expected.as_bytes().escape_ascii().to_string(),
        "{shown}"
    );
}

/// A folder that holds a root, `www`, and a secret beside it.
fn root_beside_a_secret() -> tempfile::TempDir {
    root_with(&[
        ("secret", SECRET),
        ("www/a", "inside"),
        ("www/d/b", "deeper"),
        ("www/.hidden", "hidden"),
        ("www/.d/b", "hidden deeper"),
        ("www/...", "three dots"),
        ("www/.well-known/x", "for HTTP"),
        ("www/etc/passwd", "only a name"),
    ])
}

#[test]
fn no_name_leads_out_of_the_root() {
    let outer = root_beside_a_secret();
    let carafe = Carafe::serve(&outer.path().join("www"), &["--hidden"]);
    let dotdot = "a component is ..";
    for (name, why) in [
        ("..", dotdot),
        ("../", dotdot),
        ("../secret", dotdot),
        ("/../secret", dotdot),
        ("/../../../../../../../../etc/passwd", dotdot),
        ("d/../../secret", dotdot),
        ("./../secret", dotdot),
        ("d/./../../a", dotdot),
        ("a/../../secret", dotdot),
        ("no/../../secret", dotdot),
        ("d/..", "an empty name"),
        (".//..//secret", "no such file"),
        // Nothing is decoded, and a backslash is a letter.
        ("%2e%2e/secret", "no such file"),
        ("..%2fsecret", "no such file"),
        ("%252e%252e%252fsecret", "no such file"),
        ("..\\secret", "no such file"),
        ("..%5csecret", "no such file"),
        ("\u{ff0e}\u{ff0e}/secret", "no such file"),
        ("..;/secret", "no such file"),
    ] {
        assert_refused(&carafe, name.as_bytes(), why);
    }
    // Within the root they are resolved, by their bytes: what is on the way need not be there.
    for name in [
        "d/../a",
        "./a",
        "/d/./../a",
        "no/../a",
        "a/../a",
        "d/../d/../a",
    ] {
        assert_served(&carafe, name.as_bytes(), "inside");
    }
    // Overlong UTF-8 of a dot or a slash is not decoded either.
    assert_refused(&carafe, b"\xc0\xae\xc0\xae/secret", "no such file");
    assert_refused(&carafe, b"..\xc0\xafsecret", "no such file");
    carafe.stop_clean();
}

#[test]
fn an_absolute_path_is_relative_to_the_root() {
    let outer = root_beside_a_secret();
    let carafe = Carafe::serve(&outer.path().join("www"), &["--hidden"]);
    assert_served(&carafe, b"/etc/passwd", "only a name");
    assert_served(&carafe, b"//etc/passwd", "only a name");
    assert_served(&carafe, b"///a", "inside");
    for path in [outer.path().join("secret"), outer.path().join("www/a")] {
        assert_refused(&carafe, path.as_os_str().as_bytes(), "no such file");
    }
    assert_refused(&carafe, b"/etc/hostname", "no such file");
    carafe.stop_clean();
}

#[test]
fn hidden_names_are_served_only_when_asked_for() {
    let outer = root_beside_a_secret();
    let rows = [
        (".hidden", "hidden"),
        ("/.hidden", "hidden"),
        (".d/b", "hidden deeper"),
        ("...", "three dots"),
        ("d/../.hidden", "hidden"),
        (".well-known/x", "for HTTP"),
    ];
    let carafe = Carafe::serve(&outer.path().join("www"), &[]);
    for (name, _) in rows {
        assert_refused(&carafe, name.as_bytes(), "a component begins with a dot");
    }
    for name in [&b"d/b"[..], b"./d/b", b"d/./b", b".hidden/../d/b"] {
        assert_served(&carafe, name, "deeper");
    }
    carafe.stop_clean();
    // By name.
    let carafe = Carafe::serve(&outer.path().join("www"), &["--hidden=.d", "--hidden=..."]);
    assert_served(&carafe, b".d/b", "hidden deeper");
    assert_served(&carafe, b"...", "three dots");
    for name in [&b".hidden"[..], b".d/../.hidden", b".well-known/x"] {
        assert_refused(&carafe, name, "a component begins with a dot");
    }
    carafe.stop_clean();
    let carafe = Carafe::serve(&outer.path().join("www"), &["--hidden"]);
    for (name, expected) in rows {
        assert_served(&carafe, name.as_bytes(), expected);
    }
    carafe.stop_clean();
}

#[test]
fn a_link_is_followed_only_if_it_is_relative_and_stays_inside() {
    let outer = root_beside_a_secret();
    let www = outer.path().join("www");
    for (target, link) in [
        ("a", "to-file"),
        ("d", "to-folder"),
        ("../a", "d/up"),
        ("to-file", "to-link"),
        ("../secret", "out"),
        ("..", "out-folder"),
        ("d/../../secret", "out-after-in"),
        ("loop", "loop"),
        ("pong", "ping"),
        ("ping", "pong"),
        ("nothing", "dangling"),
        ("/proc/self/root/etc/passwd", "magic"),
    ] {
        symlink(target, www.join(link)).unwrap();
    }
    symlink(outer.path().join("secret"), www.join("out-absolute")).unwrap();
    symlink(www.join("a"), www.join("in-absolute")).unwrap();
    let carafe = Carafe::serve(&www, &[]);
    assert_served(&carafe, b"to-file", "inside");
    assert_served(&carafe, b"to-folder/b", "deeper");
    assert_served(&carafe, b"d/up", "inside");
    assert_served(&carafe, b"to-link", "inside");
    let (out, not_followed) = ("leads out of the root", "a link that is not followed");
    for (name, why) in [
        ("out", out),
        ("out-folder/secret", out),
        ("out-after-in", out),
        ("out-absolute", out),
        ("in-absolute", out),
        ("magic", out),
        ("loop", not_followed),
        ("ping", not_followed),
        ("dangling", "no such file"),
    ] {
        assert_refused(&carafe, name.as_bytes(), why);
    }
    carafe.stop_clean();
}

#[test]
fn magic_links_of_procfs_are_not_followed() {
    let carafe = Carafe::serve(Path::new("/proc"), &[]);
    for name in [
        "self/root/etc/passwd",
        "self/cwd/Cargo.toml",
        "self/exe",
        "self/fd/0",
        "thread-self/root/etc/passwd",
    ] {
        assert_refused(&carafe, name.as_bytes(), "a link that is not followed");
    }
    carafe.stop_clean();
}

/// Swaps two names until told to stop. It ends as it began, and says how often it swapped.
fn flip(one: &Path, other: &Path, is_over: &AtomicBool) -> u64 {
    let mut swaps = 0;
    while !is_over.load(Ordering::Relaxed) || swaps % 2 == 1 {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
        swaps += 1;
    }
    swaps
}

#[test]
fn a_folder_that_turns_into_a_link_never_shows_what_is_outside() {
    const ROUNDS: usize = 2000;
    let outer = root_with(&[("outside/file", SECRET), ("www/folder/file", "inside")]);
    let www = outer.path().join("www");
    let (folder, link) = (www.join("folder"), www.join("link"));
    symlink("../outside", &link).unwrap();
    let carafe = Carafe::serve(&www, &[]);
    assert_served(&carafe, b"folder/file", "inside");
    assert_refused(&carafe, b"link/file", "leads out of the root");
    let is_over = AtomicBool::new(false);
    let (swaps, served) = thread::scope(|scope| {
        let flipper = scope.spawn(|| flip(&folder, &link, &is_over));
        let mut served = 0;
        for round in 0..ROUNDS {
            let name: &[u8] = [b"folder/file\n", b"link/file\n\n\n"][round % 2];
            // A look-up that the kernel couldn't finish ends with a reset.
            let got = exchange(carafe.addr(), name).unwrap_or_default();
            assert!(got.is_empty() || got == b"inside", "{}", got.escape_ascii());
            served += usize::from(!got.is_empty());
        }
        is_over.store(true, Ordering::Relaxed);
        (flipper.join().unwrap(), served)
    });
    assert!(swaps > 0 && served > 0, "{swaps} swaps, {served} served");
    assert_served(&carafe, b"folder/file", "inside");
    // Each such reset is a warning.
    let _ = carafe.stop();
}

#[test]
fn what_is_no_regular_file_is_refused_at_once_and_blocks_nobody() {
    let root = root_with(&[("a", "hello"), ("d/b", "deeper")]);
    mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
    symlink("fifo", root.path().join("to-fifo")).unwrap();
    // No silence ends a wait here, so every answer comes from the look-up itself.
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let not_regular = "not a regular file";
    for (name, why) in [
        ("fifo", not_regular),
        ("to-fifo", not_regular),
        ("socket", not_regular),
        ("d", not_regular),
        ("d/", not_regular),
        // A file is no folder.
        ("a/", "no such file"),
        ("a/b", "no such file"),
        ("d/missing", "no such file"),
    ] {
        assert_refused(&carafe, name.as_bytes(), why);
        assert_served(&carafe, b"a", "hello");
    }
    carafe.stop_clean();
}

#[test]
fn a_device_is_refused() {
    let root = root_with(&[("a", "hello")]);
    let zero = root.path().join("zero");
    match mknodat(
        CWD,
        &zero,
        FileType::CharacterDevice,
        Mode::RUSR,
        makedev(1, 5),
    ) {
        Err(Errno::PERM | Errno::ACCESS) => return skip("mknod", "it needs root"),
        made => made.unwrap(),
    }
    let carafe = Carafe::serve(root.path(), &[]);
    assert_refused(&carafe, b"zero", "not a regular file");
    carafe.stop_clean();
}

#[test]
fn what_the_server_may_not_read_is_refused() {
    let outer = root_with(&[
        ("www/a", "hello"),
        ("www/closed", SECRET),
        ("www/closed-folder/b", SECRET),
    ]);
    let closed = ["closed", "closed-folder"].map(|name| outer.path().join("www").join(name));
    for path in &closed {
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
    }
    let Some(carafe) = serve_unprivileged(outer.path(), &[]) else {
        return;
    };
    assert_served(&carafe, b"a", "hello");
    assert_refused(&carafe, b"closed", "permission denied");
    assert_refused(&carafe, b"closed-folder", "permission denied");
    assert_refused(&carafe, b"closed-folder/b", "permission denied");
    // So that the folder can be removed.
    fs::set_permissions(&closed[1], Permissions::from_mode(0o755)).unwrap();
    carafe.stop_clean();
}

#[test]
fn a_nul_ends_no_name() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    for name in [&b"a\0"[..], b"a\0b", b"\0a", b"\0", b"a\0/../a"] {
        assert_refused(&carafe, name, "NUL in the name");
    }
    carafe.stop_clean();
}

#[test]
fn names_are_bytes() {
    let longest = "n".repeat(255);
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let names: [&[u8]; 10] = [
        b"\xff",
        b"\xc3",
        b"folder \xfe/\x80",
        longest.as_bytes(),
        "🍷".as_bytes(),
        composed.as_bytes(),
        "接收.txt".as_bytes(),
        b"%41",
        b"a b\t\"c\" \\ 'd' *?[x]~$HOME;`id`",
        b"-rf",
    ];
    // Each file holds its own name.
    let root = root_with(&names.map(|name| (OsStr::from_bytes(name), name)));
    let carafe = Carafe::serve(root.path(), &[]);
    for name in names {
        assert_same(
            &name.escape_ascii().to_string(),
            &fetch(&carafe, name),
            name,
        );
    }
    // Nothing is normalised, decoded or folded.
    for name in [decomposed, "A", "接收.TXT", "-RF"] {
        assert_refused(&carafe, name.as_bytes(), "no such file");
    }
    fs::write(root.path().join(decomposed), "two code points").unwrap();
    assert_served(&carafe, decomposed.as_bytes(), "two code points");
    assert_served(&carafe, composed.as_bytes(), composed);
    let too_long = "n".repeat(256);
    assert_refused(&carafe, too_long.as_bytes(), "the name is too long");
    carafe.stop_clean();
}

#[test]
fn no_name_forges_or_hides_a_log_line() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    // What is sent, and the name as the log shows it.
    let forged = b"a\n127.0.0.1 - - fake\x1b[2J";
    let mut rows: Vec<(Vec<u8>, String)> = vec![
        (forged.to_vec(), "a".into()),
        (b"a\rfake\n".to_vec(), "a\\x0dfake".into()),
        (b"\x1b]0;title\x07\n".to_vec(), "\\x1b]0;title\\x07".into()),
        (
            b"say \"hi\" \\x41\n".to_vec(),
            "say \\x22hi\\x22 \\x5cx41".into(),
        ),
        (
            "a\u{202e}txt.exe\n".into(),
            "a\\xe2\\x80\\xaetxt.exe".into(),
        ),
        (
            "a\u{2028}b\u{2029}c\n".into(),
            "a\\xe2\\x80\\xa8b\\xe2\\x80\\xa9c".into(),
        ),
        (
            "\u{2066}\u{200f}\u{61c}\n".into(),
            "\\xe2\\x81\\xa6\\xe2\\x80\\x8f\\xd8\\x9c".into(),
        ),
        ("\u{9b}2J\u{85}\n".into(), "\\xc2\\x9b2J\\xc2\\x85".into()),
        (b"\x9b2J\xff\n".to_vec(), "\\x9b2J\\xff".into()),
        ("{} %s %n 接收\n".into(), "{} %s %n 接收".into()),
    ];
    rows.extend(
        (0..=0x1f)
            .chain([0x7f])
            .filter(|&byte| byte != b'\n')
            .map(|byte| (vec![b'x', byte, b'y', b'\n'], format!("x\\x{byte:02x}y"))),
    );
    let peers: Vec<_> = rows
        .iter()
        .map(|(sent, _)| {
            let mut client = connect(carafe.addr());
            client.write_all(sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            read_to_end(&mut client);
            client.local_addr().unwrap()
        })
        .collect();
    for peer in &peers {
        carafe.wait_for_log(&format!("{peer} \""));
    }
    let log = carafe.log();
    for (peer, (_, shown)) in peers.iter().zip(&rows) {
        let start = format!("{peer} \"");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&start)).collect();
        let quoted = format!("{start}{shown}\" ");
        assert!(
            matches!(lines[..], [line] if line.contains(&quoted)),
            "{quoted}: {lines:?}"
        );
    }
    let unsafe_char =
        |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
    assert!(!log.contains(unsafe_char), "{log:?}");
    let ends = log.lines().filter(|line| line.contains(" bytes ")).count();
    assert_eq!(ends, rows.len(), "one line for one connection:\n{log}");
    carafe.stop_clean();
}
