//! Closing: the write side is shut; input is read and thrown away until the peer's FIN, so that
//! no reset overtakes the last bytes (RFC 9112, 9.6, tells the story).

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::step::{StepIo, blame};
use crate::conn::transport::Transport;
use crate::limits::{
    HTTP_BODY_LINGER_BYTES_MAX, HTTP_BODY_LINGER_TOTAL, LINGER_BYTES_MAX, LINGER_IDLE,
    LINGER_TOTAL, STEP_BYTES_MAX,
};
use crate::protocol::RequestEnd;
use crate::reactor::event::{Action, Event};
use crate::telemetry::response::Response;

/// Input behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// None came with it, and the reply was made and sent at once. More may come in the microseconds before
    /// the close, and resets it: that is accepted for one call less.
    Nothing,
    /// None came with it, but there was time for more.
    Possible,
    /// There is some.
    Certain,
}

/// What one read of the receive queue finds before the close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A zero-length read.
    Fin,
    /// Nothing: the read would block.
    Empty,
    /// LF, or CR LF, and no more: the end of a name that was answered without it.
    Terminator,
    /// Anything else.
    Bytes,
}

/// What goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnTheWire {
    /// Nothing yet: the receive queue is looked at once. close(2) with unread input sends a reset,
    /// which drops what is unsent.
    Look,
    /// A FIN after the last byte.
    Close,
    /// The same FIN, and input is read away until the peer's.
    Linger,
}

/// The close table, row by row, for what ends in good order: a reply of which all bytes are accepted, to a
/// request that ended so. `awaits_fin`: the server is stopping, or the client speaks TLS, and its goodbye
/// (close_notify) is input that may still come. `look` is there once it was looked.
pub(super) fn close_table(
    ended_by: RequestEnd,
    extra: Extra,
    awaits_fin: bool,
    look: Option<Look>,
) -> OnTheWire {
    let has_end = matches!(ended_by, RequestEnd::LineFeed | RequestEnd::Eof);
    let was_guessed = ended_by == RequestEnd::Guess;
    match look {
        None if has_end && extra == Extra::Nothing && !awaits_fin => OnTheWire::Close,
        None => OnTheWire::Look,
        Some(Look::Fin) => OnTheWire::Close,
        Some(Look::Empty) if has_end && extra != Extra::Certain && !awaits_fin => OnTheWire::Close,
        Some(Look::Terminator) if was_guessed && !awaits_fin => OnTheWire::Close,
        Some(Look::Empty | Look::Terminator | Look::Bytes) => OnTheWire::Linger,
    }
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) response: Response,
    /// The bytes of all replies.
    sent: u64,
    /// Since when the last byte is accepted.
    pub(super) since: Instant,
    /// The input is the body of the request, which many clients send to its end before they read the
    /// answer: more of it is thrown away, and for longer.
    is_body: bool,
    discarded: u64,
    idle_ends: Instant,
    total_ends: Instant,
    acked: u64,
}

/// For how long input is thrown away at most.
fn linger_total(is_body: bool) -> Duration {
    if is_body {
        HTTP_BODY_LINGER_TOTAL
    } else {
        LINGER_TOTAL
    }
}

impl Closing {
    /// The write side was just shut after `sent` bytes; `discarded` bytes of input were thrown away
    /// before.
    pub(super) fn new<T: Transport, P>(
        response: Response,
        sent: u64,
        (discarded, is_body): (u64, bool),
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Self {
        let now = io.turn.now;
        let acked = io.transport.acked_bytes(sent);
        Self {
            response,
            sent,
            since: now,
            is_body,
            discarded,
            idle_ends: now + LINGER_IDLE,
            total_ends: now + linger_total(is_body),
            acked,
        }
    }

    pub(super) fn step<T: Transport, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
    ) -> Action {
        let close = Action::Close(self.response.reason());
        match event {
            Event::Stop(_) => return close,
            Event::Drain => return Action::Wait,
            Event::Deadline => self.wind_clocks(io),
            Event::Ready(edge) if !(edge.readable || edge.dead) => return Action::Wait,
            _ => {}
        }
        let bytes_max = if self.is_body {
            HTTP_BODY_LINGER_BYTES_MAX
        } else {
            LINGER_BYTES_MAX
        };
        let budget_ends = self.discarded + STEP_BYTES_MAX;
        while self.discarded < budget_ends {
            match io.transport.read(io.turn.scratch) {
                Ok(0) => return close,
                Ok(n) => {
                    self.discarded += n as u64;
                    io.turn.bytes_moved += n as u64;
                    self.idle_ends = io.turn.now + LINGER_IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    io.turn.deadline = Some(self.deadline());
                    let is_over = self.deadline() <= io.turn.now || event == Event::Reclaim;
                    return if is_over { close } else { Action::Wait };
                }
                Err(error) => return Action::Close(blame(&error)),
            }
            if self.discarded > bytes_max {
                return close;
            }
        }
        io.turn.deadline = Some(self.deadline());
        Action::Yield
    }

