//! The tutorial's nine notes on TCP sockets, each shown on the running server.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

mod common;

use common::{Carafe, exchange};

#[test]
fn placeholder() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), b"hello").unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    assert_eq!(exchange(carafe.addr(), b"a\n").unwrap(), b"hello");
    assert_eq!(
        common::exchange_half_closed(carafe.addr(), b"a").unwrap(),
        b"hello"
    );
    carafe.stop_clean();
}
