//! What a body is sent by, bytes and parts of files; and bodies that are made piece by piece while they are
//! sent. A disk thread makes a piece: some bytes, and after them perhaps a part of a file, which it has
//! opened. So nobody holds more than one piece, and the loop neither computes nor opens anything.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::fs_class::{MayBlock, Mount};
use super::open_file::OpenFile;
use super::semaphore::Permit;
use super::thread_pool::ThreadPool;
use crate::limits::TASK_RESULT_BYTES_MAX;

/// Consecutive bytes of a body that are sent in the same way.
#[derive(Clone, Copy, Debug)]
pub enum Segment<'a> {
    /// Bytes in memory.
    Bytes(&'a [u8]),
    /// A part of an open file.
    File {
        /// The file.
        file: &'a Arc<OpenFile>,
        /// Where the part begins, in bytes.
        start: u64,
        /// How long it is, in bytes.
        length: u64,
    },
    /// A part of a body that a disk thread has to make first.
    Piece {
        /// The body.
        of: &'a Arc<dyn Pieces>,
        /// Where the part begins in it, in bytes.
        start: u64,
        /// How long it is, in bytes.
        length: u64,
    },
}

impl OpenFile {
    /// A part of the file, which must not reach beyond its length.
    #[must_use]
    pub fn segment(self: &Arc<Self>, start: u64, length: u64) -> Segment<'_> {
        match self.contents() {
            None => Segment::File {
                file: self,
                start,
                length,
            },
            // What is in memory is no longer than an address.
            Some(contents) => Segment::Bytes(&contents[start as usize..][..length as usize]),
        }
    }
}

/// A body of which every part can be made at any time. Its length is known before the first one is.
pub trait Pieces: fmt::Debug + Send + Sync {
    /// How long it is, in bytes.
    fn length(&self) -> u64;

    /// Makes the piece that begins at `range.start`; nothing is needed from `range.end` on. Of bytes it has
    /// at most [`TASK_RESULT_BYTES_MAX`], and it isn't empty. May wait.
    ///
    /// # Errors
    /// See [`PieceError`].
    fn make(&self, range: Range<u64>, may_block: MayBlock) -> Result<Piece, PieceError>;
}

/// Why a piece can't be made.
#[derive(Debug)]
pub enum PieceError {
    /// It is made of what is on this mount, which may never answer: a remote thread must do it.
    OtherMount(Mount),
    /// It can't be what was promised: what it is made of has changed.
    Changed,
    /// Something can't be read.
    Failed(io::Error),
}

/// Consecutive bytes of such a body.
#[derive(Debug)]
pub struct Piece {
    /// Where it begins.
    start: u64,
    /// What it begins with.
    bytes: Vec<u8>,
    /// What follows the bytes.
    file: Option<(Arc<OpenFile>, Range<u64>)>,
    /// The memory that the bytes have of what all results may have.
    permit: Option<Permit>,
}

impl Piece {
    /// A piece that begins there with these bytes, and goes on with a part of a file.
    #[must_use]
    pub fn new(start: u64, bytes: Vec<u8>, file: Option<(Arc<OpenFile>, Range<u64>)>) -> Self {
        let permit = None;
        Self {
            start,
            bytes,
            file,
            permit,
        }
    }

