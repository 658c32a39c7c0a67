//! What very many silent connections weigh, without a kernel: the slab's places and the wheel's
//! entries of a million. In a process of its own, whose memory is weighed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use carafe::testing::crowd::Crowd;
use rustix::param::page_size;

const PATIENCE: Duration = Duration::from_secs(60);

/// Over what time they come.
const ARRIVALS: Duration = Duration::from_secs(30);

/// Memory that this process holds, in bytes.
fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let resident: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * page_size()
}

/// They come, wait, and run out of time. `most` is what all of them may take, in bytes.
fn come_and_go(count: u32, most: usize) {
    let (start, before) = (Instant::now(), resident_bytes());
    let mut crowd = Crowd::new(start, PATIENCE);
    for number in 0..count {
        crowd.admit(start + ARRIVALS / count * number);
    }
    let taken = resident_bytes().saturating_sub(before);
    let each = taken as f64 / f64::from(count);
    let _ = writeln!(
        std::io::stderr(),
        "{count} silent connections take {taken} bytes, {each:.1} each"
    );
    assert!(taken <= most, "{taken} bytes");
    assert_eq!(crowd.expire(start + PATIENCE - Duration::from_millis(1)), 0);
    assert_eq!(
        crowd.expire(start + ARRIVALS + PATIENCE + Duration::from_secs(1)),
        count as usize
    );
    assert!(crowd.is_empty());
}

#[test]
fn a_hundred_thousand_fit_into_ten_megabytes() {
    come_and_go(100_000, 10_000_000);
}

#[test]
#[ignore = "a million: for a release build, alone in its process"]
fn a_million_fit_into_a_hundred_megabytes() {
    come_and_go(1_000_000, 100_000_000);
}
