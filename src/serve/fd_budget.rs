//! How many descriptors there are, and who may have them.

use crate::daemon::args::ListenArgs;
use crate::descriptors::raise_descriptor_limit;
use crate::failure::{Exit, Failure};
use crate::limits::{
    CACHED_OPEN_SHARE, DESCRIPTORS_PER_LOOP, DESCRIPTORS_RESERVED, OPEN_FILES_SHARE,
};
use crate::peer::client_limit::ClientLimit;
use crate::root::cache::CacheLimits;

/// How the descriptors are shared out.
#[derive(Clone, Copy, Debug)]
pub(super) struct FdBudget {
    /// Connections that all loops together may have.
    connections_max: u64,
    /// Descriptors that are left for files, of all loops together.
    open_files: u64,
    loops: u64,
}

impl FdBudget {
    /// Raises the descriptor limit as far as it goes, and leaves descriptors for files: `None` for a
    /// protocol that opens none, else what the flag says. `telemetry` are those of logs and metrics, `addresses`
    /// a loop's listeners. Each of the loops can have a connection at least.
    pub(super) fn find(
        listen: &ListenArgs,
        open_files: Option<Option<u64>>,
        telemetry: u64,
        loops: u64,
        addresses: usize,
    ) -> Result<Self, Failure> {
        let limit = raise_descriptor_limit();
        let listeners = loops * addresses.max(1) as u64;
        let reserved = DESCRIPTORS_RESERVED + (loops - 1) * DESCRIPTORS_PER_LOOP;
        let free = limit.saturating_sub(reserved + listeners + telemetry);
        let default_files = (limit / OPEN_FILES_SHARE).min(free.saturating_sub(1));
        let files = open_files.map_or(0, |flag| flag.unwrap_or(default_files));
        let left = free.saturating_sub(files);
        let crowded = || {
            Failure::usage(format!(
                "--workers: '{loops}' won't do: with {limit} descriptors it takes fewer"
            ))
        };
        if loops > 1 && free <= loops {
            return Err(crowded());
        }
        if free < 2 {
            return Err(Failure::new(
                Exit::Failed,
                format!("{limit} descriptors are too few to serve"),
            ));
        }
        if left == 0 {
            let most = free - loops;
            return Err(Failure::usage(format!(
                "--open-files: '{files}' won't do: with {limit} descriptors it takes 1 to {most}"
            )));
        }
        if left < loops {
            return Err(crowded());
        }
        let asked = listen.max_connections.unwrap_or(left);
        if asked > left {
            log::warn!(
                "--max-connections {asked} is more than {limit} descriptors allow: it is {left}"
            );
        }
        if asked < loops {
            return Err(Failure::usage(format!(
                "--max-connections: '{asked}' won't do: it takes {loops} at least, one for each of \
                 the workers"
            )));
        }
        Ok(Self {
            // At most 2^30, which a slab's key holds.
            connections_max: asked.min(left).min(1 << 30),
            open_files: files,
            loops,
        })
    }

    /// What one client may have of the connections of all loops.
    pub(super) fn client_limit(&self, flag: Option<u64>) -> Option<ClientLimit> {
        ClientLimit::new(flag, self.connections_max)
    }

    /// Connections that the loop with this index may have. The shares differ by one at most.
    pub(super) fn connections_max(&self, of: u64) -> usize {
        let rest = self.connections_max % self.loops;
        let share = self.connections_max / self.loops + u64::from(of < rest);
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Files that each loop may have open.
    pub(super) fn open_files_max(&self) -> u64 {
        (self.open_files / self.loops).max(1)
    }

    /// What each loop's cache may hold, of `bytes` for all together.
    pub(super) fn cache_limits(&self, bytes: u64) -> CacheLimits {
        CacheLimits {
            // Beyond what can be addressed there is no bound.
            bytes_max: usize::try_from(bytes / self.loops).unwrap_or(usize::MAX),
            // No more than there are descriptors.
            open_max: (self.open_files / CACHED_OPEN_SHARE / self.loops) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_loops_make_up_the_whole() {
        for (connections_max, loops) in [(7, 1), (7, 7), (8, 3), (1 << 30, 3)] {
            let budget = FdBudget {
                connections_max,
                open_files: 0,
                loops,
            };
            let shares: Vec<_> = (0..loops).map(|of| budget.connections_max(of)).collect();
            assert_eq!(shares.iter().sum::<usize>() as u64, connections_max);
            assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
            assert!(shares.is_sorted_by(|a, b| a >= b) && shares[shares.len() - 1] > 0);
        }
    }
}
