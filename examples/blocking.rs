//! The first of seven ways: one client after the other, as the server of the tutorial from which carafe
//! grew does it.
//!
//!     cargo run --example blocking -- ROOT 127.0.0.1:7890
//!
//! Each call waits in the kernel until it has something to give. So the program reads like a letter:
//! accept, receive, open, send, close. And whoever makes it wait makes all others wait, too.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "public is what the examples beside it use"
)]

#[path = "pour.rs"]
#[allow(dead_code, reason = "it has a loop of its own")]
pub mod pour;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pour::{log, log_end};

fn main() -> io::Result<()> {
    let (listener, turn) = start()?;
    loop {
        let client = accept(&listener);
        serve(client, &turn.root, turn.name_gap);
    }
}

/// A listener whose accept waits. mio's doesn't, as mio is for loops.
pub fn start() -> io::Result<(TcpListener, pour::Turn)> {
    let (listener, turn) = pour::start()?;
    let listener = TcpListener::from(OwnedFd::from(listener));
    listener.set_nonblocking(false)?;
    Ok((listener, turn))
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((client, _)) => return client,
            Err(error) => {
                // Out of descriptors, for instance. To try again at once would be to spin.
                log(format_args!("accept: {error}"));
                thread::sleep(pour::ACCEPT_RETRY);
            }
        }
    }
}

/// One client, from its name to its end.
pub fn serve(mut client: TcpStream, root: &Path, name_gap: Duration) {
    let name = match receive_name(&mut client, root, name_gap) {
        Ok(Some(name)) => name,
        Ok(None) => return log_end(b"", 0, 0, "client left"),
        Err(error) => return log(format_args!("receive: {error}")),
    };
    match pour::look_up(&name, root) {
        Ok((mut file, len)) => {
            // The tutorial reads all of a file before it sends any of it.
            let mut body = Vec::new();
            let read = file.read_to_end(&mut body);
            if let Err(error) = read.and_then(|_| client.write_all(&body)) {
                // A body that is cut short must not look whole: close(2) sends a reset.
                let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
                return log(format_args!("\"{}\": {error}", name.escape_ascii()));
            }
            log_end(&name, len, len, "complete");
        }
        Err(why) => log_end(&name, 0, 0, why),
    }
    close(client);
}

/// As much as is a name; none if the client has gone before one, or takes too long.
fn receive_name(
    client: &mut TcpStream,
    root: &Path,
    name_gap: Duration,
) -> io::Result<Option<Vec<u8>>> {
    let (mut name, mut piece, mut lookups) = (Vec::new(), [0; 4096], 0);
    let expires = Instant::now() + 10 * name_gap;
    client.set_read_timeout(Some(10 * name_gap))?;
    loop {
        let count = match client.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // So a receive with a timeout says that it has passed.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        name.extend_from_slice(&piece[..count]);
        if count == 0 {
            return Ok(Some(name).filter(|name| !name.is_empty()));
        } else if pour::has_end(&mut name) {
            return Ok(Some(name));
        }
        // A receive that brought less than it might has emptied the queue: what has come may be all.
        let is_empty = count < piece.len();
        lookups += u8::from(is_empty && lookups <= pour::LOOKUPS_MAX);
        if is_empty && lookups <= pour::LOOKUPS_MAX && pour::look_up(&name, root).is_ok() {
            return Ok(Some(name));
        } else if Instant::now() >= expires {
            return Ok(None);
        }
        client.set_read_timeout(Some(name_gap))?;
    }
}

/// Ends in order: our FIN, then whatever the client still says, then its FIN.
fn close(client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.set_read_timeout(Some(pour::CLOSING_TIME));
    let mut rest = client.take(pour::DISCARDED_BYTES_MAX as u64);
    let _ = io::copy(&mut rest, &mut io::sink());
}
