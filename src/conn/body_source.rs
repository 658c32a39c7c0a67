//! Where the next bytes of a file come from while it is sent: from the file itself if that is known
//! not to wait, else from a disk thread. A part of Sending.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::conn::transport::Transport;
use crate::file::{
    Chunk, ChunkBytes, DiskTask, OpenFile, Permit, PieceError, PieceTask, Pieces, Probe, ReadError,
    ReadTask,
};

/// Why no more of a body could be sent.
pub(super) enum SendError {
    WouldBlock,
    Socket(io::Error),
    File(io::Error),
    FileEnded,
    /// What is sent can't be what was promised any more.
    Changed,
    /// A disk thread has to do this first.
    Awaits(DiskTask),
}

impl SendError {
    /// A disk thread has to make what comes next of a body.
    pub(super) fn unmade(of: &Arc<dyn Pieces>, start: u64, length: u64) -> Self {
        Self::Awaits(DiskTask::Make(PieceTask::new(of, start, length)))
    }
}

impl From<PieceError> for SendError {
    fn from(error: PieceError) -> Self {
        match error {
            // It leads further than a remote thread may go: nowhere.
            PieceError::Changed | PieceError::OtherMount(_) => Self::Changed,
            PieceError::Failed(error) => Self::File(error),
        }
    }
}

impl From<io::Error> for SendError {
    /// An error of the socket.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock => Self::WouldBlock,
            _ => Self::Socket(error),
        }
    }
}

#[derive(Debug)]
pub(super) enum BodySource {
    /// Whether the next bytes are in memory was not asked in this step.
    Unknown,
    /// These were in memory a moment ago.
    Warm(Range<u64>),
    /// A disk thread reads, or makes a piece, since then.
    Awaited(Instant),
    /// A disk thread has read these. What is missing of the range is beyond the file's end.
    Fetched(Range<u64>, Box<ChunkBytes>),
}

impl From<Chunk> for BodySource {
    fn from(Chunk { range, kept }: Chunk) -> Self {
        match kept {
            None => Self::Warm(range),
            Some(kept) => Self::Fetched(range, kept),
        }
    }
}

impl BodySource {
    /// How many of the bytes that sendfile shall send don't have to be waited for. `wanted` is where
    /// they begin, how many they are, and where the last that this body needs ends. What isn't in
    /// memory is read by a disk thread, `cold` bytes of it.
    pub(super) fn warm<T: Transport>(
        &mut self,
        file: &Arc<OpenFile>,
        wanted: (u64, usize, u64),
        ends: Probe,
        cold: u64,
        transport: &mut T,
        now: Instant,
    ) -> Result<usize, SendError> {
        let (start, count, end) = wanted;
        let range = start..start + count as u64;
        match self {
            // What was just read is sent without a question, or it might never be.
            Self::Warm(range) if range.contains(&start) => {
                let left = range.end - start;
                // At most `count`.
                Ok(left.min(count as u64) as usize)
            }
            _ if file.was_resident(&range, now) => Ok(count),
            _ if transport.would_block(file, start, count, ends) => Err(SendError::Awaits(
                DiskTask::Read(ReadTask::new(file, start, end, cold, false)),
            )),
            _ => {
                if ends == Probe::Sample {
                    file.note_resident(range.clone(), now);
                }
                *self = Self::Warm(range);
                Ok(count)
            }
        }
    }

    /// Copies what comes at `start`. Zero means that the file ends there.
    pub(super) fn read<T: Transport>(
        &self,
        file: &Arc<OpenFile>,
        into: &mut [u8],
        (start, end): (u64, u64),
        cold: u64,
        transport: &mut T,
    ) -> Result<usize, SendError> {
        if let Self::Fetched(range, kept) = self
            && range.contains(&start)
        {
            // The range is no longer than a buffer.
            let rest = kept.bytes.get((start - range.start) as usize..);
            let rest = rest.unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            return Ok(count);
        }
        let read = match self {
            Self::Warm(range) if range.contains(&start) => {
                // At most the buffer's length.
                let most = (range.end - start).min(into.len() as u64) as usize;
                file.read_blocking(&mut into[..most], start)
                    .map_err(ReadError::Failed)
            }
            _ => transport.read_file(file, into, start),
        };
        read.map_err(|error| match error {
            ReadError::WouldBlock => {
                SendError::Awaits(DiskTask::Read(ReadTask::new(file, start, end, cold, true)))
            }
            ReadError::Failed(error) => SendError::File(error),
        })
    }

    /// Before a pause: what was in memory may not stay there. What was handed over is kept if the
    /// file's byte that comes `next` is in it, and if there is enough room for what all keep.
    pub(super) fn pause(&mut self, next: Option<u64>) {
        match self {
            Self::Fetched(range, kept)
                if next.is_some_and(|next| range.contains(&next))
                    && !kept.permit.as_ref().is_some_and(Permit::is_scarce) => {}
            _ => *self = Self::Unknown,
        }
    }
}
