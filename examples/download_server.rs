//! The third of the four programs that carafe began with: a client sends a file's name, the server sends its
//! bytes and closes. `carafe serve` is what has become of it, `blocking.rs` this with its faults mended.
//!
//!     cargo run --example download_server -- 7890
//!
//! It serves whatever a name leads to, `/etc/passwd` and `../secret` too: only for files that all may read.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "7890".into());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    eprintln!("listening on {}", listener.local_addr()?);
    loop {
        let (mut client, _) = listener.accept()?;
        // One receive is taken for the whole name, which it usually is.
        let mut name = [0; 1024];
        let length = client.read(&mut name)?;
        let name = String::from_utf8_lossy(&name[..length]);
        println!("asked for: {name:?}");
        match fs::read(&*name) {
            Ok(bytes) => client.write_all(&bytes)?,
            Err(error) => println!("no such file: {error}"),
        }
    }
}
