//! The fourth of seven ways: poll(2) says which sockets would not make us wait, for as long as that is so.
//!
//!     cargo run --example level -- ROOT 127.0.0.1:7890
//!
//! It sleeps while nothing happens. Level-triggered, it can't lose a wake-up: who stops with bytes unread is told
//! of them again. Two things are its price. All sockets are handed to the kernel, and looked at, in every turn,
//! however few have news. And what a connection waits for must be said exactly: one that asks for room to
//! send, and has nothing to send, never sleeps.

#[path = "pour.rs"]
#[allow(dead_code, reason = "it has a loop of its own")]
mod pour;

use std::io::{self, ErrorKind};
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use pour::{Conn, Next};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits, and says who has news: the listener, then each connection.
fn wait(
    listener: &TcpListener,
    accept_at: Option<Instant>,
    conns: &[(TcpStream, Conn)],
) -> io::Result<Vec<bool>> {
    let accepts = match accept_at {
        Some(_) => PollFlags::empty(),
        None => PollFlags::IN,
    };
    let mut fds = vec![PollFd::new(listener, accepts)];
    for (socket, conn) in conns {
        let waits_for = if conn.is_sending() {
            PollFlags::OUT
        } else {
            PollFlags::IN
        };
        fds.push(PollFd::new(socket, waits_for));
    }
    let deadlines = conns.iter().map(|(_, conn)| conn.deadline);
    let timeout = deadlines.chain(accept_at).min();
    let timeout = timeout.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = timeout.map(|time| Timespec {
        tv_sec: time.as_secs().min(3600) as i64,
        tv_nsec: time.subsec_nanos().into(),
    });
    match poll(&mut fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => return Ok(vec![false; fds.len()]),
        result => result?,
    };
    let has_news = |fd: &PollFd| !fd.revents().is_empty();
    Ok(fds.iter().map(has_news).collect())
}

fn main() -> io::Result<()> {
    let (listener, mut turn) = pour::start()?;
    let (mut conns, mut accept_at) = (Vec::new(), None);
    loop {
        let news = wait(&listener, accept_at, &conns)?;
        turn.now = Instant::now();
        let mut news = news.into_iter().skip(1);
        // One that used up its budget waits as all do: there is room for it still, so poll tells at once.
        conns.retain_mut(|(socket, conn)| {
            turn.is_due = conn.deadline <= turn.now;
            let has_news = news.next() == Some(true) || turn.is_due;
            !has_news || !matches!(conn.step(socket, &mut turn), Next::End)
        });
        accept_at = accept_at.filter(|&at| at > turn.now);
        while accept_at.is_none() {
            match listener.accept() {
                Ok((socket, _)) => conns.push((socket, Conn::new(&turn))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    // Out of descriptors. Who waits in the backlog still does, so poll would not sleep.
                    pour::log(format_args!("accept: {error}"));
                    accept_at = Some(turn.now + pour::ACCEPT_RETRY);
                }
            }
        }
    }
}
