//! Tables for validators and for every row of the conditions' rules.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT, and a bit.
const MODIFIED: (i64, u64) = (784_111_777, 500_000_000);

/// Its strong tag, unquoted.
const TAG: &str = "2a-7-64-2ebc98a1.1dcd6500";

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn at(seconds: u64, nanoseconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn version(modified: (i64, u64)) -> FileVersion {
    (0x2a, 7, 100, modified, (0, 0))
}

fn strong() -> Validators {
    Validators::new(version(MODIFIED), at(800_000_000, 0))
}

fn weak() -> Validators {
    Validators::new(version(MODIFIED), at(784_111_778, 0))
}

#[test]
fn a_tag_is_weak_for_two_seconds_and_in_the_future() {
    let tag = format!("\"{TAG}\"");
    for (now, expected) in [
        (at(784_111_779, 500_000_000), tag.clone()),
        (at(784_111_779, 499_999_999), format!("W/{tag}")),
        (at(784_111_777, 500_000_000), format!("W/{tag}")),
        (at(784_111_777, 0), format!("W/{tag}")),
        (at(0, 0), format!("W/{tag}")),
    ] {
        assert_eq!(Validators::new(version(MODIFIED), now).etag(), expected);
    }
}

#[test]
fn every_part_of_the_version_but_ctime_counts() {
    let (device, inode, length, modified, changed) = version(MODIFIED);
    let tag = |version| Validators::new(version, at(800_000_000, 0)).etag();
    let one = tag((device, inode, length, modified, changed));
    for other in [
        (device + 1, inode, length, modified, changed),
        (device, inode + 1, length, modified, changed),
        (device, inode, length + 1, modified, changed),
        (device, inode, length, (modified.0 + 1, modified.1), changed),
        (device, inode, length, (modified.0, modified.1 + 1), changed),
    ] {
        assert_ne!(tag(other), one);
    }
    assert_eq!(tag((device, inode, length, modified, (9, 9))), one);
}

#[test]
fn last_modified_is_a_date_that_http_can_write_and_not_in_the_future() {
    let now = at(800_000_000, 700_000_000);
    let today = date::format(now);
    for (seconds, expected) in [
        (784_111_777, Some(SAME.to_owned())),
        (800_000_000, today.clone()),
        (800_000_001, today.clone()),
        (253_402_300_799, today),
        (253_402_300_800, None),
        (i64::MAX, None),
        (0, Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned())),
        (-1, None),
        (i64::MIN, None),
    ] {
        let validators = Validators::new(version((seconds, 999_999_999)), now);
        assert_eq!(validators.last_modified(), expected, "{seconds}");
        assert!(validators.etag().is_ascii());
    }
    let too_early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(
        Validators::new(version(MODIFIED), too_early).last_modified(),
        None
    );
}

/// Evaluates field lines, in which TAG stands for the file's tag.
fn decide(method: Method, lines: &[(&str, &str)], validators: &Validators) -> Decision {
    let lines: Vec<_> = lines
        .iter()
        .map(|&(name, value)| (name, value.replace("TAG", TAG)))
        .collect();
    let lines = lines
        .iter()
        .map(|(name, value)| (&**name, value.as_bytes()));
    evaluate(method, &lines.collect(), validators)
}

const GO: Decision = Decision::Proceed { range: false };
const PART: Decision = Decision::Proceed { range: true };
use Decision::{NotModified, PreconditionFailed};