    /// What comes at an offset of the body, at most so many bytes, if this piece has it.
    #[must_use]
    pub fn segment(&self, at: u64, most: u64) -> Option<Segment<'_>> {
        let within = at.checked_sub(self.start)?;
        let length = self.bytes.len() as u64;
        if within < length {
            let most = most.min(length - within);
            // Both lie within the bytes.
            return Some(Segment::Bytes(
                &self.bytes[within as usize..][..most as usize],
            ));
        }
        let (file, part) = self.file.as_ref()?;
        let start = part.start + (within - length);
        let left = part.end.checked_sub(start).filter(|&left| left > 0)?;
        Some(file.segment(start, left.min(most)))
    }

    /// What is kept during a pause before the byte at `at`: bytes that are still to be sent, if there is
    /// enough room for what all keep, and an open file.
    #[must_use]
    pub fn keep_from(mut self, at: u64) -> Option<Self> {
        self.segment(at, 1)?;
        if at < self.start + self.bytes.len() as u64 {
            let is_scarce = self.permit.as_ref().is_some_and(Permit::is_scarce);
            return (!is_scarce).then_some(self);
        }
        self.start += self.bytes.len() as u64;
        (self.bytes, self.permit) = (Vec::new(), None);
        Some(self)
    }

    /// Takes the memory for its bytes out of a permit, and has threads close its file where close(2) may wait.
    pub(super) fn hold(&mut self, permit: Option<Permit>, closer: &ThreadPool, mount: Mount) {
        self.permit = permit.filter(|_| !self.bytes.is_empty());
        if let Some(permit) = &mut self.permit {
            // It was enough for the longest.
            let _ = permit.resize(self.bytes.len() as u64);
        }
        if let Some((file, _)) = &self.file {
            file.defer_close_to(closer, mount);
        }
    }
}

/// A piece to be made.
#[derive(Debug)]
pub struct PieceTask {
    of: Arc<dyn Pieces>,
    range: Range<u64>,
}

impl PieceTask {
    /// The piece that begins at `start`; `length` bytes from there are wanted at most.
    #[must_use]
    pub fn new(of: &Arc<dyn Pieces>, start: u64, length: u64) -> Self {
        let (of, range) = (Arc::clone(of), start..start + length);
        Self { of, range }
    }

    pub(super) fn run(&self, may_block: MayBlock) -> Result<Piece, PieceError> {
        self.of.make(self.range.clone(), may_block)
    }

    /// The memory that its bytes may take.
    pub(super) fn kept_bytes() -> u64 {
        TASK_RESULT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::super::semaphore::Semaphore;
    use super::super::{FsClass, version::Snapshot};
    use super::*;
    use std::io::Write as _;

    fn piece() -> Piece {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let state = Snapshot::of(&file).unwrap();
        let file = Arc::new(OpenFile::new(file, state, FsClass::InMemory));
        Piece::new(100, b"abc".to_vec(), Some((file, 4..8)))
    }

    /// What a segment shows: bytes, or which part of a file.
    fn shown(segment: Option<Segment<'_>>) -> String {
        match segment {
            None => "none".into(),
            Some(Segment::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            Some(Segment::File { start, length, .. }) => format!("{start}+{length}"),
            Some(Segment::Piece { .. }) => unreachable!("a piece is made"),
        }
    }

    #[test]
    fn a_piece_is_bytes_and_then_a_part_of_a_file() {
        let piece = piece();
        for (at, most, expected) in [
            (99, 9, "none"),
            (100, 9, "abc"),
            (101, 1, "b"),
            (103, 9, "4+4"),
            (105, 1, "6+1"),
            (106, 9, "7+1"),
            (107, 9, "none"),
            (u64::MAX, 9, "none"),
        ] {
            assert_eq!(shown(piece.segment(at, most)), expected, "{at} {most}");
        }
        let only_bytes = Piece::new(0, b"x".to_vec(), None);
        assert_eq!(shown(only_bytes.segment(1, 1)), "none");
    }

    #[test]
    fn in_a_pause_bytes_are_kept_unless_memory_is_scarce_and_a_file_always() {
        let memory = Semaphore::new(10);
        let held = || {
            let mut piece = piece();
            piece.hold(memory.try_acquire(5), &ThreadPool::new(1), Mount::default());
            piece
        };
        let piece = held().keep_from(101).unwrap();
        assert_eq!(shown(piece.segment(101, 9)), "bc");
        assert!(memory.try_acquire(8).is_none() && memory.try_acquire(7).is_some());
        let piece = piece.keep_from(104).unwrap();
        assert_eq!(shown(piece.segment(104, 9)), "5+3");
        assert!(memory.try_acquire(10).is_some(), "the bytes are gone");
        assert!(piece.keep_from(107).is_none() && held().keep_from(99).is_none());
        let (piece, _others) = (held(), memory.try_acquire(4));
        assert!(piece.keep_from(101).is_none(), "it is made again");
        assert!(held().keep_from(103).is_some());
    }
}
