//! Every way in which a name may come to mean other bytes, and what is kept, watched and dropped.

use super::*;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::file::{Lookup, LookupError, MayBlock, Segment, TaskResult};
use crate::limits::{CACHE_FOLDERS_MAX, CACHE_IDLE_DIRECTORIES_MAX, CACHE_WATCH_BYTES};
use crate::protocol::Body;
use crate::root::Root;

mod lists;

const LIMITS: CacheLimits = CacheLimits {
    bytes_max: 1024 * 1024,
    open_max: 16,
};

fn root(folder: &Path) -> Root {
    let mut root = Root::open(folder, false).unwrap();
    root.set_cache(LIMITS).unwrap();
    root
}

fn beneath(path: &Path) -> Arc<RootDir> {
    Arc::new(RootDir::open(path, false).unwrap())
}

impl Cache {
    /// The file of a name, after all changes so far.
    fn fresh(&mut self, name: &[u8], now: Instant) -> Option<Arc<OpenFile>> {
        self.catch_up(now);
        self.get(name, now)
    }

    /// Waits for the watches that are being made.
    fn settle(&mut self) {
        if self.pending.is_some() {
            let way = self.thread.as_ref().expect("it has begun").wait();
            self.note_watched(&way);
        }
    }

    /// Asks for a name as often as it takes to keep it, if it can be kept.
    fn load(&mut self, root: &Arc<RootDir>, name: &[u8], now: Instant) -> Option<Arc<OpenFile>> {
        for _ in 0..2 {
            if let Some(file) = self.ask(root, name, now) {
                return Some(file);
            }
            self.settle();
        }
        self.ask(root, name, now)
    }

    /// Whether a file is kept, after all changes so far, and is believed. A young one may be looked at anew all
    /// the same.
    fn has(&mut self, name: &[u8], now: Instant) -> bool {
        self.catch_up(now);
        let watched = self.files.peek(name);
        watched
            .is_some_and(|watched| watched.file.is_some() && watched.is_believed(&self.mounts, now))
    }

    /// Asks once. Returns what comes from the cache, or is put there.
    fn ask(&mut self, root: &Arc<RootDir>, name: &[u8], now: Instant) -> Option<Arc<OpenFile>> {
        self.fresh(name, now).or_else(|| {
            let Ok(Lookup::File(file)) = root.find(name, MayBlock::Forever) else {
                return None;
            };
            self.note_found(root, name, &file, true, now)
        })
    }
}

/// Looks a name up; what that begins is over then.
fn look(root: &mut Root, name: &str) -> Result<Arc<OpenFile>, LookupError> {
    let found = root.find_file(name.as_bytes(), &[]);
    root.cache().settle();
    found
}

/// What a look-up brings.
fn served(root: &mut Root, name: &str) -> Option<Vec<u8>> {
    match look(root, name) {
        Ok(file) => Some(match Body::File(file).segment(0) {
            Segment::Bytes(bytes) => bytes.to_vec(),
            Segment::Piece { .. } => unreachable!("it is a file"),
            Segment::File { file, length, .. } => {
                let mut bytes = vec![0; length as usize];
                assert_eq!(file.read_blocking(&mut bytes, 0).unwrap() as u64, length);
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
    let mut look = || look(root, name).unwrap();
    (0..3).any(|_| {
        let (_, first, second) = (look(), look(), look());
        first.contents().is_some() && Arc::ptr_eq(&first, &second)
    })
}

#[test]
fn what_is_looked_up_for_nobody_in_particular_takes_in_every_change() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("file");
    fs::write(&path, b"before").unwrap();
    let (mut root, now) = (root(at.path()), Instant::now());
    assert!(is_kept(&mut root, "file"));
    fs::write(&path, b"after").unwrap();
    assert_eq!(served(&mut root, "file").unwrap(), b"after");
    // Those who came together go by one look; who comes later, or in another turn, doesn't.
    for (later, is_new) in [(now, true), (now + Duration::from_nanos(1), false)] {
        assert!(is_kept(&mut root, "file"));
        root.begin(now, true);
        served(&mut root, "file");
        fs::write(&path, b"in between").unwrap();
        root.begin(now, false);
        served(&mut root, "file");
        assert!(
            root.cache().files.contains(&b"file"[..]),
            "nobody has asked for events"
        );
        root.begin(later, is_new);
        assert_eq!(served(&mut root, "file").unwrap(), b"in between");
        assert!(!root.cache().files.contains(&b"file"[..]));
    }
}

#[test]
fn what_is_asked_for_twice_is_kept() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir_all(at.path().join("a/b")).unwrap();
    fs::write(at.path().join("a/b/c"), b"deep").unwrap();
    let mut root = root(at.path());
    let first = look(&mut root, "a/b/c").unwrap();
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
                assert_eq!(look(&mut root, "a/b/file").unwrap().length(), size as u64);
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
                    let length = look(&mut root, "a/b/file").ok().map(|file| file.length());
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
        look(&mut root, "folder/file").unwrap();
        assert!(is_kept(&mut root, "folder/file"));
        let before = look(&mut root, "folder/file").unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at.path().join(path), mode).unwrap();
        let after = look(&mut root, "folder/file").unwrap();
        assert!(!Arc::ptr_eq(&before, &after), "{path}");
    }
}

