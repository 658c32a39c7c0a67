//! The last of the four programs that carafe began with: asks for a file by its name and keeps what comes.
//! `carafe get` is what has become of it.
//!
//!     cargo run --example download_client

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

fn main() -> io::Result<()> {
    let (ip, port, name) = (ask("ip: ")?, ask("port: ")?, ask("file: ")?);
    let mut socket = TcpStream::connect(format!("{ip}:{port}"))?;
    socket.write_all(name.as_bytes())?;
    // Up to the zero-length read: the server has closed.
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    if !bytes.is_empty() {
        fs::write(format!("[接收]{name}"), bytes)?;
    }
    Ok(())
}

fn ask(prompt: &str) -> io::Result<String> {
    eprint!("{prompt}");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
