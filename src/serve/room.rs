//! How many descriptors there are, and who may have them.

use crate::cli::{Exit, ListenArgs};
use crate::descriptors::raise_descriptor_limit;
use crate::failure::Failure;
use crate::limits::{DESCRIPTORS_RESERVED, OPEN_FILES_SHARE};

/// How the descriptors are shared out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) connections_max: usize,
    /// Descriptors that are left for files.
    pub(super) open_files: usize,
}

impl Room {
    /// Raises the descriptor limit as far as it goes, and leaves room for files: `None` for a
    /// service that opens none, else what the flag says. `aside` are for those who look on.
    pub(super) fn find(
        listen: &ListenArgs,
        open_files: Option<Option<u64>>,
        aside: u64,
    ) -> Result<Self, Failure> {
        let limit = raise_descriptor_limit();
        let listeners = listen.bind.len().max(1) as u64;
        let free = limit.saturating_sub(DESCRIPTORS_RESERVED + listeners + aside);
        let default_files = (limit / OPEN_FILES_SHARE).min(free.saturating_sub(1));
        let files = open_files.map_or(0, |flag| flag.unwrap_or(default_files));
        let room = free.saturating_sub(files);
        if free < 2 {
            return Err(Failure::new(
                Exit::Failed,
                format!("{limit} descriptors are too few to serve"),
            ));
        }
        if room == 0 {
            let most = free - 1;
            return Err(Failure::usage(format!(
                "--open-files: '{files}' won't do: with {limit} descriptors it takes 1 to {most}"
            )));
        }
        let asked = listen.max_connections.unwrap_or(room);
        if asked > room {
            log::warn!(
                "--max-connections {asked} is more than {limit} descriptors allow: it is {room}"
            );
        }
        // At most 2^30, which a slab's key holds.
        Ok(Self {
            connections_max: asked.min(room).min(1 << 30) as usize,
            open_files: files as usize,
        })
    }
}
