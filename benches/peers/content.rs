//! The files that are served: their bytes follow from their offsets, so that any part of an answer
//! can be checked without the file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{Advice, fadvise, syncfs};

use crate::Result;

/// The bytes repeat after so many: a prime, so that no two pages of a file are alike.
const PERIOD_BYTES: usize = 1_048_583;

/// How old a file is when it is served first: all its validators are final.
const AGE: Duration = Duration::from_millis(1_100);

/// A file that is served.
#[derive(Debug)]
pub struct Content {
    /// Its name, in the folder that is served.
    pub name: String,
    /// In bytes.
    pub length: u64,
    pattern: Arc<Vec<u8>>,
}

/// Makes the files of a folder.
#[derive(Debug)]
pub struct Maker {
    pattern: Arc<Vec<u8>>,
}

impl Maker {
    /// The same bytes in every run.
    pub fn new() -> Self {
        let mut pattern = vec![0; PERIOD_BYTES];
        ChaCha8Rng::seed_from_u64(1).fill(&mut pattern[..]);
        Self {
            pattern: Arc::new(pattern),
        }
    }

    /// Writes a file, to the disk itself.
    pub fn make(&self, folder: &Path, name: &str, length: u64) -> Result<Content> {
        let mut files = self.make_all(folder, [(name.to_owned(), length)])?;
        Ok(files.remove(0))
    }

    /// Writes several, by their names and lengths.
    pub fn make_all(
        &self,
        folder: &Path,
        files: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Vec<Content>> {
        let written = files.into_iter().map(|(name, length)| {
            self.write(&folder.join(&name), length)?;
            Ok(Content {
                name,
                length,
                pattern: self.pattern.clone(),
            })
        });
        let written = written.collect::<Result<_>>()?;
        // Pages that wait for the disk would be written while servers are measured.
        syncfs(File::open(folder)?)?;
        // Heads must not change, and a file that has just changed has no validators.
        thread::sleep(AGE);
        Ok(written)
    }

    fn write(&self, path: &Path, length: u64) -> Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut rest = length;
        while rest > 0 {
            let part = rest.min(PERIOD_BYTES as u64);
            file.write_all(&self.pattern[..part as usize])?;
            rest -= part;
        }
        Ok(file.flush()?)
    }
}

impl Content {
    /// Compares a part of an answer.
    pub fn compare(&self, offset: u64, mut bytes: &[u8]) -> Result<()> {
        let mut at = (offset % PERIOD_BYTES as u64) as usize;
        while !bytes.is_empty() {
            let part = bytes.len().min(PERIOD_BYTES - at);
            if bytes[..part] != self.pattern[at..at + part] {
                return Err(format!("wrong bytes in {} from {offset} on", self.name).into());
            }
            (at, bytes) = (0, &bytes[part..]);
        }
        Ok(())
    }

    /// Drops the file from the page cache, so that the next read comes from the disk.
    pub fn make_cold(&self, folder: &Path) -> Result<()> {
        let file = File::open(folder.join(&self.name))?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    }
}
