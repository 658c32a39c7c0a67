//! The first of the four programs that carafe began with: sends a text, prints the reply. `carafe say` is
//! what has become of it.
//!
//!     cargo run --example text_client

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use encoding_rs::GBK;

fn main() -> io::Result<()> {
    let (ip, port, text) = (ask("ip: ")?, ask("port: ")?, ask("text: ")?);
    let mut socket = TcpStream::connect(format!("{ip}:{port}"))?;
    socket.write_all(&GBK.encode(&text).0)?;
    // One receive is taken for the whole reply, which it usually is.
    let mut reply = [0; 1024];
    let length = socket.read(&mut reply)?;
    println!("{}", GBK.decode(&reply[..length]).0);
    Ok(())
}

fn ask(prompt: &str) -> io::Result<String> {
    eprint!("{prompt}");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
