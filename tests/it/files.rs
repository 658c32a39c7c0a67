//! Truth at the end: whatever happens to a file while it is sent, a client that sees a good end
//! has every byte that was promised, and one that doesn't sees a reset.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::common::{
    Carafe, LARGE_BYTES, assert_reset, begin_download, connect_narrow, exchange, next_random,
    pattern, reason_count, sparse_file, until,
};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::process::Signal;
use tempfile::TempDir;

/// A server that has begun to send a large file to a client that doesn't read on yet.
struct Begun {
    carafe: Carafe,
    root: TempDir,
    path: PathBuf,
    /// Open for looks at its state, under whatever name.
    file: fs::File,
    bytes: Vec<u8>,
    client: TcpStream,
    first: u8,
}

impl Begun {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("large");
        let bytes = pattern(1, LARGE_BYTES);
        fs::write(&path, &bytes).unwrap();
        let carafe = Carafe::serve(root.path(), &[]);
        let (client, first) = begin_download(carafe.addr(), "large");
        wait_for_a_later_timestamp(root.path(), &path);
        Self {
            carafe,
            root,
            file: fs::File::open(&path).unwrap(),
            path,
            bytes,
            client,
            first,
        }
    }

    /// The client reads to the end.
    fn read_on(&mut self) -> io::Result<Vec<u8>> {
        let mut all = vec![self.first];
        self.client.read_to_end(&mut all)?;
        Ok(all)
    }

    fn assert_whole(mut self) {
        let got = self.read_on().unwrap();
        assert!(got == self.bytes, "{} bytes came", got.len());
        self.carafe.stop_clean();
    }

    fn assert_cut(mut self, reason: &str, warning: &str) {
        assert_reset(self.read_on());
        let log = self.carafe.stop_warned(&[warning]);
        assert_eq!(reason_count(&log, reason), 1, "{log}");
    }
}

/// The kernel's file times move in steps of some milliseconds; a change within the step of the
/// file's making would leave no trace.
fn wait_for_a_later_timestamp(root: &Path, path: &Path) {
    let changed = |path: &Path| {
        let about = fs::metadata(path).unwrap();
        (about.ctime(), about.ctime_nsec())
    };
    let probe = root.join("probe");
    until("the file system's clock moves on", || {
        fs::write(&probe, b"now").unwrap();
        changed(&probe) > changed(path)
    });
}

#[test]
fn a_truncated_file_ends_in_a_reset() {
    let begun = Begun::new();
    let file = fs::File::options().write(true).open(&begun.path).unwrap();
    file.set_len(1000).unwrap();
    begun.assert_cut("file became shorter", "became shorter while it was sent");
}

#[test]
fn an_appended_file_is_sent_in_its_old_length() {
    let begun = Begun::new();
    let mut file = fs::File::options().append(true).open(&begun.path).unwrap();
    file.write_all(&[b'x'; 100_000]).unwrap();
    begun.assert_whole();
}

#[test]
fn a_file_overwritten_in_place_ends_in_a_reset() {
    let begun = Begun::new();
    let file = fs::File::options().write(true).open(&begun.path).unwrap();
    file.write_all_at(b"other", 10).unwrap();
    begun.assert_cut("file changed", "changed while it was sent");
}

#[test]
fn a_file_replaced_by_rename_is_sent_whole_and_the_new_one_to_new_clients() {
    let begun = Begun::new();
    let staged = begun.root.path().join("staged");
    fs::write(&staged, b"the new file").unwrap();
    fs::rename(&staged, &begun.path).unwrap();
    let fresh = exchange(begun.carafe.addr(), b"large\n").unwrap();
    assert_eq!(fresh, b"the new file");
    begun.assert_whole();
}