#[test]
fn a_folder_may_be_replaced_in_which_many_names_are_kept_and_one_is_being_watched() {
    let at = tempfile::tempdir().unwrap();
    let (way, folder) = (at.path().join("way"), at.path().join("way/folder"));
    fs::create_dir_all(&folder).unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(CacheLimits {
        bytes_max: 8 * 1024 * 1024,
        open_max: 0,
    })
    .unwrap();
    fs::write(folder.join("0"), b"x").unwrap();
    for number in 1..=CACHE_INVALIDATIONS_MAX {
        fs::hard_link(folder.join("0"), folder.join(number.to_string())).unwrap();
    }
    for number in 0..=CACHE_INVALIDATIONS_MAX {
        let name = format!("way/folder/{number}");
        assert!(cache.load(&root, name.as_bytes(), now).is_some());
    }
    fs::rename(&folder, at.path().join("old")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), b"x").unwrap();
    // The thread meets the new folder before the loop has read of it.
    cache.watch(&root, b"way/folder/file", now);
    cache.settle();
    assert!(cache.load(&root, b"way/folder/file", now).is_some());
    assert!(cache.has(b"way/folder/file", now));
    fs::rename(&way, at.path().join("away")).unwrap();
    assert!(!cache.has(b"way/folder/file", now));
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
        look(&mut root, name).unwrap();
        assert!(!is_kept(&mut root, name), "{name}");
    }
}

/// The moment of a change, beside those between two look-ups.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While the thread watches, or before.
    Unsettled,
    /// The thread has watched the name, and the loop doesn't know.
    Watched,
    /// The same, and other names were asked for in between.
    WatchedAndSeen,
    /// The watches are known, nothing was read.
    Noted,
}

#[test]
fn a_change_while_a_name_is_being_watched_shows_at_once() {
    use Moment::{Noted, Unsettled, Watched, WatchedAndSeen};
    for moment in [Unsettled, Watched, WatchedAndSeen, Noted] {
        for (how, change) in CHANGES {
            let at = tempfile::tempdir().unwrap();
            let path = at.path().join("root/a/b/file");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"before").unwrap();
            fs::hard_link(&path, at.path().join("outside")).unwrap();
            let mut root = root(&at.path().join("root"));
            for _ in 0..2 {
                root.find_file(b"a/b/file", &[]).unwrap();
            }
            let cache = root.cache();
            assert!(cache.pending.is_some());
            let way = match moment {
                Watched | WatchedAndSeen => Some(cache.thread.as_ref().unwrap().wait()),
                Unsettled => None,
                Noted => {
                    cache.settle();
                    None
                }
            };
            change(at.path());
            if let WatchedAndSeen = moment {
                cache.fresh(b"another", Instant::now());
                let pending = cache.pending.as_ref().unwrap();
                assert!(!pending.events.is_empty(), "{how}");
            }
            if let Some(way) = way {
                cache.note_watched(&way);
            }
            let stat = fs::read(&path).ok();
            for _ in 0..4 {
                assert_eq!(served(&mut root, "a/b/file"), stat, "{how}, {moment:?}");
            }
            // In the meantime it may have been nothing that can be kept.
            let can_be_kept = !how.ends_with("made a link") && !matches!(moment, Unsettled);
            if stat.is_some() && can_be_kept {
                assert!(is_kept(&mut root, "a/b/file"), "{how}, {moment:?}");
                fs::write(&path, b"again").unwrap();
                assert_eq!(served(&mut root, "a/b/file").unwrap(), b"again", "{how}");
            }
        }
    }
}

#[test]
fn what_was_looked_at_a_second_ago_is_looked_at_anew() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"file", start).unwrap();
    let almost = start + CACHE_FRESH - Duration::from_millis(1);
    assert!(cache.has(b"file", almost));
    let then = start + CACHE_FRESH;
    assert!(cache.fresh(b"file", then).is_none());
    // Nothing has to be watched for that.
    assert!(cache.ask(&root, b"file", then).is_some());
    assert!(cache.pending.is_none() && cache.has(b"file", then));
    let inode = cache.files.peek(&b"file"[..]).unwrap().inode;
    // What a mount hides makes no event.
    cache.files.get_mut(&b"file"[..]).unwrap().inode = (0, 0);
    let later = then + CACHE_FRESH;
    assert!(cache.ask(&root, b"file", later).is_none());
    assert!(cache.files.is_empty() && cache.file_bytes == 0);
    assert!(cache.load(&root, b"file", later).is_some());
    assert_eq!(cache.files.peek(&b"file"[..]).unwrap().inode, inode);
}

