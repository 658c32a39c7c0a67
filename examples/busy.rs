//! The third of seven ways: no call waits, and the program asks every socket again and again.
//!
//!     cargo run --example busy -- ROOT 127.0.0.1:7890
//!
//! What the kernel kept on a thread's stack is a state now: `Conn` of `pour.rs`. One thread serves all, and
//! nobody makes another wait. But it never sleeps: a client that says nothing costs as much as one that
//! downloads.

#[path = "pour.rs"]
#[allow(dead_code, reason = "it has a loop of its own")]
mod pour;

use std::io;
use std::time::Instant;

use pour::{Conn, Next};

fn main() -> io::Result<()> {
    let (listener, mut turn) = pour::start()?;
    let mut conns = Vec::new();
    loop {
        turn.now = Instant::now();
        // Nobody there, or no descriptor: it is asked again in no time.
        while let Ok((socket, _)) = listener.accept() {
            conns.push((socket, Conn::new(&turn)));
        }
        conns.retain_mut(|(socket, conn)| {
            turn.is_due = conn.deadline <= turn.now;
            !matches!(conn.step(socket, &mut turn), Next::End)
        });
    }
}
