//! Descriptors: the limit, and how many are open, for whoever has very many connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sets the soft limit to the hard one, and returns what is in force then.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
    {
        log::info!("the descriptor limit stays at {current:?}: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The soft limit as it is now; someone else may have set it (prlimit). `None` is without one.
#[must_use]
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many are open. `None` where procfs is missing.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    // Since Linux 6.2 the folder's size is their number.
    let size = rustix::fs::stat("/proc/self/fd").ok()?.st_size;
    match u64::try_from(size) {
        Ok(count @ 1..) => Some(count),
        // The look itself takes one.
        _ => Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_within_their_limit() {
        let open = open_descriptors().unwrap();
        assert!(open >= 3 && descriptor_limit().is_none_or(|limit| open <= limit));
    }
}