#[test]
fn the_least_recently_used_make_room_and_leave_no_watch() {
    let at = tempfile::tempdir().unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    // Room for two files, their folders, and the root.
    let bytes_max = 2 * (100 + CACHE_FILE_BYTES) + 5 * CACHE_WATCH_BYTES + 200;
    let limits = CacheLimits {
        bytes_max,
        open_max: 2,
    };
    let mut cache = Cache::new(limits).unwrap();
    for number in 0..10 {
        let name = format!("{number}/file");
        fs::create_dir(at.path().join(number.to_string())).unwrap();
        fs::write(at.path().join(&name), [7; 100]).unwrap();
        let now = now + Duration::from_millis(number);
        cache.load(&root, name.as_bytes(), now).unwrap();
    }
    assert_eq!((cache.files.len(), cache.watches.len()), (2, 5));
    assert!(cache.bytes() <= bytes_max);
    until_watched(&cache, 5);
    cache.clear();
    until_watched(&cache, 0);
    assert_eq!((cache.files.len(), cache.bytes()), (0, 0));
    assert!(cache.open.is_empty());
}

#[test]
fn of_more_files_than_fit_those_that_are_kept_stay_as_long_as_they_are_asked_for_as_often() {
    let at = tempfile::tempdir().unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let names: Vec<_> = (0..40).map(|number| format!("{number:02}")).collect();
    for name in &names {
        fs::write(at.path().join(name), [7; 1000]).unwrap();
    }
    // Room for half of them.
    let mut cache = Cache::new(CacheLimits {
        bytes_max: 20 * (1000 + CACHE_FILE_BYTES + CACHE_WATCH_BYTES + 200),
        open_max: 2,
    })
    .unwrap();
    let is_there = |cache: &Cache, name: &String| {
        let watched = cache.files.peek(name.as_bytes());
        watched.is_some_and(|watched| watched.file.is_some())
    };
    let mut now = start;
    let mut ask_all = |cache: &mut Cache, names: &[String]| {
        let mut found = 0;
        for name in names {
            now += Duration::from_millis(10);
            found += usize::from(is_there(cache, name));
            cache.ask(&root, name.as_bytes(), now);
            cache.settle();
        }
        found
    };
    for _ in 0..4 {
        ask_all(&mut cache, &names);
    }
    let found = ask_all(&mut cache, &names);
    assert!((15..=20).contains(&found), "{found}");
    // Who isn't asked for any more gives way.
    let others = &names[30..];
    let there = |cache: &Cache| others.iter().filter(|name| is_there(cache, name)).count();
    assert!(there(&cache) < 10);
    for _ in 0..4 {
        ask_all(&mut cache, others);
    }
    assert_eq!(there(&cache), 10);
}

#[test]
fn of_more_names_than_are_remembered_some_are_met_again() {
    let at = tempfile::tempdir().unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    let most = LIMITS.bytes_max / CACHE_SPARE_SHARE / ghost_bytes(b"0000");
    let names: Vec<_> = (0..2 * most).map(|number| format!("{number:04}")).collect();
    for _ in 0..2 {
        for name in &names {
            cache.note_asked(&root, name.as_bytes(), Some(now), now);
        }
    }
    let known = |cache: &Cache, names: &[String]| {
        names
            .iter()
            .filter(|name| cache.ghosts.contains(name.as_bytes()))
            .count()
    };
    assert_eq!(cache.ghosts.len(), most);
    let (first, second) = (known(&cache, &names[..most]), known(&cache, &names[most..]));
    assert!(first > 0 && second > 0, "{first}, {second}");
    // Those of long ago give way to anybody.
    let later = now + CACHE_REUSE_WINDOW;
    let others: Vec<_> = (0..most).map(|number| format!("{number:04x}")).collect();
    for name in &others {
        cache.note_asked(&root, name.as_bytes(), Some(now), later);
    }
    assert_eq!(known(&cache, &others), most);
}

