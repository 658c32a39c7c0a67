//! Bytes from a peer that must be kept: the beginning of a request, or what was read beyond one. A
//! few go on the heap. More have pages of their own, since a heap gives nothing back while anything
//! lives above it, and very many of them may come and go together.

use std::io;

use memmap2::MmapMut;

use crate::limits::{INPUT_ON_HEAP_BYTES_MAX, INPUT_PAGE_BYTES, MEMORY_MARGIN_BYTES};

#[derive(Debug)]
pub(super) enum InputBuffer {
    /// Without a heap block while it is empty.
    Few(Vec<u8>),
    Many {
        pages: MmapMut,
        len: usize,
    },
}

impl Default for InputBuffer {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl InputBuffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Few(bytes) => bytes,
            Self::Many { pages, len } => &pages[..*len],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Few(bytes) => bytes.capacity(),
            Self::Many { pages, .. } => pages.len(),
        }
    }

    /// Keeps more, if there is memory for it, and some for all that can't be refused.
    pub(super) fn append(&mut self, more: &[u8]) -> io::Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let mut margin = Vec::<u8>::new();
        margin.try_reserve_exact(MEMORY_MARGIN_BYTES)?;
        // It is given back at once, which must not make a compiler think that nobody needs it.
        drop(std::hint::black_box(margin));
        let end = self.as_slice().len() + more.len();
        match self {
            Self::Few(bytes) if end <= INPUT_ON_HEAP_BYTES_MAX => {
                bytes.try_reserve(more.len())?;
                bytes.extend_from_slice(more);
                return Ok(());
            }
            Self::Many { pages, .. } if end <= pages.len() => {}
            Self::Few(_) | Self::Many { .. } => {
                let mut pages = MmapMut::map_anon(end.next_multiple_of(INPUT_PAGE_BYTES))?;
                let len = self.as_slice().len();
                pages[..len].copy_from_slice(self.as_slice());
                *self = Self::Many { pages, len };
            }
        }
        if let Self::Many { pages, len } = self {
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
}
