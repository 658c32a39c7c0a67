//! Lines of connections that wait, the one that goes first in front. A line is linked through the
//! slots of the slab, so that to enter, to leave and to go cost the same however many there are.

use super::conn_slab::{ConnSlab, Line, Link, NOBODY};

/// The lines: their ends, and how long they are.
#[derive(Debug, Default)]
pub(super) struct Lines([Ends; Line::COUNT]);

#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: u32,
    last: u32,
    len: usize,
}

impl Lines {
    pub(super) fn len(&self, line: impl Into<Line>) -> usize {
        self.0[line.into().index()].len
    }

    /// The key of the one in front.
    pub(super) fn first(&self, line: impl Into<Line>) -> Option<u32> {
        Some(self.0[line.into().index()].first).filter(|&key| key != NOBODY)
    }

    /// Puts a connection that stands nowhere at the end of a line.
    pub(super) fn push<C>(&mut self, slots: &mut ConnSlab<C>, key: u32, line: Line) {
        let ends = &mut self.0[line.index()];
        let prev = std::mem::replace(&mut ends.last, key);
        ends.len += 1;
        match prev {
            NOBODY => ends.first = key,
            prev => slots[prev as usize].link.next = key,
        }
        let slot = &mut slots[key as usize];
        slot.line = Some(line);
        slot.link = Link { prev, next: NOBODY };
    }

    /// Takes a connection out of its line, if it stands in one.
    pub(super) fn remove<C>(&mut self, slots: &mut ConnSlab<C>, key: u32) {
        let slot = &mut slots[key as usize];
        let Some(line) = slot.line.take() else { return };
        let Link { prev, next } = slot.link;
        let ends = &mut self.0[line.index()];
        ends.len -= 1;
        match prev {
            NOBODY => ends.first = next,
            prev => slots[prev as usize].link.next = next,
        }
        match next {
            NOBODY => ends.last = prev,
            next => slots[next as usize].link.prev = prev,
        }
    }
}
