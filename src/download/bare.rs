//! A download over the bare protocol: a name goes, bytes come, and the end of the connection is
//! the end of the file.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use super::Failure;
use super::connection::{self, Connection};
use super::transfer::{Came, Download};
use crate::cli::ServerAddress;
use crate::escape::Escaped;
use crate::limits;

/// How a name ends on the wire.
#[derive(Clone, Copy)]
enum Ending {
    LineFeed,
    HalfClose,
    /// Not at all, as the source's client has it: the server sees neither LF nor end of file.
    Open,
}

/// Fetches a name. A server that knows no terminator takes the LF for a part of the name, and finds
/// no such file; the second try ends the name in a way that means the same to every server.
///
/// # Errors
/// What the connection or the target says.
pub(super) fn fetch(
    download: &mut Download<'_>,
    server: &ServerAddress,
    name: &[u8],
) -> Result<Came, Failure> {
    if download.session.args.unterminated {
        return ask_once(download, server, name, Ending::Open);
    }
    match ask_once(download, server, name, Ending::LineFeed)? {
        Came::Nothing => {
            if download.session.console.is_verbose() {
                let label = Escaped(&download.order.label);
                download.session.console.tell(&format!(
                    "{label}: nothing came; trying once more without the LF"
                ));
            }
            ask_once(download, server, name, Ending::HalfClose)
        }
        came => Ok(came),
    }
}

fn ask_once(
    download: &mut Download<'_>,
    server: &ServerAddress,
    name: &[u8],
    ending: Ending,
) -> Result<Came, Failure> {
    let mut connection = Connection::open(server, &download.patience)?;
    send_name(&mut connection, name, ending)
        .map_err(|error| connection::broken("the name could not be sent", &error))?;
    receive(download, connection)
}

fn receive(download: &mut Download<'_>, mut connection: Connection) -> Result<Came, Failure> {
    let mut buffer = vec![0; limits::CLIENT_BUFFER_BYTES];
    let mut came = 0;
    loop {
        match connection.read(&mut buffer) {
            Ok(0) if came == 0 => return Ok(Came::Nothing),
            Ok(0) => return Ok(Came::Whole(came)),
            Ok(count) => {
                came += count as u64;
                if download.target.write(&buffer[..count])?.is_break() {
                    return Ok(Came::Enough);
                }
                download.progress.reach(came);
            }
            Err(error) => {
                let what = format!("the download broke off after {came} bytes");
                return Err(connection::broken(&what, &error));
            }
        }
    }
}

/// Sends the name and what ends it in one write: a name that arrives in pieces may be taken for
/// another. The protocol drops one CR before the LF, so a name that ends in CR gets a second one.
fn send_name(connection: &mut Connection, name: &[u8], ending: Ending) -> io::Result<()> {
    let terminator: &[u8] = match ending {
        Ending::LineFeed if name.ends_with(b"\r") => b"\r\n",
        Ending::LineFeed => b"\n",
        Ending::HalfClose | Ending::Open => b"",
    };
    connection.write_all(&[name, terminator].concat())?;
    if let Ending::HalfClose = ending {
        // A connection that has gone says so at the read, where bytes may have come before.
        let _ = connection.stream().shutdown(Shutdown::Write);
    }
    Ok(())
}