#[test]
fn setting_the_time_of_a_file_cuts_a_download() {
    let begun = Begun::new();
    let file = fs::File::options().write(true).open(&begun.path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    begun.assert_cut("file changed", "changed while it was sent");
}

/// What changes a file's state and none of its bytes.
#[test]
fn what_touches_no_byte_cuts_no_download() {
    type Touch = (&'static str, fn(&Path));
    let touches: [Touch; 9] = [
        ("a mode that it had", |path| {
            let mode = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, mode).unwrap();
        }),
        ("another mode", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("an owner that it had", |path| {
            let about = fs::metadata(path).unwrap();
            chown(path, Some(about.uid()), Some(about.gid())).unwrap();
        }),
        ("an attribute", |path| {
            let set = rustix::fs::setxattr(path, "user.carafe", b"x", XattrFlags::empty());
            // Not every file system has them.
            assert!(matches!(set, Ok(()) | Err(Errno::NOTSUP)), "{set:?}");
        }),
        ("a link", |path| {
            fs::hard_link(path, path.with_extension("link")).unwrap()
        }),
        ("a link less", |path| {
            fs::hard_link(path, path.with_extension("link")).unwrap();
            fs::remove_file(path.with_extension("link")).unwrap();
        }),
        ("another name", |path| {
            fs::rename(path, path.with_extension("moved")).unwrap()
        }),
        ("another name and back", |path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            fs::rename(path.with_extension("moved"), path).unwrap();
        }),
        ("no name", |path| fs::remove_file(path).unwrap()),
    ];
    for (what, touch) in touches {
        let mut begun = Begun::new();
        let changed = |begun: &Begun| begun.file.metadata().unwrap();
        let before = changed(&begun);
        touch(&begun.path);
        let after = changed(&begun);
        assert!(
            (before.ctime(), before.ctime_nsec()) != (after.ctime(), after.ctime_nsec())
                || what == "an attribute",
            "{what}: it shows"
        );
        let got = begun
            .read_on()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(got == begun.bytes, "{what}: {} bytes came", got.len());
        begun.carafe.stop_clean();
    }
}

#[test]
fn a_killed_server_leaves_a_reset_not_a_good_end() {
    let mut begun = Begun::new();
    // Another client's answer comes from a later turn: the first one's download has paused.
    exchange(begun.carafe.addr(), b"probe\n").unwrap();
    begun.carafe.signal(Signal::KILL);
    assert_reset(begun.read_on());
}

#[test]
fn a_server_killed_within_its_first_turn_leaves_a_reset_too() {
    let root = tempfile::tempdir().unwrap();
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    for _ in 0..10 {
        let carafe = Carafe::serve(root.path(), &[]);
        let (mut client, _) = begin_download(carafe.addr(), "large");
        carafe.signal(Signal::KILL);
        let mut rest = Vec::new();
        assert_reset(client.read_to_end(&mut rest).map(|_| rest));
    }
}

#[test]
fn many_readers_of_one_file_share_one_descriptor() {
    let root = tempfile::tempdir().unwrap();
    let large = root.path().join("large");
    sparse_file(&large, LARGE_BYTES as u64);
    let carafe = Carafe::serve(root.path(), &[]);
    let before = carafe.sockets();
    // Whoever has its first byte has been opened for.
    let readers: Vec<_> = (0..20)
        .map(|_| begin_download(carafe.addr(), "large").0)
        .collect();
    until("they share a descriptor", || {
        carafe.sockets() == before + 20 && carafe.descriptors_of(&large) == 1
    });
    drop(readers);
    // The cache keeps the file, for whoever asks next.
    until("all others are closed", || {
        carafe.sockets() == before && carafe.descriptors_of(&large) == 1
    });
    carafe.stop_clean();
}

#[test]
fn a_download_read_in_odd_small_pieces_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let bytes = pattern(2, 3_000_001);
    fs::write(root.path().join("odd"), &bytes).unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    let mut client = connect_narrow(carafe.addr(), 8 * 1024);
    client.write_all(b"odd\n").unwrap();
    let (mut all, mut piece, mut state) = (Vec::new(), [0; 4096], 7);
    loop {
        let len = 1 + next_random(&mut state) as usize % (piece.len() - 1);
        match client.read(&mut piece[..len]).unwrap() {
            0 => break,
            n => all.extend_from_slice(&piece[..n]),
        }
    }
    assert!(all == bytes, "{} bytes came", all.len());
    carafe.stop_clean();
}

/// Downloads a sparse file with markers on both sides of `border` and at its end, and checks every
/// byte as it comes; nothing of the file may stay in the server's memory.
fn arrives_whole_in_flat_memory(border: u64, len: u64) {
    let root = tempfile::tempdir().unwrap();
    let file = sparse_file(&root.path().join("huge"), len);
    let markers = [border - 6, border, len - 6];
    for (at, marker) in markers.iter().zip(["before", "behind", "at end"]) {
        file.write_all_at(marker.as_bytes(), *at).unwrap();
    }
    let carafe = Carafe::serve(root.path(), &[]);
    let memory = carafe.resident_bytes();
    let mut client = crate::common::connect(carafe.addr());
    client.write_all(b"huge\n").unwrap();
    let (mut got, mut wanted) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let n = client.read(&mut got).unwrap();
        if n == 0 {
            break;
        }
        let is_marked = markers.iter().any(|m| at < m + 6 && *m < at + n as u64);
        if is_marked {
            file.read_exact_at(&mut wanted[..n], at).unwrap();
            assert!(got[..n] == wanted[..n], "wrong bytes from {at} on");
            wanted[..n].fill(0);
        } else {
            assert!(got[..n] == wanted[..n], "zeros from {at} on");
        }
        at += n as u64;
    }
    assert_eq!(at, len);
    let grown = carafe.resident_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes more after {len}");
    carafe.stop_clean();
}

#[test]
fn a_large_file_arrives_whole_in_flat_memory() {
    arrives_whole_in_flat_memory(128 << 20, 256 << 20);
}

#[test]
#[ignore = "long form: 5 GiB over loopback take 5 to 15 s"]
fn a_file_beyond_four_gib_arrives_whole_in_flat_memory() {
    arrives_whole_in_flat_memory(4 << 30, 5 << 30);
}

#[test]
fn a_server_killed_before_its_answer_leaves_a_reset_and_not_no_such_file() {
    let root = tempfile::tempdir().unwrap();
    // Whom the kernel holds back from accept dies with the listener, without a word.
    let carafe = Carafe::serve(root.path(), &["--name-gap", "1h", "--no-defer-accept"]);
    let mut silent = crate::common::connect(carafe.addr());
    let mut begun = crate::common::connect(carafe.addr());
    crate::common::send_and_see_read(&mut begun, b"na");
    crate::common::send_and_see_read(&mut silent, b"");
    carafe.signal(Signal::KILL);
    for mut client in [silent, begun] {
        let mut rest = Vec::new();
        assert_reset(client.read_to_end(&mut rest).map(|_| rest));
    }
}
