//! Whether the bytes that come are the right ones: compared while they stream, never stored.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use xxhash_rust::xxh64::Xxh64;

use crate::limits::SOAK_BLOCK_BYTES;

/// What a body must be.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A local file: it is opened for each body, unless it is held open.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its length when the run began, in bytes.
        length: u64,
        /// Held open for all bodies.
        open: Option<Rc<File>>,
    },
    /// What a first download was like.
    Blocks(Rc<Blocks>),
}

impl Reference {
    /// The length that a body must have, in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Blocks(blocks) => blocks.length,
        }
    }

    /// A checker for one body.
    /// An error: the local file can't be opened.
    pub fn checker(&self) -> io::Result<Checker> {
        Ok(match self {
            Self::File {
                open: Some(file), ..
            } => Checker::File(Rc::clone(file)),
            Self::File { path, .. } => Checker::File(Rc::new(File::open(path)?)),
            Self::Blocks(blocks) => Checker::Blocks(Rc::clone(blocks), Box::default()),
        })
    }
}

/// A body's length, and a hash of each of its blocks.
#[derive(Debug, Default)]
pub struct Blocks {
    length: u64,
    hashes: Vec<u64>,
}

/// Compares one body.
#[allow(missing_debug_implementations, reason = "the hash's state has none")]
pub enum Checker {
    /// Takes everything.
    Nothing,
    /// Compares with a file.
    File(Rc<File>),
    /// Compares with a first download, a block at a time.
    Blocks(Rc<Blocks>, Box<Xxh64>),
    /// Learns what a body is like.
    Learn(Blocks, Box<Xxh64>),
}

/// The first byte that was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its offset in the body; that of its block where only blocks are known.
    pub offset: u64,
    /// How many bytes it is one of: 1, or a block.
    pub among: u64,
}

impl Checker {
    /// Takes the bytes that follow those before; `offset` says how many these were. The buffer is
    /// for reading the file.
    /// An error is the first byte that differs.
    pub fn take(&mut self, offset: u64, bytes: &[u8], buffer: &mut [u8]) -> Result<(), Mismatch> {
        match self {
            Self::Nothing => Ok(()),
            Self::File(file) => compare(file, offset, bytes, buffer),
            Self::Blocks(blocks, hasher) => each_block(offset, bytes, hasher, |index, hash| {
                match blocks.hashes.get(index) {
                    Some(&right) if right == hash => Ok(()),
                    _ => Err(block_mismatch(index)),
                }
            }),
            Self::Learn(blocks, hasher) => each_block(offset, bytes, hasher, |_, hash| {
                blocks.hashes.push(hash);
                Ok(())
            }),
        }
    }

    /// The body has ended after `length` bytes: checks the last block, which may be a short one.
    /// An error: it is wrong.
    pub fn finish(&mut self, length: u64) -> Result<(), Mismatch> {
        match self {
            Self::Blocks(blocks, hasher) if !length.is_multiple_of(SOAK_BLOCK_BYTES) => {
                match blocks.hashes.last() {
                    Some(&right) if right == hasher.digest() => Ok(()),
                    _ => Err(block_mismatch((length / SOAK_BLOCK_BYTES) as usize)),
                }
            }
            Self::Learn(blocks, hasher) => {
                if !length.is_multiple_of(SOAK_BLOCK_BYTES) {
                    blocks.hashes.push(hasher.digest());
                }
                blocks.length = length;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What was learnt, if that was what it was for.
    pub fn into_reference(self) -> Option<Reference> {
        match self {
            Self::Learn(blocks, _) => Some(Reference::Blocks(Rc::new(blocks))),
            _ => None,
        }
    }
}

fn block_mismatch(index: usize) -> Mismatch {
    Mismatch {
        offset: index as u64 * SOAK_BLOCK_BYTES,
        among: SOAK_BLOCK_BYTES,
    }
}

/// A file that is shorter than it was, or can't be read, differs where it ends.
fn compare(
    file: &File,
    mut offset: u64,
    mut bytes: &[u8],
    buffer: &mut [u8],
) -> Result<(), Mismatch> {
    while !bytes.is_empty() {
        let most = bytes.len().min(buffer.len());
        let count = file.read_at(&mut buffer[..most], offset).unwrap_or(0);
        let (came, rest) = bytes.split_at(count);
        let same = came
            .iter()
            .zip(&buffer[..count])
            .take_while(|(a, b)| a == b);
        // Slices compare faster than bytes one by one, and nearly all are equal.
        if count == 0 || came != &buffer[..count] {
            let offset = offset + same.count() as u64;
            return Err(Mismatch { offset, among: 1 });
        }
        offset += count as u64;
        bytes = rest;
    }
    Ok(())
}

/// Hashes the bytes and calls `whole` with the index and hash of each block that they end.
fn each_block(
    mut offset: u64,
    mut bytes: &[u8],
    hasher: &mut Xxh64,
    mut whole: impl FnMut(usize, u64) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    while !bytes.is_empty() {
        let room = SOAK_BLOCK_BYTES - offset % SOAK_BLOCK_BYTES;
        let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
        hasher.update(now);
        if now.len() as u64 == room {
            whole((offset / SOAK_BLOCK_BYTES) as usize, hasher.digest())?;
            hasher.reset(0);
        }
        offset += now.len() as u64;
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 7 % 251) as u8).collect()
    }

    fn run(checker: &mut Checker, body: &[u8], piece: usize) -> Result<(), Mismatch> {
        let (mut offset, mut buffer) = (0, vec![0; 1000]);
        for piece in body.chunks(piece) {
            checker.take(offset, piece, &mut buffer)?;
            offset += piece.len() as u64;
        }
        checker.finish(offset)
    }

    #[test]
    fn a_file_tells_the_first_wrong_byte() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut body = body(40_000);
        file.write_all(&body).expect("written");
        let file = Rc::new(file);
        for piece in [1, 999, 1000, 1001, 65_536] {
            assert_eq!(
                run(&mut Checker::File(Rc::clone(&file)), &body, piece),
                Ok(())
            );
        }
        body.push(b'x');
        let extra = Mismatch {
            offset: 40_000,
            among: 1,
        };
        assert_eq!(
            run(&mut Checker::File(Rc::clone(&file)), &body, 7000),
            Err(extra)
        );
        body[12_345] ^= 1;
        let wrong = Mismatch {
            offset: 12_345,
            among: 1,
        };
        assert_eq!(run(&mut Checker::File(file), &body, 7000), Err(wrong));
    }

    #[test]
    fn a_first_download_tells_the_wrong_block() {
        let block = SOAK_BLOCK_BYTES as usize;
        for length in [1, block - 1, block, block + 1, 3 * block] {
            let right = body(length);
            let mut learning = Checker::Learn(Blocks::default(), Box::default());
            run(&mut learning, &right, 777).expect("it learns");
            let reference = learning.into_reference().expect("it has learnt");
            assert_eq!(reference.length(), length as u64);
            for piece in [100, block, 65_536] {
                let mut checker = reference.checker().expect("a checker");
                assert_eq!(
                    run(&mut checker, &right, piece),
                    Ok(()),
                    "{length} by {piece}"
                );
                let mut flipped = right.clone();
                flipped[length - 1] ^= 1;
                let mut checker = reference.checker().expect("a checker");
                let wrong = block_mismatch((length - 1) / block);
                assert_eq!(
                    run(&mut checker, &flipped, piece),
                    Err(wrong),
                    "{length} by {piece}"
                );
            }
        }
    }
}
