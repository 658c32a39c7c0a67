//! stub
use std::time::SystemTime;
/// t
#[derive(Clone, Debug)]
pub struct Entry {
    /// t
    pub name: Vec<u8>,
    /// t
    pub kind: EntryKind,
    /// t
    pub size: u64,
    /// t
    pub mtime: Option<SystemTime>,
}
/// t
#[derive(Clone, Copy, Debug)]
pub enum EntryKind {
    /// t
    File,
    /// t
    Folder,
}
/// t
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// t
    Html,
    /// t
    Json,
    /// t
    Gopher {
        /// t
        host: String,
        /// t
        port: u16,
    },
}
impl Format {
    /// t
    pub fn content_type(&self) -> &'static str {
        "text/html"
    }
}
/// t
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order;
impl Order {
    /// t
    pub fn from_query(_q: &[u8]) -> Self {
        Self
    }
}
/// t
#[derive(Debug)]
pub struct Renderer(Vec<Entry>);
impl Renderer {
    /// t
    pub fn new(_path: &[u8], entries: Vec<Entry>, _o: Order, _f: Format) -> Self {
        Self(entries)
    }
    /// t
    pub fn next_chunk(&mut self, n: usize) -> Option<Vec<u8>> {
        let k = self.0.len().min(n);
        (k > 0).then(|| {
            self.0
                .drain(..k)
                .flat_map(|e| [e.name, vec![b'\n']].concat())
                .collect()
        })
    }
}
/// t
pub fn accepts_json(_a: &[u8]) -> bool {
    false
}