/// RFC 9110, section 13.1, field by field, for a file with a strong and with a weak tag.
#[test]
fn single_conditions() {
    #[rustfmt::skip]
    let rows = [
        ("If-Match", "*", GO, GO),
        ("If-Match", "\"TAG\"", GO, PreconditionFailed),
        ("If-Match", "W/\"TAG\"", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"x\"", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"x\", \"TAG\"", GO, PreconditionFailed),
        ("If-Match", "\"a,b\" ,,\t\"TAG\",", GO, PreconditionFailed),
        ("If-Match", "TAG", PreconditionFailed, PreconditionFailed),
        ("If-Match", "", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"x\", *", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"x\" \"TAG\"", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"TAG\"x", PreconditionFailed, PreconditionFailed),
        ("If-Match", "w/\"TAG\"", PreconditionFailed, PreconditionFailed),
        ("If-Match", "\"TAG", PreconditionFailed, PreconditionFailed),
        ("If-Unmodified-Since", BEFORE, PreconditionFailed, PreconditionFailed),
        ("If-Unmodified-Since", SAME, GO, GO),
        ("If-Unmodified-Since", AFTER, GO, GO),
        ("If-Unmodified-Since", "yesterday", GO, GO),
        ("If-Unmodified-Since", "", GO, GO),
        ("If-None-Match", "*", NotModified, NotModified),
        ("If-None-Match", "\"TAG\"", NotModified, NotModified),
        ("If-None-Match", "W/\"TAG\"", NotModified, NotModified),
        ("If-None-Match", "\"x\"", GO, GO),
        ("If-None-Match", "\"x\", W/\"TAG\"", NotModified, NotModified),
        ("If-None-Match", "TAG", GO, GO),
        ("If-None-Match", "", GO, GO),
        ("If-Modified-Since", BEFORE, GO, GO),
        ("If-Modified-Since", SAME, NotModified, NotModified),
        ("If-Modified-Since", AFTER, NotModified, NotModified),
        ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified, NotModified),
        ("If-Modified-Since", "Sun Nov  6 08:49:37 1994", NotModified, NotModified),
        ("If-Modified-Since", "yesterday", GO, GO),
        ("If-Modified-Since", "", GO, GO),
        ("If-Range", "\"TAG\"", GO, GO),
        ("If-Range", "\"x\"", GO, GO),
        ("Range", "bytes=0-1", PART, PART),
    ];
    for (name, value, of_strong, of_weak) in rows {
        let decided = decide(Method::Get, &[(name, value)], &strong());
        assert_eq!(decided, of_strong, "{name}: {value}");
        let decided = decide(Method::Get, &[(name, value)], &weak());
        assert_eq!(decided, of_weak, "{name}: {value}, weak");
    }
}

/// RFC 9110, section 13.1.5.
#[test]
fn if_range_needs_a_strong_match() {
    for (value, of_strong, of_weak) in [
        ("\"TAG\"", PART, GO),
        ("W/\"TAG\"", GO, GO),
        ("\"x\"", GO, GO),
        ("\"TAG\", \"TAG\"", GO, GO),
        ("*", GO, GO),
        (SAME, PART, GO),
        (BEFORE, GO, GO),
        (AFTER, GO, GO),
        ("yesterday", GO, GO),
        ("", GO, GO),
    ] {
        let lines = [("If-Range", value), ("Range", "bytes=0-1")];
        assert_eq!(decide(Method::Get, &lines, &strong()), of_strong, "{value}");
        assert_eq!(
            decide(Method::Get, &lines, &weak()),
            of_weak,
            "{value}, weak"
        );
    }
    let twice = [
        ("If-Range", "\"TAG\""),
        ("If-Range", "\"TAG\""),
        ("Range", "bytes=0-1"),
    ];
    assert_eq!(decide(Method::Get, &twice, &strong()), GO);
}

