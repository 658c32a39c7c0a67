//! A connection as `serve` keeps it: who it is, and the lines that the log has of it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::conn::{Conn, Delivery, Stage};
use crate::escape::Escaped;
use crate::stats::Reason;

/// A connection and what its last log line needs.
#[derive(Debug)]
pub struct Client {
    pub(super) peer: SocketAddr,
    pub(super) accepted_at: Instant,
    /// It stands in the line of those who wait for a descriptor.
    pub(super) in_line: bool,
    pub(super) role: Role,
    pub(super) conn: Conn,
}

/// Who a connection is to the counters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// A client, counted as one that does this.
    Client(Stage),
    /// It reads the metrics, and isn't counted.
    Monitor,
}

/// One line for the end of a connection, unless its replies had theirs. A reply's time begins when
/// its request had come, that of a connection without one when it was accepted.
pub(super) fn log_end(client: &Client, reason: Reason, now: Instant) {
    let peer = client.peer;
    let Some(delivery) = client.conn.delivery() else {
        let seconds = (now - client.accepted_at).as_secs_f64();
        match client.conn.subject() {
            b"" if client.conn.was_kept_alive() => log::debug!("{peer} - {reason}"),
            b"" => log::info!("{peer} - 0/0 bytes {seconds:.3}s {reason}"),
            part => {
                log::info!(
                    "{peer} \"{}\" 0/0 bytes {seconds:.3}s {reason}",
                    Escaped(part)
                );
            }
        }
        return;
    };
    log_delivery(
        peer,
        delivery,
        now - delivery.asked_at,
        &delivery.end(reason),
    );
}

/// One line for one reply.
pub(super) fn log_delivery(
    peer: SocketAddr,
    delivery: &Delivery,
    took: Duration,
    end: &dyn Display,
) {
    let Delivery {
        subject,
        offset,
        promised,
        ..
    } = delivery;
    let seconds = took.as_secs_f64();
    log::info!(
        "{peer} \"{}\" {offset}/{promised} bytes {seconds:.3}s {end}",
        Escaped(subject)
    );
}
