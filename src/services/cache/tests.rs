//! Every way in which a name may come to mean other bytes, and what is kept, watched and dropped.

use super::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::service::{Body, Piece};
use crate::services::root::{LookupError, Root};

const BOUNDS: Bounds = Bounds {
    bytes_max: 1024 * 1024,
    open_max: 16,
};

fn root(folder: &Path) -> Root {
    let mut root = Root::open(folder, false).unwrap();
    root.set_cache(BOUNDS).unwrap();
    root
}

fn beneath(path: &Path) -> Beneath {
    Beneath::open(path, false).unwrap()
}

/// What a look-up brings.
fn served(root: &mut Root, name: &str) -> Option<Vec<u8>> {
    match root.lookup(name.as_bytes(), &[]) {
        Ok(file) => Some(match Body::File(file).piece(0) {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::File { file, length, .. } => {
                let mut bytes = vec![0; length as usize];
                file.file().read_exact_at(&mut bytes, 0).unwrap();
                bytes
            }
        }),
        Err(LookupError::Refused(_)) => None,
        Err(error) => panic!("{name}: {error:?}"),
    }
}

/// Whether two looks bring the same. A young file is looked at anew when the clock has moved on, which
/// may be between them, but not each time.
fn is_kept(root: &mut Root, name: &str) -> bool {
    let mut look = || root.lookup(name.as_bytes(), &[]).unwrap();
    (0..3).any(|_| {
        let (first, second) = (look(), look());
        first.contents().is_some() && Rc::ptr_eq(&first, &second)
    })
}

#[test]
fn what_is_asked_for_twice_is_kept() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir_all(at.path().join("a/b")).unwrap();
    fs::write(at.path().join("a/b/c"), b"deep").unwrap();
    let mut root = root(at.path());
    let first = root.lookup(b"a/b/c", &[]).unwrap();
    assert_eq!(first.contents(), None, "once is not often");
    for name in ["a/b/c", "/a/b/c"] {
        assert!(is_kept(&mut root, name), "{name}");
    }
    // The same file by other spellings is looked up each time.
    for name in ["a//b/c", "a/b//c"] {
        assert!(!is_kept(&mut root, name), "{name}");
        assert_eq!(served(&mut root, name).unwrap(), b"deep");
    }
}

