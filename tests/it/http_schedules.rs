//! Random requests, several on one connection, under random schedules: what is answered doesn't
//! depend on how the input is split, when writes block and how much they take.
//!
//! A random run prints its seed when it fails; `CARAFE_SEED=... cargo test --test http_schedules`
//! replays it.

use crate::chaos::chaos;
use proptest::prelude::*;
use proptest::sample::select;

const CASES: u32 = 4000;

/// Requests that a client may send, sound ones and others.
const REQUESTS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /a HTTP/1.1\nHost: h\n\n",
    "HEAD /big HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /big HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=3-40000\r\n\r\n",
    "GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9,40-60,-7\r\n\r\n",
    "GET /empty HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /d HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /d/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /list/?tar HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /list/?tar HTTP/1.1\r\nHost: h\r\nRange: bytes=9-600,700-1500,-7\r\n\r\n",
    "GET /list/ HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "DELETE /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET /a HTTP/1.0\r\n\r\n",
    "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    "GET /a HTTP/1.1\r\n\r\n",
    "GET /a HTTP/1.2\r\nHost: h\r\n\r\n",
    "GET /a HTTP/9.9\r\nHost: h\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
    "GET\t/a FTP/1.1 \r\n\r\n",
    "GET /a\r\n",
    "\r\n",
    "a\n",
    "big\n",
    "missing\n",
];

#[test]
fn answers_do_not_depend_on_the_schedule() {
    let inputs = (
        proptest::collection::vec(select(REQUESTS), 1..6),
        proptest::collection::vec(any::<u8>(), 0..255),
        any::<prop::sample::Index>(),
    );
    chaos(CASES, inputs, |(requests, schedule, cut)| {
        let whole = requests.concat();
        // Sometimes the last request is cut short.
        let input = &whole.as_bytes()[..whole.len() - cut.index(whole.len().min(20))];
        let count = [schedule.len() as u8];
        crate::targets::connection(&[&count, &schedule[..], input].concat());
        Ok(())
    });
}