/// RFC 9110, section 13.2.2: every step with every outcome of the steps before.
#[test]
fn the_order_of_conditions() {
    let (hit, miss) = ("\"TAG\"", "\"x\"");
    let part = ("Range", "bytes=0-1");
    #[rustfmt::skip]
    let cases: &[(&[(&str, &str)], Decision)] = &[
        (&[], GO),
        // 1: If-Match decides, If-Unmodified-Since doesn't.
        (&[("If-Match", hit), ("If-Unmodified-Since", BEFORE)], GO),
        (&[("If-Match", miss), ("If-Unmodified-Since", AFTER)], PreconditionFailed),
        // 1 or 2 failed: nothing else counts.
        (&[("If-Match", miss), ("If-None-Match", hit)], PreconditionFailed),
        (&[("If-Match", miss), part], PreconditionFailed),
        (&[("If-Unmodified-Since", BEFORE), ("If-None-Match", hit)], PreconditionFailed),
        (&[("If-Unmodified-Since", BEFORE), ("If-Modified-Since", SAME)], PreconditionFailed),
        // 1 or 2 held: on to 3 and 4.
        (&[("If-Match", hit), ("If-None-Match", hit)], NotModified),
        (&[("If-Match", hit), ("If-None-Match", miss)], GO),
        (&[("If-Match", hit), ("If-Modified-Since", SAME)], NotModified),
        (&[("If-Unmodified-Since", SAME), ("If-None-Match", hit)], NotModified),
        (&[("If-Unmodified-Since", SAME), ("If-Modified-Since", SAME)], NotModified),
        (&[("If-Unmodified-Since", SAME), ("If-Modified-Since", BEFORE)], GO),
        // 3: If-None-Match decides, If-Modified-Since doesn't.
        (&[("If-None-Match", miss), ("If-Modified-Since", AFTER)], GO),
        (&[("If-None-Match", "bad"), ("If-Modified-Since", AFTER)], GO),
        (&[("If-None-Match", hit), ("If-Modified-Since", BEFORE)], NotModified),
        // 3 or 4 failed: no range.
        (&[("If-None-Match", hit), part], NotModified),
        (&[("If-Modified-Since", SAME), part, ("If-Range", hit)], NotModified),
        // 5.
        (&[("If-None-Match", miss), part], PART),
        (&[("If-Match", hit), part], PART),
        (&[("If-Match", hit), ("If-None-Match", miss), part, ("If-Range", hit)], PART),
        (&[("If-Match", hit), ("If-None-Match", miss), part, ("If-Range", miss)], GO),
        (&[("If-Modified-Since", BEFORE), part, ("If-Range", SAME)], PART),
        // Several lines are one list; a date stands only once.
        (&[("If-None-Match", miss), ("If-None-Match", hit)], NotModified),
        (&[("If-Match", miss), ("If-Match", hit)], GO),
        (&[("If-None-Match", miss), ("If-None-Match", "*")], GO),
        (&[("If-Modified-Since", SAME), ("If-Modified-Since", SAME)], GO),
        (&[("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)], GO),
    ];
    for (lines, expected) in cases {
        assert_eq!(
            decide(Method::Get, lines, &strong()),
            *expected,
            "{lines:?}"
        );
        let of_head = match *expected {
            PART => GO,
            other => other,
        };
        assert_eq!(
            decide(Method::Head, lines, &strong()),
            of_head,
            "HEAD {lines:?}"
        );
        assert_eq!(
            decide(Method::Options, lines, &strong()),
            GO,
            "OPTIONS {lines:?}"
        );
    }
}

#[test]
fn dates_are_ignored_where_the_file_has_none() {
    let validators = Validators::new(version((-1, 0)), at(800_000_000, 0));
    for (name, value, expected) in [
        ("If-Unmodified-Since", BEFORE, GO),
        ("If-Modified-Since", AFTER, GO),
        ("If-Range", SAME, GO),
    ] {
        assert_eq!(
            decide(Method::Get, &[(name, value)], &validators),
            expected,
            "{name}"
        );
    }
    let lines = [("If-Range", SAME), ("Range", "bytes=0-1")];
    assert_eq!(decide(Method::Get, &lines, &validators), GO);
}

proptest! {
    /// A tag that matches is found wherever it stands among others.
    #[test]
    fn a_tag_in_a_list(before in "[a-z,]{0,8}", after in "[a-z,]{0,8}", weak: bool) {
        let weak = if weak { "W/" } else { "" };
        let value = format!("\"{before}\", {weak}\"TAG\" ,,\"{after}\"");
        let lines = [("If-None-Match", &*value)];
        prop_assert_eq!(decide(Method::Get, &lines, &strong()), NotModified);
    }

    #[test]
    fn nothing_panics(value: Vec<u8>, tagged in "[W/\", x*]{0,20}", seconds: i64, nanos: u64) {
        let names = ["if-match", "if-none-match", "if-modified-since", "if-range"];
        let validators = Validators::new(version((seconds, nanos)), at(800_000_000, 0));
        for value in [&value[..], tagged.as_bytes()] {
            for name in names {
                let fields = [(name, value), ("range", value)].into_iter().collect();
                let _ = evaluate(Method::Get, &fields, &validators);
            }
        }
        prop_assert!(validators.etag().is_ascii());
    }
}
