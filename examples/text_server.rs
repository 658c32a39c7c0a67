//! The second of the four programs that carafe began with: prints a client's text and thanks for it.
//! `carafe thank` is what has become of it.
//!
//!     cargo run --example text_server

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;

use encoding_rs::GBK;

fn main() -> io::Result<()> {
    // Binds, and listens with a backlog of 128. Another port may be said, for tests.
    let port = std::env::args().nth(1).unwrap_or_else(|| "7788".into());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    eprintln!("listening on {}", listener.local_addr()?);
    let (mut client, _) = listener.accept()?;
    let mut text = [0; 1024];
    let length = client.read(&mut text)?;
    println!("{}", GBK.decode(&text[..length]).0);
    client.write_all(&GBK.encode("thank you !").0)
    // Both sockets are closed when they go out of scope.
}
