//! Bytes from a peer that must be kept: the beginning of a request, or what was read beyond one. A
//! few go on the heap. More have pages of their own, since a heap gives nothing back while anything
//! lives above it, and very many of them may come and go together.

use std::io;

use memmap2::MmapMut;

use crate::limits::{INPUT_ON_HEAP_BYTES_MAX, INPUT_PAGE_BYTES, MEMORY_MARGIN_BYTES};

#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    memory: Memory,
    /// How many bytes in front are answered.
    answered: usize,
}

#[derive(Debug)]
enum Memory {
    /// Without a heap block while it is empty.
    Heap(Vec<u8>),
    Pages {
        pages: MmapMut,
        len: usize,
    },
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Memory {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Pages { pages, len } => &pages[..*len],
        }
    }
}

impl InputBuffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.memory.as_slice()[self.answered..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.memory {
            Memory::Heap(bytes) => bytes.capacity(),
            Memory::Pages { pages, .. } => pages.len(),
        }
    }

    /// The first so many bytes are answered. Those behind them stay where they are: to move them for each
    /// of many requests that came together would take time that grows with the square.
    pub(super) fn consume(&mut self, count: usize) {
        self.answered += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Keeps more, if there is memory for it, and some for all that can't be refused.
    pub(super) fn append(&mut self, more: &[u8]) -> io::Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        if self.answered > 0 {
            let before = std::mem::take(self);
            self.append(before.as_slice())?;
        }
        let mut margin = Vec::<u8>::new();
        margin.try_reserve_exact(MEMORY_MARGIN_BYTES)?;
        // It is given back at once, which must not make a compiler think that nobody needs it.
        drop(std::hint::black_box(margin));
        let end = self.as_slice().len() + more.len();
        match &mut self.memory {
            Memory::Heap(bytes) if end <= INPUT_ON_HEAP_BYTES_MAX => {
                bytes.try_reserve(more.len())?;
                bytes.extend_from_slice(more);
                return Ok(());
            }
            Memory::Pages { pages, .. } if end <= pages.len() => {}
            Memory::Heap(_) | Memory::Pages { .. } => {
                let mut pages = MmapMut::map_anon(end.next_multiple_of(INPUT_PAGE_BYTES))?;
                let len = self.as_slice().len();
                pages[..len].copy_from_slice(self.as_slice());
                self.memory = Memory::Pages { pages, len };
            }
        }
        if let Memory::Pages { pages, len } = &mut self.memory {
            pages[*len..end].copy_from_slice(more);
            *len = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_came_however_it_came() {
        let all: Vec<u8> = (0..20_000_u32).map(|at| at as u8).collect();
        for step in [
            1,
            7,
            100,
            INPUT_ON_HEAP_BYTES_MAX,
            3000,
            INPUT_PAGE_BYTES,
            20_000,
        ] {
            let mut kept = InputBuffer::default();
            assert_eq!(kept.held_bytes(), 0);
            for part in all.chunks(step) {
                kept.append(part).unwrap();
            }
            assert_eq!(kept.as_slice(), all, "{step}");
            assert!(kept.held_bytes() >= all.len());
            assert!(kept.held_bytes() < all.len() + INPUT_PAGE_BYTES);
        }
    }

    #[test]
    fn a_few_bytes_take_no_page() {
        let mut kept = InputBuffer::default();
        kept.append(&[]).unwrap();
        assert!(kept.is_empty() && kept.held_bytes() == 0);
        kept.append(&[b'x'; INPUT_ON_HEAP_BYTES_MAX]).unwrap();
        assert_eq!(kept.held_bytes(), INPUT_ON_HEAP_BYTES_MAX);
        kept.append(b"x").unwrap();
        assert_eq!(kept.held_bytes(), INPUT_PAGE_BYTES);
        assert_eq!(kept.as_slice(), [b'x'; INPUT_ON_HEAP_BYTES_MAX + 1]);
    }

    #[test]
    fn what_is_answered_is_gone_and_the_rest_stays_in_order() {
        for length in [10, INPUT_ON_HEAP_BYTES_MAX, 3000] {
            let all: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut kept = InputBuffer::default();
            kept.append(&all).unwrap();
            kept.consume(3);
            assert_eq!(kept.as_slice(), &all[3..]);
            kept.append(b"more").unwrap();
            assert_eq!(kept.as_slice(), [&all[3..], b"more"].concat());
            kept.consume(all.len() + 1);
            assert!(kept.is_empty() && kept.held_bytes() == 0);
        }
    }
}