type Change = (&'static str, fn(&Path));

/// Every way in which a name may come to mean other bytes, beneath the root `at/root`.
const CHANGES: &[Change] = &[
    ("overwritten in place", |at| {
        fs::write(at.join("root/a/b/file"), b"other").unwrap();
    }),
    ("made longer", |at| {
        let path = at.join("root/a/b/file");
        let mut file = File::options().append(true).open(path).unwrap();
        io::Write::write_all(&mut file, b"more").unwrap();
    }),
    ("truncated", |at| {
        let path = at.join("root/a/b/file");
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(1)
            .unwrap();
    }),
    ("written by another name outside", |at| {
        fs::write(at.join("outside"), b"linked").unwrap();
    }),
    ("replaced by rename", |at| {
        fs::write(at.join("root/new"), b"renamed").unwrap();
        fs::rename(at.join("root/new"), at.join("root/a/b/file")).unwrap();
    }),
    ("removed", |at| {
        fs::remove_file(at.join("root/a/b/file")).unwrap()
    }),
    ("renamed", |at| {
        fs::rename(at.join("root/a/b/file"), at.join("root/a/b/else")).unwrap();
    }),
    ("made a link", |at| {
        fs::write(at.join("root/a/b/target"), b"target").unwrap();
        fs::remove_file(at.join("root/a/b/file")).unwrap();
        symlink("target", at.join("root/a/b/file")).unwrap();
    }),
    ("its folder renamed", |at| {
        fs::rename(at.join("root/a/b"), at.join("root/a/c")).unwrap();
    }),
    ("a folder above replaced", |at| {
        fs::create_dir_all(at.join("root/n/b")).unwrap();
        fs::write(at.join("root/n/b/file"), b"new tree").unwrap();
        fs::rename(at.join("root/a"), at.join("root/old")).unwrap();
        fs::rename(at.join("root/n"), at.join("root/a")).unwrap();
    }),
    ("a folder above exchanged", |at| {
        fs::create_dir_all(at.join("n/b")).unwrap();
        fs::write(at.join("n/b/file"), b"exchanged").unwrap();
        let (one, other) = (at.join("n"), at.join("root/a"));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
    }),
    ("a folder above made a link", |at| {
        fs::rename(at.join("root/a"), at.join("root/real")).unwrap();
        symlink("real", at.join("root/a")).unwrap();
        fs::write(at.join("root/real/b/file"), b"behind a link").unwrap();
    }),
    ("all removed and made anew", |at| {
        fs::remove_dir_all(at.join("root/a")).unwrap();
        fs::create_dir_all(at.join("root/a/b")).unwrap();
        fs::write(at.join("root/a/b/file"), b"anew").unwrap();
    }),
];

#[test]
fn every_change_shows_at_once() {
    for size in [10, CACHED_CONTENTS_BYTES_MAX as usize + 1] {
        for (how, change) in CHANGES {
            let at = tempfile::tempdir().unwrap();
            let path = at.path().join("root/a/b/file");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![b'x'; size]).unwrap();
            fs::hard_link(&path, at.path().join("outside")).unwrap();
            let mut root = root(&at.path().join("root"));
            for _ in 0..3 {
                assert_eq!(root.lookup(b"a/b/file", &[]).unwrap().length(), size as u64);
            }
            // Once more after each: what is loaded anew is watched anew.
            for round in 0..2 {
                if round == 0 {
                    change(at.path());
                } else if path.exists() {
                    fs::write(&path, b"again").unwrap();
                }
                for _ in 0..3 {
                    let stat = fs::read(&path).ok();
                    let length = root.lookup(b"a/b/file", &[]).ok().map(|file| file.length());
                    assert_eq!(
                        length,
                        stat.as_ref().map(|bytes| bytes.len() as u64),
                        "{how}"
                    );
                    if stat.as_ref().is_some_and(|bytes| bytes.len() < size) {
                        assert_eq!(served(&mut root, "a/b/file"), stat, "{how}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_mode_that_changes_shows_at_once() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("folder")).unwrap();
    fs::write(at.path().join("folder/file"), b"x").unwrap();
    let mut root = root(at.path());
    for path in ["folder/file", "folder"] {
        root.lookup(b"folder/file", &[]).unwrap();
        assert!(is_kept(&mut root, "folder/file"));
        let before = root.lookup(b"folder/file", &[]).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at.path().join(path), mode).unwrap();
        let after = root.lookup(b"folder/file", &[]).unwrap();
        assert!(!Rc::ptr_eq(&before, &after), "{path}");
    }
}

#[test]
fn a_name_with_a_link_on_the_way_is_looked_up_each_time() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("real")).unwrap();
    fs::write(at.path().join("real/file"), b"one").unwrap();
    symlink("real", at.path().join("folder")).unwrap();
    symlink("real/file", at.path().join("link")).unwrap();
    let mut root = root(at.path());
    for name in ["folder/file", "link"] {
        root.lookup(name.as_bytes(), &[]).unwrap();
        assert!(!is_kept(&mut root, name), "{name}");
    }
}

#[test]
fn what_was_looked_at_a_second_ago_is_looked_at_anew() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(BOUNDS).unwrap();
    assert!(matches!(cache.get(b"file", start), Known::Unknown));
    assert!(matches!(cache.get(b"file", start), Known::Wanted));
    cache.load(&root, b"file", start, |file| file).unwrap();
    let almost = start + CACHE_FRESH - std::time::Duration::from_millis(1);
    assert!(matches!(cache.get(b"file", almost), Known::File(_)));
    assert!(matches!(
        cache.get(b"file", start + CACHE_FRESH),
        Known::Wanted
    ));
    assert_eq!((cache.bytes, cache.open), (0, 0));
}

#[test]
fn the_least_recently_used_make_room_and_leave_no_watch() {
    let at = tempfile::tempdir().unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let bounds = Bounds {
        bytes_max: 250,
        open_max: 2,
    };
    let mut cache = Cache::new(bounds).unwrap();
    for number in 0..10 {
        let name = format!("{number}/file");
        fs::create_dir(at.path().join(number.to_string())).unwrap();
        fs::write(at.path().join(&name), [7; 100]).unwrap();
        cache
            .load(&root, name.as_bytes(), now, |file| file)
            .unwrap();
    }
    assert_eq!((cache.files.len(), cache.bytes), (2, 200));
    // Two files, their folders, and the root.
    assert_eq!(cache.watches.by_path.len(), 5);
    assert_eq!(cache.watches.paths.len(), 5);
    cache.clear();
    assert!(cache.watches.by_path.is_empty() && cache.watches.paths.is_empty());
    assert_eq!((cache.files.len(), cache.bytes, cache.open), (0, 0, 0));
}

#[test]
fn files_kept_open_are_few_and_closed_for_others() {
    let at = tempfile::tempdir().unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let bounds = Bounds {
        open_max: 2,
        ..BOUNDS
    };
    let mut cache = Cache::new(bounds).unwrap();
    for name in ["1", "2", "3"] {
        let file = File::create(at.path().join(name)).unwrap();
        file.set_len(CACHED_CONTENTS_BYTES_MAX + 1).unwrap();
        cache
            .load(&root, name.as_bytes(), now, |file| file)
            .unwrap();
    }
    assert_eq!((cache.files.len(), cache.open), (2, 2));
    assert!(cache.close_files());
    assert_eq!((cache.files.len(), cache.open), (0, 0));
    assert!(!cache.close_files());
}

#[test]
fn what_is_asked_for_again_long_after_is_not_kept() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(BOUNDS).unwrap();
    let (loaded, again) = (start + CACHE_AGAIN, start + 2 * CACHE_AGAIN);
    assert!(matches!(cache.get(b"file", start), Known::Unknown));
    assert!(matches!(cache.get(b"file", loaded), Known::Unknown));
    assert!(matches!(cache.get(b"file", loaded), Known::Wanted));
    cache.load(&root, b"file", loaded, |file| file).unwrap();
    assert!(matches!(cache.get(b"file", again), Known::Unknown));
    assert!(cache.files.is_empty() && cache.watches.by_path.is_empty());
    assert!(matches!(cache.get(b"file", again), Known::Wanted));
}

#[test]
fn nothing_is_kept_open_for_nobody() {
    let at = tempfile::tempdir().unwrap();
    let long = CACHED_CONTENTS_BYTES_MAX + 1;
    for (name, length) in [("short", 1), ("long", long)] {
        File::create(at.path().join(name))
            .unwrap()
            .set_len(length)
            .unwrap();
    }
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(BOUNDS).unwrap();
    cache.get(b"short", start);
    cache.load(&root, b"short", start, |file| file).unwrap();
    assert_eq!(cache.rest(start), None, "it isn't open");
    let asked = start + std::time::Duration::from_millis(1);
    cache.get(b"long", asked);
    cache.load(&root, b"long", asked, |file| file).unwrap();
    let then = asked + CACHE_IDLE;
    assert_eq!(cache.rest(start + CACHE_IDLE), Some(then));
    assert_eq!(cache.open, 1);
    assert_eq!(cache.rest(then), None);
    assert_eq!((cache.open, cache.files.len()), (0, 1));
    // The short file, and the root.
    assert_eq!(cache.watches.by_path.len(), 2);
}

#[test]
fn a_file_that_is_gone_leaves_no_watch() {
    for open_max in [0, 16] {
        let at = tempfile::tempdir().unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let mut cache = Cache::new(Bounds { open_max, ..BOUNDS }).unwrap();
        let size = match open_max {
            0 => 1,
            _ => CACHED_CONTENTS_BYTES_MAX + 1,
        };
        for number in 0..3 {
            let name = format!("{number}/in/file");
            let path = at.path().join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().set_len(size).unwrap();
            let load = cache.load(&root, name.as_bytes(), now, |file| file);
            assert!(load.is_some());
            fs::remove_file(&path).unwrap();
            assert!(!matches!(cache.get(name.as_bytes(), now), Known::File(_)));
        }
        assert!(cache.files.is_empty());
        assert!(
            cache.watches.by_path.is_empty() && cache.watches.paths.is_empty(),
            "{:?}",
            cache.watches
        );
    }
}

#[test]
fn a_folder_that_is_asked_for_as_a_file_is_watched_as_before() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("folder")).unwrap();
    fs::write(at.path().join("folder/file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(BOUNDS).unwrap();
    assert!(
        cache
            .load(&root, b"folder/file", now, |file| file)
            .is_some()
    );
    assert!(cache.load(&root, b"folder", now, |file| file).is_none());
    cache.take_events();
    fs::write(at.path().join("folder/new"), b"").unwrap();
    let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
    let event = Reader::new(&cache.inotify, &mut buffer)
        .next()
        .map(|event| event.events());
    assert_eq!(event, Ok(ReadFlags::CREATE));
}

#[test]
fn names_that_no_file_has_take_little_memory() {
    let at = tempfile::tempdir().unwrap();
    let mut root = root(at.path());
    for number in 0..CACHE_NAMES_MAX.get() {
        let name = format!("{number:x>8000}"); // As long as an HTTP request has.
        assert!(root.lookup(name.as_bytes(), &[]).is_err());
    }
    let cache = root.cache();
    let bytes: usize = cache.others.iter().map(|(name, _)| name.len()).sum();
    assert!(bytes <= 16 * 1024 * 1024, "{bytes} bytes of names");
}

#[test]
fn events_that_were_lost_clear_everything() {
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(BOUNDS).unwrap();
    cache.load(&root, b"file", now, |file| file).unwrap();
    // One name again and again: an event that equals the one before it is not queued.
    for _ in 0..=queue / 2 {
        fs::write(at.path().join("other"), b"").unwrap();
        fs::remove_file(at.path().join("other")).unwrap();
    }
    assert!(!matches!(cache.get(b"file", now), Known::File(_)));
    assert!(cache.watches.by_path.is_empty());
}