#[test]
fn what_has_lain_unchanged_for_long_is_believed_for_longer() {
    let seconds = Duration::from_secs;
    let mut cache = Cache::new(LIMITS).unwrap();
    for (age, expected) in [(0, 1), (10, 1), (30, 3), (100, 10), (1 << 40, 10)] {
        assert_eq!(cache.believed_for(seconds(age)), seconds(expected), "{age}");
    }
    // No more looks a second than it has time for.
    for number in 0..30 * CACHE_LOOKS_A_SECOND {
        let name = number.to_string().into_bytes().into();
        cache.add_file(&name, (1, number.into()), Instant::now());
    }
    for (age, expected) in [(0, 1), (30, 3), (200, 20), (1 << 40, 30)] {
        assert_eq!(cache.believed_for(seconds(age)), seconds(expected), "{age}");
    }
    cache.mounts = Mounts::unwatched();
    assert_eq!(cache.believed_for(seconds(1 << 40)), CACHE_FRESH);
}

#[test]
fn after_a_mount_all_is_looked_at_anew_and_kept_if_it_is_the_same() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    let before = cache.load(&root, b"file", start).unwrap();
    cache.files.get_mut(&b"file"[..]).unwrap().believed_until = start + CACHE_FRESH_MAX;
    let later = start + CACHE_FRESH;
    assert!(cache.has(b"file", later));
    cache.mounts.note_changed(later);
    assert!(cache.fresh(b"file", later).is_none());
    assert!(!cache.lacks_sibling(b"file", Coding::Gzip, later));
    let after = cache.ask(&root, b"file", later).unwrap();
    assert!(cache.pending.is_none() && Arc::ptr_eq(&before, &after));
    assert!(cache.has(b"file", later));
}

/// Waits until the kernel has so many watches.
fn until_watched(cache: &Cache, count: usize) {
    let path = format!("/proc/self/fdinfo/{}", cache.inotify.as_raw_fd());
    let watched = || {
        fs::read_to_string(&path)
            .unwrap()
            .matches("inotify wd:")
            .count()
    };
    while watched() != count {
        std::thread::yield_now();
    }
}

/// Makes a file and closes it, which is an event.
fn make_file(path: &Path, length: u64) {
    File::create(path).unwrap().set_len(length).unwrap();
}

#[test]
fn files_kept_open_are_few_and_closed_for_others() {
    let at = tempfile::tempdir().unwrap();
    let (root, mut now) = (beneath(at.path()), Instant::now());
    let limits = CacheLimits {
        open_max: 2,
        ..LIMITS
    };
    let mut cache = Cache::new(limits).unwrap();
    for name in ["1", "2", "3"] {
        make_file(&at.path().join(name), CACHED_CONTENTS_BYTES_MAX + 1);
        now += Duration::from_millis(1);
        cache.load(&root, name.as_bytes(), now).unwrap();
    }
    assert_eq!((cache.files.len(), cache.open.len()), (2, 2));
    assert!(cache.close_files());
    assert_eq!((cache.files.len(), cache.open.len()), (0, 0));
    assert!(!cache.close_files());
}

#[test]
fn who_is_kept_open_takes_the_place_of_another_such_one_only() {
    let at = tempfile::tempdir().unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let limits = CacheLimits {
        open_max: 2,
        ..LIMITS
    };
    let mut cache = Cache::new(limits).unwrap();
    let long = CACHED_CONTENTS_BYTES_MAX + 1;
    let files = [("a", 1), ("1", long), ("b", 1), ("2", long), ("3", long)];
    for (number, (name, length)) in files.into_iter().enumerate() {
        make_file(&at.path().join(name), length);
        let now = start + Duration::from_millis(number as u64);
        if name == "3" {
            // Of the two that are open, one is asked for once more.
            cache.get(b"1", now);
        }
        cache.load(&root, name.as_bytes(), now).unwrap();
    }
    let mut kept: Vec<_> = cache.files.iter().map(|(name, _)| name[0]).collect();
    kept.sort_unstable();
    assert_eq!(kept, *b"13ab");
}

#[test]
fn so_many_files_are_closed_at_a_time() {
    let at = tempfile::tempdir().unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(CacheLimits {
        bytes_max: 8 * 1024 * 1024,
        open_max: 2 * CACHE_INVALIDATIONS_MAX,
    })
    .unwrap();
    let first = at.path().join("0");
    make_file(&first, CACHED_CONTENTS_BYTES_MAX + 1);
    let names: Vec<_> = (0..CACHE_INVALIDATIONS_MAX + 10)
        .map(|number| number.to_string())
        .collect();
    for name in &names[1..] {
        fs::hard_link(&first, at.path().join(name)).unwrap();
    }
    // One descriptor will do for all of them.
    let Ok(Lookup::File(file)) = root.find(b"0", MayBlock::Forever) else {
        panic!("it is there");
    };
    for name in &names {
        for _ in 0..3 {
            cache.catch_up(start);
            cache.note_found(&root, name.as_bytes(), &file, true, start);
            cache.settle();
        }
    }
    assert_eq!(cache.open.len(), names.len());
    let idle = start + CACHE_IDLE;
    assert_eq!(cache.release_idle(idle), Some(idle));
    assert_eq!(cache.open.len(), 10);
    assert_eq!(cache.release_idle(idle), None);
    assert!(cache.open.is_empty() && !cache.close_files());
    assert_eq!((cache.files.len(), cache.file_bytes), (0, 0));
}

