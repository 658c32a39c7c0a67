//! Gopher's menus (RFC 1436): its clients ask for a file, and for a directory, by name, as the bare
//! protocol's clients ask for a file.

use crate::file::{ListError, Lookup, LookupError};
use crate::protocol::bare::first_reading;
use crate::protocol::{Body, Decision, Reply, Request};
use crate::root::Root;
use crate::root::listing::Listings;
use crate::telemetry::Reason;

/// The menu of the directory whose name the bare protocol has refused by `reply`; that reply, if it is
/// none.
pub(super) fn menu(
    reply: Reply,
    request: &Request<'_>,
    root: &mut Root,
    folders: &mut Listings,
) -> Decision {
    let found = first_reading(&reply.target, |reading| {
        root.find_or_root(reading, request.results)
    });
    let name = match found {
        (name, Ok(Lookup::Directory(_))) => name,
        (name, Err(LookupError::WouldBlock | LookupError::OtherMount(_))) => {
            return Decision::Suspend(root.open_task(&name));
        }
        (_, Ok(Lookup::File(_)) | Err(_)) => return Decision::Reply(reply),
    };
    // So Gopher+ asks for information on all items. One of its clients takes no other menu.
    let plus = reply.target.strip_prefix(&*name);
    let plus = plus.is_some_and(|rest| rest.starts_with(b"\t$"));
    match folders.menu(
        root,
        &name,
        plus,
        || request.reached.address(),
        request.results,
    ) {
        Err(task) => Decision::Suspend(task),
        Ok(Ok(list)) => Decision::Reply(Reply {
            body: Body::List(list),
            refused: None,
            ..reply
        }),
        Ok(Err(ListError::Failed(LookupError::NoDescriptor))) => Decision::WaitForFd,
        Ok(Err(ListError::NoMemory)) => Decision::Abort(Reason::OpenFailed),
        Ok(Err(ListError::Failed(_) | ListError::TooMany)) => Decision::Reply(reply),
    }
}
