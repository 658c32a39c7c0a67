//! The second of seven ways: a thread a client. What a thread does is `blocking.rs`, line by line; who makes
//! it wait makes nobody else wait.
//!
//!     cargo run --example threads -- ROOT 127.0.0.1:7890
//!
//! The kernel does what the other ways do by hand: it keeps where each client stands (on a stack), and
//! whom to run next. It costs a stack and a switch of threads for each.

#[path = "blocking.rs"]
#[allow(dead_code, reason = "it serves one after the other")]
mod blocking;

use std::io;
use std::sync::Arc;
use std::thread;

fn main() -> io::Result<()> {
    let (listener, turn) = blocking::start()?;
    let (root, name_gap) = (Arc::new(turn.root), turn.name_gap);
    loop {
        let (client, root) = (blocking::accept(&listener), Arc::clone(&root));
        let serve = move || blocking::serve(client, &root, name_gap);
        if let Err(error) = thread::Builder::new().spawn(serve) {
            // No thread: the client is closed without a word.
            blocking::pour::log(format_args!("thread: {error}"));
        }
    }
}