#[test]
fn what_sendfile_suits_is_kept_with_its_bytes_if_no_more_can_be_open() {
    let at = tempfile::tempdir().unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let limits = CacheLimits {
        open_max: 2,
        ..LIMITS
    };
    let mut cache = Cache::new(limits).unwrap();
    let lengths = [
        COPIED_BODY_BYTES_MAX,
        COPIED_BODY_BYTES_MAX + 1,
        CACHED_CONTENTS_BYTES_MAX,
        CACHED_CONTENTS_BYTES_MAX,
    ];
    let in_memory = lengths.map(|length| {
        let name = cache.files.len().to_string();
        make_file(&at.path().join(&name), length);
        let kept = cache.load(&root, name.as_bytes(), now).unwrap();
        kept.contents().is_some()
    });
    assert_eq!(in_memory, [true, false, false, true]);
    assert_eq!((cache.files.len(), cache.open.len()), (4, 2));
}

#[test]
fn what_is_asked_for_again_long_after_is_not_watched_but_what_is_kept_stays() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    let loaded = start + CACHE_REUSE_WINDOW;
    let again = loaded + 100 * CACHE_REUSE_WINDOW;
    for at in [start, loaded] {
        assert!(cache.ask(&root, b"file", at).is_none() && cache.pending.is_none());
    }
    assert!(cache.ask(&root, b"file", loaded).is_none() && cache.pending.is_some());
    cache.settle();
    let kept = cache.ask(&root, b"file", loaded).unwrap();
    assert!(
        cache.fresh(b"file", again).is_none(),
        "it is looked at anew"
    );
    let after = cache.ask(&root, b"file", again).unwrap();
    assert!(Arc::ptr_eq(&kept, &after));
}

#[test]
fn nothing_is_kept_open_for_nobody() {
    let at = tempfile::tempdir().unwrap();
    let long = CACHED_CONTENTS_BYTES_MAX + 1;
    for (name, length) in [("short", 1), ("long", long)] {
        make_file(&at.path().join(name), length);
    }
    let (root, start) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"short", start).unwrap();
    assert_eq!(cache.release_idle(start), None, "it isn't open");
    let asked = start + Duration::from_millis(1);
    cache.load(&root, b"long", asked).unwrap();
    let then = asked + CACHE_IDLE;
    assert_eq!(cache.release_idle(start + CACHE_IDLE), Some(then));
    assert_eq!(cache.open.len(), 1);
    assert_eq!(cache.release_idle(then), None);
    assert_eq!((cache.open.len(), cache.files.len()), (0, 1));
    // The short file, and the root.
    assert_eq!(cache.watches.len(), 2);
}

#[test]
fn a_file_that_is_gone_leaves_no_watch() {
    for open_max in [0, 16] {
        let at = tempfile::tempdir().unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let mut cache = Cache::new(CacheLimits { open_max, ..LIMITS }).unwrap();
        let size = match open_max {
            0 => 1,
            _ => CACHED_CONTENTS_BYTES_MAX + 1,
        };
        for number in 0..2 * CACHE_IDLE_DIRECTORIES_MAX {
            let name = format!("{number}/in/file");
            let path = at.path().join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().set_len(size).unwrap();
            let load = cache.load(&root, name.as_bytes(), now);
            assert!(load.is_some());
            fs::remove_file(&path).unwrap();
            assert!(cache.fresh(name.as_bytes(), now).is_none());
        }
        assert!(cache.files.is_empty());
        // Directories in which nothing is watched, and those on the way.
        let watched = cache.watches.len();
        let most = 2 * (LIMITS.bytes_max / CACHE_SPARE_SHARE / CACHE_WATCH_BYTES) + 1;
        assert!(watched > most / 2 && watched <= most, "{watched}");
        until_watched(&cache, watched);
        cache.clear();
        until_watched(&cache, 0);
    }
}

#[test]
fn a_folder_that_is_asked_for_as_a_file_is_watched_as_before() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("folder")).unwrap();
    fs::write(at.path().join("folder/file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    assert!(cache.load(&root, b"folder/file", now).is_some());
    // It was a file when it was asked for.
    cache.watch(&root, b"folder", now);
    cache.settle();
    assert_eq!(cache.watches.len(), 3);
    cache.take_events(now);
    fs::write(at.path().join("folder/new"), b"").unwrap();
    let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
    let event = Reader::new(&*cache.inotify, &mut buffer)
        .next()
        .map(|event| event.events());
    assert_eq!(event, Ok(ReadFlags::CREATE));
}

#[test]
fn what_is_not_there_is_neither_watched_nor_remembered() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("folder")).unwrap();
    let mut root = root(at.path());
    for name in ["none", "folder", "folder/none", "none/none"] {
        for _ in 0..3 {
            let _ = root.find(name.as_bytes(), &[]);
        }
    }
    let cache = root.cache();
    assert!(cache.ghosts.is_empty() && cache.pending.is_none() && cache.thread.is_none());
}