    pub(super) fn deadline(&self) -> Instant {
        self.idle_ends.min(self.total_ends)
    }

    /// Both clocks stand while the peer goes on acknowledging enough: it is still taking what was sent.
    /// Our FIN counts for a byte, and its acknowledgement for nothing. A server that stops waits
    /// until the peer has everything: the process's end may take the network's with it.
    fn wind_clocks<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) {
        let before = std::mem::replace(&mut self.acked, io.transport.acked_bytes(self.sent));
        let has_all = self.acked > self.sent;
        let least = io.timeouts.least_bytes(LINGER_IDLE);
        if self.acked > before + least || (io.turn.draining && !has_all) {
            self.idle_ends = io.turn.now + LINGER_IDLE;
            self.total_ends = io.turn.now + linger_total(self.is_body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [RequestEnd; 4] = [
        RequestEnd::LineFeed,
        RequestEnd::Eof,
        RequestEnd::Guess,
        RequestEnd::Unread,
    ];
    const EXTRAS: [Extra; 3] = [Extra::Nothing, Extra::Possible, Extra::Certain];
    const LOOKS: [Look; 4] = [Look::Fin, Look::Empty, Look::Terminator, Look::Bytes];

    /// What is known at a reply's end: what ended the request, what came behind it, whether the FIN is awaited.
    type End = (RequestEnd, Extra, bool);

    /// Every end that there is.
    fn all() -> impl Iterator<Item = End> {
        ENDS.into_iter().flat_map(|ended_by| {
            EXTRAS.into_iter().flat_map(move |extra| {
                [false, true].map(|awaits_fin| (ended_by, extra, awaits_fin))
            })
        })
    }

    fn decide((ended_by, extra, awaits_fin): End, look: Option<Look>) -> OnTheWire {
        close_table(ended_by, extra, awaits_fin, look)
    }

    #[test]
    fn nobody_is_closed_without_a_look_who_had_time_to_say_more() {
        let unseen: Vec<_> = all()
            .filter(|&end| decide(end, None) == OnTheWire::Close)
            .collect();
        let expected =
            [RequestEnd::LineFeed, RequestEnd::Eof].map(|end| (end, Extra::Nothing, false));
        assert_eq!(unseen, expected);
    }

    /// The rows of the table in ARCHITECTURE.md that tells what `close_table` decides.
    fn written_rows() -> Vec<String> {
        let rows = [
            (
                "LF or EOF; the reply never waited",
                (RequestEnd::Eof, Extra::Nothing, false),
            ),
            (
                "LF or EOF; the reply waited",
                (RequestEnd::LineFeed, Extra::Possible, false),
            ),
            (
                "LF or EOF; more was read with it",
                (RequestEnd::LineFeed, Extra::Certain, false),
            ),
            ("a guess", (RequestEnd::Guess, Extra::Possible, false)),
            (
                "a head whose body nobody reads",
                (RequestEnd::Unread, Extra::Possible, false),
            ),
            (
                "any of these, during a drain or by TLS",
                (RequestEnd::LineFeed, Extra::Nothing, true),
            ),
        ];
        let cell = |end, look| match decide(end, look) {
            OnTheWire::Look => "look",
            OnTheWire::Close => "close",
            OnTheWire::Linger => "linger",
        };
        rows.map(|(name, end)| {
            let found = |look| match decide(end, None) {
                OnTheWire::Look => cell(end, Some(look)),
                _ => "–",
            };
            let [fin, empty, terminator, bytes] = LOOKS.map(found);
            let first = cell(end, None);
            format!("| {name} | {first} | {fin} | {empty} | {terminator} | {bytes} |")
        })
        .into()
    }

    #[test]
    fn the_architecture_has_the_table_that_is_here() {
        let text = include_str!("../../ARCHITECTURE.md");
        for row in written_rows() {
            assert!(text.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_a_look_finds_decides_by_the_table() {
        let (empty, terminator) = (Look::Empty, Look::Terminator);
        // Beside the peer's FIN, nothing else closes without lingering.
        let closing = [
            (RequestEnd::LineFeed, Extra::Nothing, empty),
            (RequestEnd::LineFeed, Extra::Possible, empty),
            (RequestEnd::Eof, Extra::Nothing, empty),
            (RequestEnd::Eof, Extra::Possible, empty),
            (RequestEnd::Guess, Extra::Nothing, terminator),
            (RequestEnd::Guess, Extra::Possible, terminator),
            (RequestEnd::Guess, Extra::Certain, terminator),
        ];
        for end in all() {
            for look in LOOKS {
                let (ended_by, extra, awaits_fin) = end;
                let is_known = !awaits_fin && closing.contains(&(ended_by, extra, look));
                let expected = if look == Look::Fin || is_known {
                    OnTheWire::Close
                } else {
                    OnTheWire::Linger
                };
                assert_eq!(decide(end, Some(look)), expected, "{end:?} {look:?}");
            }
        }
    }
}
