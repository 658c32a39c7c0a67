//! An edge-triggered socket under a schedule, and schedules that can be enumerated.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use super::{Bench, Edges, Turning, must_wait, read_unless_cold};
use crate::conn::transport::{SendFileError, Transport};
use crate::file::{OpenFile, Probe, ReadError};
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, Readiness};

/// Decisions of a schedule: enumerated one after the other, or taken from given bytes.
#[derive(Debug, Default)]
pub struct Choices {
    /// Each decision so far, with the number of its options.
    path: Vec<(u32, u32)>,
    at: usize,
    given: Option<VecDeque<u8>>,
}

impl Choices {
    /// Decisions from bytes; when they run out, always the first option.
    pub fn given(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self {
            given: Some(bytes.into_iter().collect()),
            ..Self::default()
        }
    }

    /// Decides: a number below `options`.
    pub fn below(&mut self, options: u32) -> u32 {
        if let Some(given) = &mut self.given {
            return u32::from(given.pop_front().unwrap_or(0)) % options;
        }
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        let (choice, of) = self.path[self.at];
        assert_eq!(of, options, "the run depends on more than its choices");
        self.at += 1;
        choice
    }

    /// Goes on to the next schedule; false after the last one.
    pub fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, options)) = self.path.pop() {
            if choice + 1 < options {
                self.path.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

/// A model of an edge-triggered socket under a schedule. Bytes arrive when the schedule says; an
/// edge is reported only for what arrived since the last one and is still unread.
#[derive(Debug)]
pub struct Wire {
    /// The decisions.
    pub choices: Choices,
    input: Vec<u8>,
    /// Whether the peer shuts its side after the input.
    ends: bool,
    arrived: usize,
    read: usize,
    fin_arrived: bool,
    /// Something arrived since the last edge.
    is_new: bool,
    /// WouldBlocks that writes may still meet.
    blocks_left: u32,
    /// Looks at a file that may still find it cold.
    colds_left: u32,
    /// So many bytes of the input come first, and the rest later.
    cut_at: Option<usize>,
    /// The connection may break at any call.
    may_break: bool,
    is_broken: bool,
    read_blocked: bool,
    write_blocked: bool,
    /// A write has promised more, and nothing has come since.
    holds_back: bool,
    /// What was written.
    pub sent: Vec<u8>,
    /// Whether the write side was shut.
    pub is_shut: bool,
    /// Whether a close would be a reset.
    pub resets_on_close: bool,
}

impl Wire {
    /// A socket on which `input` will arrive, then a FIN if it `ends`. Writes may block so many
    /// times.
    pub fn new(choices: Choices, input: &[u8], ends: bool, blocks: u32) -> Self {
        Self {
            choices,
            input: input.to_vec(),
            ends,
            arrived: 0,
            read: 0,
            fin_arrived: false,
            is_new: false,
            blocks_left: blocks,
            colds_left: 0,
            cut_at: None,
            may_break: false,
            is_broken: false,
            read_blocked: false,
            write_blocked: false,
            holds_back: false,
            sent: Vec::new(),
            is_shut: false,
            resets_on_close: false,
        }
    }

    /// Lets the connection break where the schedule says.
    #[must_use]
    pub fn fragile(self) -> Self {
        Self {
            may_break: true,
            ..self
        }
    }

    /// Lets so many bytes of the input come at once, and the rest at once when those were read.
    #[must_use]
    pub fn cut_at(self, count: usize) -> Self {
        Self {
            cut_at: Some(count),
            ..self
        }
    }

    /// How many bytes the peer has said.
    pub fn said(&self) -> usize {
        self.input.len()
    }

    /// Lets files be cold where the schedule says, so many times.
    #[must_use]
    pub fn cold(self, times: u32) -> Self {
        Self {
            colds_left: times,
            ..self
        }
    }

    fn is_next_cold(&mut self) -> bool {
        let is_cold = self.colds_left > 0 && self.choices.below(2) == 1;
        self.colds_left -= u32::from(is_cold);
        is_cold
    }

    /// Whether the schedule broke the connection.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Lets at least `min` more of the input arrive; the FIN counts as one.
    fn arrive(&mut self, min: u32) {
        if let Some(cut) = self.cut_at {
            let (all, before) = (self.input.len(), self.arrived);
            // The rest comes in a later turn.
            let is_over = min > 0 && self.read >= cut;
            self.arrived = before.max(if is_over { all } else { cut.min(all) });
            self.is_new |= self.arrived > before;
            return;
        }
        let rest = (self.input.len() - self.arrived) as u32;
        let fin = u32::from(self.ends && !self.fin_arrived);
        let count = (min + self.choices.below(rest + fin - min + 1)).min(rest + fin);
        self.is_new |= count > 0;
        self.fin_arrived |= count > rest;
        self.arrived += count.min(rest) as usize;
    }

    /// Gives the peer more to say, and whether it shuts its side after that.
    pub fn say(&mut self, bytes: &[u8], ends: bool) {
        self.input.extend_from_slice(bytes);
        self.ends = ends;
    }

    fn next_edge(&mut self) -> Option<Event> {
        let waits_for_room = std::mem::take(&mut self.write_blocked);
        let more = self.arrived < self.input.len() || (self.ends && !self.fin_arrived);
        let is_unread = self.is_new && (self.read < self.arrived || self.fin_arrived);
        if !waits_for_room && !is_unread {
            if !more {
                return None;
            }
            self.arrive(1);
        }
        self.is_new = false;
        let readable = self.read < self.arrived || self.fin_arrived;
        Some(Event::Ready(Readiness {
            readable,
            writable: waits_for_room,
            read_closed: self.fin_arrived,
            dead: false,
        }))
    }

    fn breaks(&mut self) -> bool {
        self.is_broken |= self.may_break && self.choices.below(64) == 63;
        self.is_broken
    }

    /// How many of `count` bytes a write takes.
    fn room(&mut self, count: usize) -> io::Result<usize> {
        assert!(!self.write_blocked, "a write after WouldBlock in one turn");
        if self.breaks() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        // All of a few bytes; of many, the sizes at which things go wrong.
        let sizes: Vec<usize> = match count {
            ..=8 => (1..=count).rev().collect(),
            _ => vec![count, 1, count / 2, count - 1, 7],
        };
        let may_block = u32::from(self.blocks_left > 0);
        let choice = self.choices.below(sizes.len() as u32 + may_block) as usize;
        sizes.get(choice).copied().ok_or_else(|| {
            self.blocks_left -= 1;
            self.write_blocked = true;
            ErrorKind::WouldBlock.into()
        })
    }
}

impl Turning for Wire {
    fn begin_turn(&mut self) {
        (self.read_blocked, self.write_blocked) = (false, false);
    }

    fn holds_back(&self) -> bool {
        self.holds_back
    }
}

impl Transport for Wire {
    fn peer_has_finished(&mut self) -> bool {
        self.fin_arrived
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        None
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!self.read_blocked, "a read after WouldBlock in one turn");
        if self.breaks() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.arrive(0);
        let n = (self.arrived - self.read).min(buf.len());
        if n == 0 && !self.fin_arrived {
            self.read_blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        buf[..n].copy_from_slice(&self.input[self.read..self.read + n]);
        self.read += n;
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let n = self.room(bytes.len())?;
        self.holds_back = more;
        self.sent.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) {
        self.holds_back = false;
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        let room = self.room(count).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => SendFileError::WouldBlock,
            _ => SendFileError::Socket(error),
        })?;
        self.holds_back = false;
        let mut bytes = vec![0; room];
        let n = file
            .read_blocking(&mut bytes, offset)
            .map_err(SendFileError::File)?;
        self.sent.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn would_block(&mut self, file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
        self.is_next_cold() || must_wait(file, start, count, probe)
    }

    fn read_file(
        &mut self,
        file: &OpenFile,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize, ReadError> {
        read_unless_cold(self, file, buf, start)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.is_shut = true;
        Ok(())
    }

    fn reset_on_close(&mut self, on: bool) {
        self.resets_on_close = on;
    }

    fn acked_bytes(&mut self, _: u64) -> u64 {
        self.sent.len() as u64
    }
}

impl Edges for Wire {
    fn edge(&mut self) -> Option<Event> {
        self.next_edge()
    }
}

impl<T: Edges, S: Protocol> Bench<T, S> {
    /// Steps until the connection ends, as the loop would: edges while there are any, then time.
    pub fn run(&mut self) -> Action {
        let mut next = self.step(Event::Start);
        for _ in 0..10_000 {
            next = match next {
                Action::Close(_) | Action::Reset(_) => return next,
                Action::Yield => self.step(Event::Resume),
                Action::Suspend if self.task.is_some() => self.fetch(),
                Action::Suspend => self.step(Event::Woken),
                Action::Wait => match self.transport.edge() {
                    Some(edge) => self.step(edge),
                    None => self.expire(),
                },
            };
        }
        unreachable!("no end in sight")
    }
}
