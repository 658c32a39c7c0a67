//! `carafe get`: downloads files by name.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::target::{self, Destination, Target};
use super::{Failure, connection, prompt, tell};
use crate::cli::{Exit, GetArgs, ServerAddress};
use crate::escape::Escaped;
use crate::limits;

/// Goes before the name of what was received, as the source's client has it.
const RECEIVED: &[u8] = "[接收]".as_bytes();

/// Downloads every name asked for, and goes on after one that failed. Ends with the lowest number
/// of those that failed, as wget does.
#[must_use]
pub fn run(args: &GetArgs) -> Exit {
    match asked_for(args) {
        Ok((server, orders)) => download_all(&server, &orders, args),
        Err(failure) => failure.report(),
    }
}

/// One file to fetch.
struct Order {
    name: Vec<u8>,
    destination: Destination,
}

fn asked_for(args: &GetArgs) -> Result<(ServerAddress, Vec<Order>), Failure> {
    let (server, names) = match &args.server {
        Some(server) => {
            let names = args.names.iter().map(|name| name.as_bytes().to_vec());
            (server.clone(), names.collect())
        }
        None => (prompt::server()?, vec![prompt::line("file name: ")?]),
    };
    Ok((server, orders(names, args)?))
}

fn orders(names: Vec<Vec<u8>>, args: &GetArgs) -> Result<Vec<Order>, Failure> {
    let mut orders = Vec::with_capacity(names.len());
    let mut paths = HashSet::with_capacity(2 * names.len());
    for name in names {
        check_name(&name)?;
        let destination = destination(&name, args)?;
        if let Destination::File(file) = &destination {
            for path in [file.clone(), target::part_of(file)] {
                if let Some(path) = paths.replace(path) {
                    let path = Escaped(path.as_os_str().as_bytes());
                    let line = format!("{path}: two names would be written to it");
                    return Err(Failure::usage(line));
                }
            }
        }
        orders.push(Order { name, destination });
    }
    Ok(orders)
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

fn destination(name: &[u8], args: &GetArgs) -> Result<Destination, Failure> {
    match &args.output {
        Some(file) if target::is_stdout(file) => return Ok(Destination::Stdout),
        Some(file) => return Ok(Destination::File(file.clone())),
        None => {}
    }
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    if matches!(last, b"" | b"." | b"..") {
        let line = format!("'{}': no file's name; -o FILE gives one", Escaped(name));
        return Err(Failure::usage(line));
    }
    let prefix = if args.remote_name { b"" } else { RECEIVED };
    let file = OsString::from_vec([prefix, last].concat());
    Ok(Destination::File(PathBuf::from(file)))
}

fn download_all(server: &ServerAddress, orders: &[Order], args: &GetArgs) -> Exit {
    let mut exit = Exit::Done;
    for order in orders {
        match Download::run(server, order, args) {
            // Nobody reads what else would come, nor a complaint.
            Ok(Came::Enough) => return worse(exit, Exit::FileIo),
            Ok(_) => {}
            Err(Failure { exit: number, line }) => {
                tell(&format!("{}: {line}", Escaped(&order.name)));
                exit = worse(exit, number);
            }
        }
    }
    exit
}

/// The lower number of two ends, of which the second is a failure.
fn worse(earlier: Exit, failure: Exit) -> Exit {
    match earlier {
        Exit::Done => failure,
        earlier => earlier.min(failure),
    }
}

/// How a name ends on the wire.
#[derive(Clone, Copy)]
enum Ending {
    LineFeed,
    HalfClose,
    /// Not at all, as the source's client has it: the server sees neither LF nor end of file.
    Open,
}

/// How a connection ended, when it ended in order.
enum Came {
    /// End of file before any byte.
    Nothing,
    /// End of file after so many bytes.
    Whole(u64),
    /// Whoever reads our output has closed it.
    Enough,
}

/// One file on its way.
struct Download<'a> {
    server: &'a ServerAddress,
    order: &'a Order,
    args: &'a GetArgs,
    target: Target,
    progress: ProgressBar,
}

