//! Gopher's menus (RFC 1436): its clients ask for a file as the bare protocol's do, and for a folder
//! likewise.

use std::borrow::Cow;

use crate::file::{ListError, Lookup, LookupError, TaskResult};
use crate::protocol::bare::readings;
use crate::protocol::{Body, Decision, Reply, Request};
use crate::root::listing::Listings;
use crate::root::{self, Root};
use crate::telemetry::Reason;
use crate::telemetry::response::Outcome;

/// The menu of a folder whose name the bare protocol has refused by `reply`, or else that reply.
pub(super) fn menu(
    reply: Reply,
    request: &Request<'_>,
    root: &mut Root,
    folders: &mut Listings,
) -> Decision {
    let name = match folder(root, &reply.target, request.results) {
        (name, Ok(())) => name,
        (name, Err(LookupError::WouldBlock | LookupError::OtherMount(_))) => {
            return Decision::Suspend(root.open_task(&name));
        }
        (_, Err(_)) => return Decision::Reply(reply),
    };
    // Gopher+ asks so for information on all items, and one of its clients takes nothing else.
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
            outcome: Outcome::Complete,
            ..reply
        }),
        Ok(Err(ListError::Failed(LookupError::NoDescriptor))) => Decision::WaitForFd,
        Ok(Err(ListError::NoMemory)) => Decision::Abort(Reason::OpenFailed),
        Ok(Err(ListError::Failed(_))) => Decision::Reply(reply),
    }
}

/// Whether a name that the bare protocol refused is a folder's, and the reading of the name that was
/// tried last.
fn folder<'n>(
    root: &mut Root,
    name: &'n [u8],
    results: &[TaskResult],
) -> (Cow<'n, [u8]>, Result<(), LookupError>) {
    let mut last = (name.into(), Err(LookupError::Refused(root::EMPTY_NAME)));
    for reading in readings(name) {
        let found = match root.find_or_root(&reading, results) {
            Ok(Lookup::Directory(_)) => Ok(()),
            Ok(Lookup::File(_)) => Err(LookupError::Refused("not a folder")),
            Err(error) => Err(error),
        };
        let is_nothing = matches!(found, Err(LookupError::Refused(_)));
        last = (reading, found);
        if !is_nothing {
            break;
        }
    }
    last
}
