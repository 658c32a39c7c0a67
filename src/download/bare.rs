//! A download over the bare protocol: a name goes, bytes come, and the end of the connection is
//! the end of the file.

use std::io::{self, Read as _, Write as _};

use super::connection::{self, Connection};
use super::transfer::{Completion, Download};
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::flags::ServerAddress;
use crate::limits;

/// Where a name is asked for, and whether by TLS.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) address: &'a ServerAddress,
    pub(super) is_tls: bool,
}

/// How a name ends on the wire.
#[derive(Clone, Copy)]
enum NameTerminator {
    LineFeed,
    HalfClose,
    /// The server sees neither LF nor end of file. The tutorial's client does that.
    Nothing,
}

/// Fetches a name. A server that knows no terminator takes the LF for a part of the name, and finds
/// no such file; the second try ends the name in a way that means the same to every server.
///
/// # Errors
/// What the connection or the target says.
pub(super) fn fetch(
    download: &mut Download<'_>,
    server: Server<'_>,
    name: &[u8],
) -> Result<Completion, Failure> {
    if download.session.args.unterminated {
        return ask_once(download, server, name, NameTerminator::Nothing);
    }
    let completion = ask_once(download, server, name, NameTerminator::LineFeed)?;
    if !matches!(completion, Completion::Empty) {
        return Ok(completion);
    }
    let console = &download.session.console;
    if console.is_verbose() {
        let label = Escaped(&download.spec.label);
        console.tell(&format!(
            "{label}: nothing came; trying once more without the LF"
        ));
    }
    ask_once(download, server, name, NameTerminator::HalfClose)
}

fn ask_once(
    download: &mut Download<'_>,
    server: Server<'_>,
    name: &[u8],
    terminator: NameTerminator,
) -> Result<Completion, Failure> {
    let Server { address, is_tls } = server;
    let mut connection = if is_tls {
        let connector = &download.session.connector;
        Connection::open_tls(address, &download.time_limits, connector, None)?
    } else {
        Connection::open(address, &download.time_limits)?
    };
    send_name(&mut connection, name, terminator)
        .map_err(|error| connection::broken("the name could not be sent", &error))?;
    receive(download, connection)
}

fn receive(download: &mut Download<'_>, mut connection: Connection) -> Result<Completion, Failure> {
    let mut buffer = vec![0; limits::CLIENT_BUFFER_BYTES];
    let mut received = 0;
    loop {
        match connection.read(&mut buffer) {
            Ok(0) if received == 0 => return Ok(Completion::Empty),
            Ok(0) => return Ok(Completion::Whole(received)),
            Ok(count) => {
                received += count as u64;
                if download.output.write(&buffer[..count])?.is_break() {
                    return Ok(Completion::ReaderClosed);
                }
                download.bar.reach(received);
            }
            Err(error) => {
                let what = format!("the download broke off after {received} bytes");
                return Err(connection::broken(&what, &error));
            }
        }
    }
}

/// Sends the name and what ends it in one write: a name that arrives in pieces may be taken for
/// another. The protocol drops one CR before the LF, so a name that ends in CR gets a second one.
fn send_name(
    connection: &mut Connection,
    name: &[u8],
    terminator: NameTerminator,
) -> io::Result<()> {
    let ending: &[u8] = match terminator {
        NameTerminator::LineFeed if name.ends_with(b"\r") => b"\r\n",
        NameTerminator::LineFeed => b"\n",
        NameTerminator::HalfClose | NameTerminator::Nothing => b"",
    };
    connection.write_all(&[name, ending].concat())?;
    if let NameTerminator::HalfClose = terminator {
        // A connection that has gone says so at the read, where bytes may have come before.
        let _ = connection.shutdown_write();
    }
    Ok(())
}
