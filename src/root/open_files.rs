//! Files that connections hold open: one descriptor for one version of a file.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::file::version::FileVersion;
use crate::file::{LookupError, OpenFile, Semaphore};
use crate::limits::OPEN_FILES_SWEEP_MIN;

/// The files that are open, by their versions, and how many may be.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) by_version: BTreeMap<FileVersion, Weak<OpenFile>>,
    sweep_at: usize,
    /// The descriptors that they may have.
    pub(super) descriptors: Semaphore,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self {
            by_version: BTreeMap::new(),
            sweep_at: OPEN_FILES_SWEEP_MIN,
            descriptors: Semaphore::new(u64::MAX),
        }
    }
}

impl OpenFiles {
    /// The handle on the same version that a connection has already, or else this one, if a descriptor
    /// is left for it.
    pub(super) fn share(&mut self, opened: Arc<OpenFile>) -> Result<Arc<OpenFile>, LookupError> {
        let version = opened.version();
        if let Some(shared) = self.by_version.get(&version).and_then(Weak::upgrade) {
            shared.note_seen_again(&opened);
            return Ok(shared);
        }
        if !opened.acquire_descriptor(&self.descriptors) {
            return Err(LookupError::NoDescriptor);
        }
        if self.by_version.len() >= self.sweep_at {
            self.by_version.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = OPEN_FILES_SWEEP_MIN.max(2 * self.by_version.len());
        }
        self.by_version.insert(version, Arc::downgrade(&opened));
        Ok(opened)
    }
}