#[test]
fn what_a_thread_has_opened_counts_once_and_is_not_kept() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (beneath, mut root) = (beneath(at.path()), root(at.path()));
    let results = || {
        let Ok(Lookup::File(file)) = beneath.find(b"file", MayBlock::Forever) else {
            panic!("it is there");
        };
        [TaskResult::Opened {
            name: b"file"[..].into(),
            lookup: Ok(Lookup::File(file)),
        }]
    };
    assert!(root.find_file(b"file", &results()).is_ok());
    assert!(root.cache().pending.is_none(), "asked for once");
    assert!(root.find_file(b"file", &results()).is_ok());
    assert!(root.cache().pending.is_some());
    root.cache().settle();
    // A thread opened it some time ago.
    let file = root.find_file(b"file", &results()).unwrap();
    assert!(file.contents().is_none());
    assert!(look(&mut root, "file").unwrap().contents().is_some());
}

#[test]
fn a_file_on_another_machine_is_not_watched() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let mut beneath = RootDir::open(at.path(), false).unwrap();
    beneath.assume(FsClass::Remote);
    let (root, now) = (Arc::new(beneath), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    for _ in 0..3 {
        assert!(cache.ask(&root, b"file", now).is_none());
    }
    assert!(cache.thread.is_none());
    // The thread asks before it watches anything.
    cache.watch(&root, b"file", now);
    cache.settle();
    until_watched(&cache, 0);
}

#[test]
fn names_watches_and_all_else_are_within_the_bound() {
    let at = tempfile::tempdir().unwrap();
    let long = at.path().join("x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(&long).unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let limits = CacheLimits {
        bytes_max: 256 * 1024,
        open_max: 4,
    };
    let mut cache = Cache::new(limits).unwrap();
    for number in 0..1000 {
        let file = format!("{number:z>200}");
        fs::write(long.join(&file), b"").unwrap();
        let name = format!("{:x>200}/{:y>200}/{file}", "", "");
        if number % 2 == 0 {
            cache.load(&root, name.as_bytes(), now);
        } else {
            cache.ask(&root, name.as_bytes(), now);
        }
        assert!(cache.bytes() <= limits.bytes_max);
    }
    let ghosts: usize = cache.ghosts.iter().map(|(name, _)| ghost_bytes(name)).sum();
    let files = cache.files.iter().map(|(name, _)| name.len());
    let files: usize = files.map(|length| length + CACHE_FILE_BYTES).sum();
    assert_eq!((cache.ghost_bytes, cache.file_bytes), (ghosts, files));
    assert!(ghosts > 10_000 && ghosts <= limits.bytes_max / CACHE_SPARE_SHARE);
    assert_eq!(cache.watches.len(), cache.files.len() + 3);
    assert!(cache.files.len() > 50, "{}", cache.files.len());
}

/// A cache of a file with so many names, all of which are kept.
fn many_names(at: &Path, count: usize) -> Cache {
    let (root, now) = (beneath(at), Instant::now());
    let mut cache = Cache::new(CacheLimits {
        bytes_max: 8 * 1024 * 1024,
        open_max: 0,
    })
    .unwrap();
    let first = at.join("0");
    fs::write(&first, b"x").unwrap();
    // Each link touches the file.
    for number in 1..count {
        fs::hard_link(&first, at.join(number.to_string())).unwrap();
    }
    for number in 0..count {
        let name = number.to_string();
        assert!(cache.load(&root, name.as_bytes(), now).is_some());
    }
    assert_eq!(cache.files.len(), count);
    until_watched(&cache, 2);
    cache
}

#[test]
fn one_change_forgets_so_many_names_one_by_one_and_beyond_that_all_at_once() {
    let touch_file: fn(&Path) = |at| {
        let file = File::options().append(true).open(at.join("0")).unwrap();
        file.set_len(9).unwrap();
    };
    let touch_directory: fn(&Path) = |at| {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at, mode).unwrap();
    };
    let few = CACHE_INVALIDATIONS_MAX / 2;
    let many = CACHE_INVALIDATIONS_MAX + 1;
    for (count, change, still_watched) in [
        (few, touch_file, 1),
        (many, touch_file, 0),
        (many, touch_directory, 0),
    ] {
        let at = tempfile::tempdir().unwrap();
        let mut cache = many_names(at.path(), count);
        change(at.path());
        assert!(cache.fresh(b"1", Instant::now()).is_none());
        assert!(cache.files.is_empty());
        assert_eq!((cache.watches.len(), cache.file_bytes), (still_watched, 0));
        until_watched(&cache, still_watched);
    }
}

