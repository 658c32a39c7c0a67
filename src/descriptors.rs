//! The descriptor limit, for whoever has very many connections.

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
