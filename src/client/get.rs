//! `carafe get`: downloads files by name or by URL.

use std::collections::HashSet;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::download::{Came, Download, Order};
use super::progress::Console;
use super::target::{self, Destination};
use super::url::{self, Source};
use super::{Failure, pool, prompt};
use crate::cli::{Exit, First, GetArgs, ServerAddress};
use crate::escape::Escaped;
use crate::limits;

/// Goes before the name of what was received, as the source's client has it.
const RECEIVED: &[u8] = "[接收]".as_bytes();

/// Downloads everything asked for, and goes on after one that failed. Ends with the lowest number
/// of those that failed, as wget does.
#[must_use]
pub fn run(args: &GetArgs) -> Exit {
    match orders(args) {
        Ok(orders) => download_all(&orders, args),
        Err(failure) => failure.report(),
    }
}

fn orders(args: &GetArgs) -> Result<Vec<Order>, Failure> {
    let rest = args.names.iter().map(|name| name.as_bytes());
    let orders = match &args.first {
        Some(First::Server(server)) => {
            if args.names.is_empty() {
                let line =
                    "required arguments were not provided: <NAME>; --help shows what there is";
                return Err(Failure::usage(line));
            }
            rest.map(|name| named(server.clone(), name, args)).collect()
        }
        Some(First::Url(url)) => std::iter::once(url.as_bytes())
            .chain(rest)
            .map(|url| located(url, args))
            .collect(),
        None => {
            let server = prompt::server()?;
            let name = prompt::line("file name: ")?;
            named(server, &name, args).map(|order| vec![order])
        }
    };
    let orders: Vec<Order> = orders?;
    check_apart(&orders)?;
    if args.sha256.is_some() && orders.len() > 1 {
        return Err(Failure::usage("--sha256 is for one file"));
    }
    Ok(orders)
}

/// A name on a server of the bare protocol.
fn named(server: ServerAddress, name: &[u8], args: &GetArgs) -> Result<Order, Failure> {
    check_name(name)?;
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let is_fit = !matches!(last, b"" | b"." | b"..");
    Ok(Order {
        label: name.to_vec(),
        destination: destination(name, is_fit.then_some(last), args)?,
        source: Source::Bare {
            server,
            name: name.to_vec(),
        },
    })
}

/// What a URL leads to.
fn located(url: &[u8], args: &GetArgs) -> Result<Order, Failure> {
    let wont_do = |why| Failure::usage(format!("'{}' won't do: {why}", Escaped(url)));
    let source = url::parse(url).map_err(wont_do)?;
    let order = match source {
        Source::Bare { server, name } => Order {
            label: url.to_vec(),
            ..named(server, &name, args)?
        },
        Source::Http(http_url) => Order {
            label: url.to_vec(),
            destination: destination(url, http_url.file_name().as_deref(), args)?,
            source: Source::Http(http_url),
        },
    };
    if args.unterminated && matches!(order.source, Source::Http(_)) {
        return Err(Failure::usage("--unterminated is for the bare protocol"));
    }
    Ok(order)
}

/// Two downloads must not write one file.
fn check_apart(orders: &[Order]) -> Result<(), Failure> {
    let mut paths = HashSet::with_capacity(3 * orders.len());
    for order in orders {
        let Destination::File(file) = &order.destination else {
            continue;
        };
        for path in [file.clone(), target::part_of(file), target::meta_of(file)] {
            if let Some(path) = paths.replace(path) {
                let path = Escaped(path.as_os_str().as_bytes());
                let line = format!("{path}: two names would be written to it");
                return Err(Failure::usage(line));
            }
        }
    }
    Ok(())
}

/// What the protocol can't carry is refused here: the server's answer would be silence.
fn check_name(name: &[u8]) -> Result<(), Failure> {
    let max = limits::NAME_BYTES_MAX;
    let length = name.len();
    if !(1..=max).contains(&length) {
        let line = format!("a name takes 1 to {max} bytes, and this one has {length}");
        return Err(Failure::usage(line));
    }
    if name.contains(&b'\n') || name.contains(&b'\0') {
        let line = format!("'{}': a name takes no LF and no NUL", Escaped(name));
        return Err(Failure::usage(line));
    }
    Ok(())
}

/// Where to write; without `-o`, to the last component of the name, if that can be a file's.
fn destination(label: &[u8], last: Option<&[u8]>, args: &GetArgs) -> Result<Destination, Failure> {
    match &args.output {
        Some(file) if target::is_stdout(file) => return Ok(Destination::Stdout),
        Some(file) => return Ok(Destination::File(file.clone())),
        None => {}
    }
    let Some(last) = last else {
        let line = format!("'{}': no file's name; -o FILE gives one", Escaped(label));
        return Err(Failure::usage(line));
    };
    let prefix = if args.remote_name { b"" } else { RECEIVED };
    let file = OsString::from_vec([prefix, last].concat());
    Ok(Destination::File(PathBuf::from(file)))
}

fn download_all(orders: &[Order], args: &GetArgs) -> Exit {
    let console = Console::new(args.patience.verbosity);
    let exit = Mutex::new(Exit::Done);
    let note = |failure| {
        let mut exit = exit.lock().unwrap_or_else(PoisonError::into_inner);
        *exit = worse(*exit, failure);
    };
    pool::each(orders, workers(orders, args), |order| {
        match Download::run(order, args, &console) {
            // Nobody reads what else would come, nor a complaint.
            Ok(Came::Enough) => {
                note(Exit::FileIo);
                return ControlFlow::Break(());
            }
            Ok(_) => {}
            Err(Failure { exit, line }) => {
                console.tell(&format!("{}: {line}", Escaped(&order.label)));
                note(exit);
            }
        }
        ControlFlow::Continue(())
    });
    exit.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How many downloads go on at once. What goes into one pipe goes one after the other.
fn workers(orders: &[Order], args: &GetArgs) -> NonZeroUsize {
    let into_one = |order: &Order| order.destination == Destination::Stdout;
    let jobs = if orders.iter().any(into_one) {
        1
    } else {
        args.jobs
    };
    usize::try_from(jobs)
        .ok()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN)
}

/// The lower number of two ends, of which the second is a failure.
fn worse(earlier: Exit, failure: Exit) -> Exit {
    match earlier {
        Exit::Done => failure,
        earlier => earlier.min(failure),
    }
}