/// Makes so many events that none is like the one before it, which would not be queued.
fn make_events(at: &Path, count: usize) {
    for number in 0..count.div_ceil(2) {
        let path = at.join((number % 2).to_string());
        fs::write(&path, b"").unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_look_up_takes_in_so_many_events_and_no_more() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"file", now).unwrap();
    make_events(at.path(), CACHE_EVENTS_MAX - 10);
    assert!(cache.has(b"file", now));
    make_events(at.path(), 3 * CACHE_EVENTS_MAX);
    assert!(cache.fresh(b"file", now).is_none());
    assert!(cache.files.is_empty() && cache.watches.is_empty());
    // What is left of them concerns nobody, and keeps nobody busy.
    until_watched(&cache, 0);
    for _ in 0..3 {
        assert!(cache.ask(&root, b"file", now).is_none());
        assert!(cache.pending.is_none(), "not at once");
    }
    let later = now + CACHE_FRESH;
    assert!(cache.ask(&root, b"file", later).is_none());
    cache.settle();
    assert!(cache.ask(&root, b"file", later).is_some());
}

#[test]
fn too_many_events_while_a_name_is_being_watched_are_seen() {
    let at = tempfile::tempdir().unwrap();
    for name in ["file", "other"] {
        fs::write(at.path().join(name), b"x").unwrap();
    }
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"file", now).unwrap();
    for _ in 0..2 {
        cache.ask(&root, b"other", now);
    }
    let way = cache.thread.as_ref().unwrap().wait();
    for _ in 0..3 {
        make_events(at.path(), CACHE_EVENTS_MAX / 2);
        cache.fresh(b"file", now);
    }
    assert!(cache.pending.as_ref().unwrap().is_void);
    cache.note_watched(&way);
    assert!(cache.has(b"file", now));
    assert!(cache.ask(&root, b"other", now).is_none());
    assert_eq!(cache.files.len(), 1);
    // It is tried again.
    cache.settle();
    assert!(cache.ask(&root, b"other", now).is_some());
}

#[test]
fn a_thread_that_has_died_is_replaced() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"file", now).unwrap();
    cache.thread = Some(WatchThread::dead());
    fs::write(at.path().join("other"), b"x").unwrap();
    for _ in 0..2 {
        assert!(cache.ask(&root, b"other", now).is_none());
    }
    assert!(cache.fresh(b"file", now).is_none());
    assert!(cache.thread.is_none() && cache.watches.is_empty());
    assert!(cache.load(&root, b"file", now).is_some());
}

#[test]
fn events_that_were_lost_clear_everything() {
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    let (root, now) = (beneath(at.path()), Instant::now());
    let mut cache = Cache::new(LIMITS).unwrap();
    cache.load(&root, b"file", now).unwrap();
    make_events(at.path(), queue + 2);
    assert!(cache.fresh(b"file", now).is_none());
    assert!(cache.watches.is_empty());
    until_watched(&cache, 0);
}

// ---- siblings ----

/// A change beside a file with 8 bytes that was last changed at 1,000 s, and what its sibling in brotli
/// is then.
type SiblingChange = (&'static str, fn(&Path), Option<&'static [u8]>);

fn set_modified(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    file.set_modified(time).unwrap();
}

