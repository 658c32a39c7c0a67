//! What the loop did, and why: `serve --trace`. Records come from the seams (`serve/traced`, a handler;
//! [`transport`], a transport; and what of files is called below them), are put in lanes (`timeline`), told
//! in words, and written as a page or for Perfetto.

mod chrome;
pub mod file;
mod page;
pub mod record;
mod timeline;
pub mod transport;
mod words;