impl<'a> Download<'a> {
    fn run(
        server: &'a ServerAddress,
        order: &'a Order,
        args: &'a GetArgs,
    ) -> Result<Came, Failure> {
        let started = Instant::now();
        let watched = is_watched(order, args);
        let mut download = Self {
            server,
            order,
            args,
            target: Target::at(&order.destination)?,
            progress: progress(watched, &order.name),
        };
        let result = download.fetch();
        download.progress.finish_and_clear();
        match &result {
            Ok(Came::Whole(bytes)) if watched || args.patience.verbosity.verbose > 0 => {
                let name = Escaped(&order.name);
                let seconds = started.elapsed().as_secs_f64();
                let target = &order.destination;
                tell(&format!(
                    "{name}: {bytes} bytes in {seconds:.3} s to {target}"
                ));
            }
            _ => {}
        }
        result
    }

    /// A file is had only when it has its name; what is left of a failed one is told.
    fn fetch(&mut self) -> Result<Came, Failure> {
        let result = self.ask().and_then(|came| match came {
            Came::Nothing => Err(Failure::new(
                Exit::NoFile,
                "the server sent nothing: it has no such file, or an empty one",
            )),
            Came::Whole(_) => self.target.finish().map(|()| came),
            Came::Enough => Ok(came),
        });
        result.map_err(|mut failure| {
            if let Some(kept) = self.target.kept() {
                failure.line = format!("{}; {kept}", failure.line);
            }
            failure
        })
    }

    /// A server that knows no terminator takes the LF for a part of the name, and finds no such
    /// file. The second try ends the name in a way that means the same to every server.
    fn ask(&mut self) -> Result<Came, Failure> {
        if self.args.unterminated {
            return self.ask_once(Ending::Open);
        }
        match self.ask_once(Ending::LineFeed)? {
            Came::Nothing => {
                if self.args.patience.verbosity.verbose > 0 {
                    let name = Escaped(&self.order.name);
                    tell(&format!(
                        "{name}: nothing came; trying once more without the LF"
                    ));
                }
                self.ask_once(Ending::HalfClose)
            }
            came => Ok(came),
        }
    }

    fn ask_once(&mut self, ending: Ending) -> Result<Came, Failure> {
        let patience = &self.args.patience;
        let stream = connection::connect(self.server, patience)?;
        send_name(&stream, &self.order.name, ending)
            .map_err(|error| connection::broken("the name could not be sent", &error, patience))?;
        self.receive(stream)
    }

    fn receive(&mut self, mut stream: TcpStream) -> Result<Came, Failure> {
        let mut buffer = vec![0; limits::CLIENT_BUFFER_BYTES];
        let mut came = 0;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) if came == 0 => return Ok(Came::Nothing),
                Ok(0) => return Ok(Came::Whole(came)),
                Ok(count) => {
                    came += count as u64;
                    if self.target.write(&buffer[..count])?.is_break() {
                        return Ok(Came::Enough);
                    }
                    self.progress.set_position(came);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("the download broke off after {came} bytes");
                    return Err(connection::broken(&what, &error, &self.args.patience));
                }
            }
        }
    }
}

/// Sends the name and what ends it in one write: a name that arrives in pieces may be taken for
/// another. The protocol drops one CR before the LF, so a name that ends in CR gets a second one.
fn send_name(mut stream: &TcpStream, name: &[u8], ending: Ending) -> io::Result<()> {
    let terminator: &[u8] = match ending {
        Ending::LineFeed if name.ends_with(b"\r") => b"\r\n",
        Ending::LineFeed => b"\n",
        Ending::HalfClose | Ending::Open => b"",
    };
    stream.write_all(&[name, terminator].concat())?;
    if let Ending::HalfClose = ending {
        // A connection that has gone says so at the read, where bytes may have come before.
        let _ = stream.shutdown(Shutdown::Write);
    }
    Ok(())
}

/// Whether a person looks on. A file that goes to the terminal must not be mixed with progress.
fn is_watched(order: &Order, args: &GetArgs) -> bool {
    let mixes = order.destination == Destination::Stdout && io::stdout().is_terminal();
    !args.patience.verbosity.quiet && io::stderr().is_terminal() && !mixes
}

fn progress(watched: bool, name: &[u8]) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_msg} {bytes} {bytes_per_sec} {elapsed}")
        .expect("the template is well-formed");
    ProgressBar::no_length()
        .with_style(style)
        .with_message(Escaped(name).to_string())
}