const SIBLING_CHANGES: &[SiblingChange] = &[
    (
        "it is written",
        |at| fs::write(at.join("file.br"), b"br").unwrap(),
        Some(b"br"),
    ),
    (
        "it is moved there",
        |at| {
            fs::rename(at.join("new"), at.join("file.br")).unwrap();
        },
        Some(b"new"),
    ),
    (
        "it is overwritten",
        |at| fs::write(at.join("file.br"), b"again").unwrap(),
        Some(b"again"),
    ),
    (
        "it becomes older",
        |at| set_modified(&at.join("file.br"), 999),
        None,
    ),
    (
        "it becomes as new",
        |at| set_modified(&at.join("file.br"), 1_000),
        Some(b"again"),
    ),
    (
        "the file becomes newer",
        |at| set_modified(&at.join("file"), 1_001),
        None,
    ),
    (
        "the file is set back",
        |at| set_modified(&at.join("file"), 1_000),
        Some(b"again"),
    ),
    (
        "the file is written",
        |at| fs::write(at.join("file"), b"file two").unwrap(),
        None,
    ),
    (
        "the file is aged",
        |at| set_modified(&at.join("file"), 1_000),
        Some(b"again"),
    ),
    (
        "it is removed",
        |at| fs::remove_file(at.join("file.br")).unwrap(),
        None,
    ),
    (
        "a folder has its name",
        |at| fs::create_dir(at.join("file.br")).unwrap(),
        None,
    ),
    (
        "nothing has",
        |at| fs::remove_dir(at.join("file.br")).unwrap(),
        None,
    ),
    (
        "a link that leads nowhere",
        |at| symlink("target", at.join("file.br")).unwrap(),
        None,
    ),
    (
        "the link leads somewhere",
        |at| fs::write(at.join("target"), b"target").unwrap(),
        Some(b"target"),
    ),
    (
        "the link leads out",
        |at| {
            fs::remove_file(at.join("file.br")).unwrap();
            symlink("/etc/hostname", at.join("file.br")).unwrap();
        },
        None,
    ),
    (
        "nothing has, once more",
        |at| fs::remove_file(at.join("file.br")).unwrap(),
        None,
    ),
    (
        "a second name of another file",
        |at| {
            fs::hard_link(at.join("target"), at.join("file.br")).unwrap();
        },
        Some(b"target"),
    ),
    (
        "which is written by its first",
        |at| fs::write(at.join("target"), b"more").unwrap(),
        Some(b"more"),
    ),
];

/// What is sent for a file to who takes brotli: nothing, if there is no sibling.
fn sibling(root: &mut Root, name: &str) -> Option<Vec<u8>> {
    let file = look(root, name).unwrap();
    let found = root.find_sibling(name.as_bytes(), &file, Coding::Brotli, &[]);
    root.cache().settle();
    let sibling = found.unwrap()?;
    let mut bytes = vec![0; sibling.length() as usize];
    sibling.read_blocking(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn whoever_asks_after_a_change_has_the_sibling_that_is_there() {
    // However often it was asked for before: not at all, once, and until all is kept.
    for looks in [0, 1, 5] {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("d")).unwrap();
        let folder = at.path().join("d");
        fs::write(folder.join("file"), b"file one").unwrap();
        fs::write(folder.join("new"), b"new").unwrap();
        set_modified(&folder.join("file"), 1_000);
        let mut root = root(at.path());
        let mut expected = None;
        for (what, change, after) in SIBLING_CHANGES {
            for _ in 0..looks {
                assert_eq!(
                    sibling(&mut root, "d/file").as_deref(),
                    expected,
                    "before {what}"
                );
            }
            change(&folder);
            expected = *after;
            assert_eq!(
                sibling(&mut root, "/d/file").as_deref(),
                expected,
                "{what}, {looks}"
            );
        }
    }
}

#[test]
fn that_there_is_no_sibling_is_kept_for_a_second() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("file"), b"x").unwrap();
    symlink("nowhere", at.path().join("file.zst")).unwrap();
    let mut root = root(at.path());
    assert!(is_kept(&mut root, "file"));
    let file = look(&mut root, "file").unwrap();
    for coding in Coding::ALL {
        let found = root.find_sibling(b"file", &file, coding, &[]).unwrap();
        assert!(found.is_none(), "{coding:?}");
        let now = root.cache().files.peek(&b"file"[..]).unwrap().looked_at;
        // A link's end may come to be where nobody watches.
        let is_known = coding != Coding::Zstd;
        assert_eq!(
            root.cache().lacks_sibling(b"file", coding, now),
            is_known,
            "{coding:?}"
        );
        assert!(
            !root
                .cache()
                .lacks_sibling(b"file", coding, now + CACHE_FRESH)
        );
    }
    // A later look at the file is none at what lies beside it.
    let directory = beneath(at.path());
    let Ok(Lookup::File(file)) = directory.find(b"file", MayBlock::Forever) else {
        panic!("it is there")
    };
    let later = Instant::now() + CACHE_FRESH;
    let kept = root
        .cache()
        .note_found(&directory, b"file", &file, true, later);
    assert!(kept.is_some());
    assert!(!root.cache().lacks_sibling(b"file", Coding::Gzip, later));
    // What a thread found some time ago is not.
    fs::write(at.path().join("other"), b"x").unwrap();
    assert!(is_kept(&mut root, "other"));
    let other = look(&mut root, "other").unwrap();
    let earlier = TaskResult::Opened {
        name: Box::from(*b"other.gz"),
        lookup: Err(LookupError::Refused(crate::root::NO_SUCH_FILE)),
    };
    let found = root.find_sibling(b"other", &other, Coding::Gzip, &[earlier]);
    assert!(found.unwrap().is_none());
    let now = root.cache().files.peek(&b"other"[..]).unwrap().looked_at;
    assert!(!root.cache().lacks_sibling(b"other", Coding::Gzip, now));
}
