//! Hashes of what files hold. To find one out all of the file is read, which threads do: until one has, nobody
//! waits for it. What is known is remembered by version, so that a changed file has none of before.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::open_file::OpenFile;
use super::thread_pool::ThreadPool;
use super::version::{FileVersion, Trust};
use crate::limits::{DIGEST_BUFFER_BYTES, DIGEST_THREADS_MAX, DIGESTS_MAX, DIGESTS_UNDER_WAY_MAX};

/// SHA-256 (FIPS 180-4).
pub type ContentDigest = [u8; 32];

/// Those of a server's files. All loops share them.
#[derive(Clone)]
pub struct Digests {
    state: Arc<Mutex<State>>,
    pool: ThreadPool,
}

struct State {
    known: LruCache<FileVersion, ContentDigest>,
    /// Each holds its file open.
    under_way: HashSet<FileVersion>,
}

impl Default for Digests {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                known: LruCache::new(DIGESTS_MAX),
                under_way: HashSet::new(),
            })),
            // One thread a mount: it is as fast as a disk, and the loops need processors, too.
            pool: ThreadPool::with_lanes(DIGEST_THREADS_MAX, 1),
        }
    }
}

impl Digests {
    /// The digest of a file's bytes, if it is known; else a thread begins to find it out. There is none of a
    /// version that can't be told from a later one.
    #[must_use]
    pub fn of(&self, file: &Arc<OpenFile>) -> Option<ContentDigest> {
        if file.facts().trust < Trust::Stamp {
            return None;
        }
        let version = file.version();
        let mut state = self.state();
        if let Some(digest) = state.known.get(&version) {
            return Some(*digest);
        }
        // Who asks later begins it then.
        if state.under_way.len() < DIGESTS_UNDER_WAY_MAX && state.under_way.insert(version) {
            drop(state);
            let (digests, on, file) = (self.clone(), file.mount(), Arc::clone(file));
            self.pool.run(on, move || digests.find_out(&file));
        }
        None
    }

    fn find_out(&self, file: &OpenFile) {
        let digest = digest(file);
        let version = file.version();
        let mut state = self.state();
        state.under_way.remove(&version);
        match digest {
            Ok(Some(digest)) => drop(state.known.put(version, digest)),
            Ok(None) => log::debug!("a file has changed while it was hashed"),
            Err(error) => log::debug!("a file can't be hashed: {error}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digests")
            .field("known", &self.state().known.len())
            .finish_non_exhaustive()
    }
}

/// `None` if it isn't the version any more that it was when it was opened. That is looked at after each buffer, so
/// that of a file that grows all the time no more is read than that.
fn digest(file: &OpenFile) -> io::Result<Option<ContentDigest>> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut buffer = vec![0; DIGEST_BUFFER_BYTES];
    while at < file.length() {
        let count = file.read_blocking(&mut buffer, at)?;
        if count == 0 || file.version_now()? != file.version() {
            return Ok(None);
        }
        hash.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(Some(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FsClass;
    use crate::file::version::Snapshot;
    use std::fs::{self, File};
    use std::path::Path;

    /// As if it had been opened when its stamp was old.
    fn open(path: &Path) -> Arc<OpenFile> {
        let file = File::open(path).unwrap();
        let mut state = Snapshot::of(&file).unwrap();
        state.clock.0 += 10;
        Arc::new(OpenFile::new(file, state, FsClass::Nowait))
    }

    #[test]
    fn a_digest_is_of_all_bytes_of_one_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, DIGEST_BUFFER_BYTES, 2 * DIGEST_BUFFER_BYTES + 1] {
            let bytes = vec![5; length];
            fs::write(&path, &bytes).unwrap();
            let found = digest(&open(&path)).unwrap();
            assert_eq!(found, Some(Sha256::digest(&bytes).into()), "{length}");
        }
        let file = open(&path);
        fs::write(&path, "another").unwrap();
        assert_eq!(digest(&file).unwrap(), None);
        assert!(digest(&open(folder.path())).is_err(), "a folder");
    }

    #[test]
    fn what_is_under_way_is_bounded_and_what_is_known_is_by_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "bytes").unwrap();
        let (file, digests) = (open(&path), Digests::default());
        let other = |number: usize| {
            let mut version = file.version();
            version.inode += 1 + number as u64;
            version
        };
        let many = (0..DIGESTS_UNDER_WAY_MAX).map(other);
        digests.state().under_way.extend(many);
        assert_eq!(digests.of(&file), None);
        assert!(!digests.state().under_way.contains(&file.version()));
        digests.state().under_way.clear();
        let found = loop {
            if let Some(found) = digests.of(&file) {
                break found;
            }
            std::thread::yield_now();
        };
        assert_eq!(found, ContentDigest::from(Sha256::digest("bytes")));
        assert!(digests.state().under_way.is_empty());
        fs::write(&path, "of another length").unwrap();
        assert_ne!(digests.of(&open(&path)), Some(found));
        // Of what can't be told from later versions there is none, and nothing begins.
        let young = File::open(&path).unwrap();
        let mut state = Snapshot::of(&young).unwrap();
        state.clock = (0, 0);
        let young = Arc::new(OpenFile::new(young, state, FsClass::Nowait));
        let digests = Digests::default();
        assert_eq!(digests.of(&young), None);
        assert!(digests.state().under_way.is_empty());
    }
}
