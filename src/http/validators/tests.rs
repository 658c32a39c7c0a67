//! Tables for validators and for every row of the conditions' rules.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT, and a bit.
const CHANGED: (i64, u64) = (784_111_777, 500_000_000);

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn at(seconds: u64, nanoseconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn key() -> TagKey {
    TagKey::new(b"secret")
}

fn facts(changed: (i64, u64), trust: Trust) -> Facts {
    Facts {
        inode: Some(7),
        length: 100,
        modified: (1, 0),
        changed,
        trust,
    }
}

fn validators(trust: Trust) -> Validators {
    Validators::new(&facts(CHANGED, trust), &key(), at(800_000_000, 0))
}

/// The tag of the file, unquoted.
fn tag() -> String {
    key().tag(&facts(CHANGED, Trust::Second))
}

#[test]
fn what_could_be_shared_by_two_versions_is_not_given() {
    let (tag, date) = (Some(format!("\"{}\"", tag())), Some(SAME.to_owned()));
    for (trust, etag, last_modified) in [
        (Trust::Nothing, None, None),
        (Trust::Stamp, tag.clone(), None),
        (Trust::Second, tag, date),
    ] {
        let validators = validators(trust);
        assert_eq!(validators.etag(), etag, "{trust:?}");
        assert_eq!(validators.last_modified(), last_modified, "{trust:?}");
        assert_eq!(validators.are_final(), trust == Trust::Second);
    }
}

#[test]
fn last_modified_is_a_date_that_http_can_write_and_not_in_the_future() {
    let now = at(800_000_000, 700_000_000);
    for (seconds, expected) in [
        (784_111_777, Some(SAME.to_owned())),
        (800_000_000, date::format(now)),
        (800_000_001, None),
        (253_402_300_799, None),
        (253_402_300_800, None),
        (i64::MAX, None),
        (0, Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned())),
        (-1, None),
        (i64::MIN, None),
    ] {
        let facts = facts((seconds, 999_999_999), Trust::Second);
        let validators = Validators::new(&facts, &key(), now);
        assert_eq!(validators.last_modified(), expected, "{seconds}");
        assert!(validators.etag().unwrap().is_ascii());
    }
}

/// Evaluates field lines, in which TAG stands for the file's tag.
fn decide(method: Method, lines: &[(&str, &str)], validators: &Validators) -> Evaluation {
    let lines: Vec<_> = lines
        .iter()
        .map(|&(name, value)| (name, value.replace("TAG", &tag())))
        .collect();
    let lines = lines
        .iter()
        .map(|(name, value)| (&**name, value.as_bytes()));
    evaluate(method, &lines.collect(), validators)
}

const GO: Evaluation = Evaluation::Proceed { range: false };
const PART: Evaluation = Evaluation::Proceed { range: true };
use Evaluation::{NotModified, PreconditionFailed};

/// RFC 9110, section 13.1, field by field, for a file with both validators and for one that is too
/// young for any.
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
        ("If-None-Match", "\"TAG\"", NotModified, GO),
        ("If-None-Match", "W/\"TAG\"", NotModified, GO),
        ("If-None-Match", "\"x\"", GO, GO),
        ("If-None-Match", "\"x\", W/\"TAG\"", NotModified, GO),
        ("If-None-Match", "TAG", GO, GO),
        ("If-None-Match", "", GO, GO),
        ("If-Modified-Since", BEFORE, GO, GO),
        ("If-Modified-Since", SAME, NotModified, GO),
        ("If-Modified-Since", AFTER, GO, GO),
        ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified, GO),
        ("If-Modified-Since", "Sun Nov  6 08:49:37 1994", NotModified, GO),
        ("If-Modified-Since", "yesterday", GO, GO),
        ("If-Modified-Since", "", GO, GO),
        ("If-Range", "\"TAG\"", GO, GO),
        ("If-Range", "\"x\"", GO, GO),
        ("Range", "bytes=0-1", PART, PART),
    ];
    let (old, young) = (validators(Trust::Second), validators(Trust::Nothing));
    for (name, value, of_old, of_young) in rows {
        let decided = decide(Method::Get, &[(name, value)], &old);
        assert_eq!(decided, of_old, "{name}: {value}");
        let decided = decide(Method::Get, &[(name, value)], &young);
        assert_eq!(decided, of_young, "{name}: {value}, young");
    }
}

/// RFC 9110, section 13.1.5.
#[test]
fn if_range_needs_a_strong_match() {
    let [young, stamped, old] = [Trust::Nothing, Trust::Stamp, Trust::Second].map(validators);
    for (value, of_old, of_stamped, of_young) in [
        ("\"TAG\"", PART, PART, GO),
        ("W/\"TAG\"", GO, GO, GO),
        ("\"x\"", GO, GO, GO),
        ("\"TAG\", \"TAG\"", GO, GO, GO),
        ("*", GO, GO, GO),
        (SAME, PART, GO, GO),
        (BEFORE, GO, GO, GO),
        (AFTER, GO, GO, GO),
        ("yesterday", GO, GO, GO),
        ("", GO, GO, GO),
    ] {
        let lines = [("If-Range", value), ("Range", "bytes=0-1")];
        for (validators, expected) in [(&old, of_old), (&stamped, of_stamped), (&young, of_young)] {
            let decided = decide(Method::Get, &lines, validators);
            assert_eq!(decided, expected, "{value} {validators:?}");
        }
    }
    let twice = [
        ("If-Range", "\"TAG\""),
        ("If-Range", "\"TAG\""),
        ("Range", "bytes=0-1"),
    ];
    assert_eq!(decide(Method::Get, &twice, &old), GO);
}

/// RFC 9110, section 13.2.2: every step with every outcome of the steps before.
#[test]
fn the_order_of_conditions() {
    let (hit, miss) = ("\"TAG\"", "\"x\"");
    let part = ("Range", "bytes=0-1");
    #[rustfmt::skip]
    let cases: &[(&[(&str, &str)], Evaluation)] = &[
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
        // A part needs a condition that holds for this version alone.
        (&[("If-Unmodified-Since", SAME), part], PART),
        (&[("If-Unmodified-Since", AFTER), part], GO),
        (&[("If-Unmodified-Since", AFTER), part, ("If-Range", hit)], GO),
        (&[("If-Unmodified-Since", "yesterday"), part], PART),
        (&[("If-Match", hit), ("If-Unmodified-Since", AFTER), part], PART),
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
            decide(Method::Get, lines, &validators(Trust::Second)),
            *expected,
            "{lines:?}"
        );
        let of_head = match *expected {
            PART => GO,
            other => other,
        };
        assert_eq!(
            decide(Method::Head, lines, &validators(Trust::Second)),
            of_head,
            "HEAD {lines:?}"
        );
        assert_eq!(
            decide(Method::Options, lines, &validators(Trust::Second)),
            GO,
            "OPTIONS {lines:?}"
        );
    }
}

#[test]
fn dates_are_ignored_where_the_file_has_none() {
    let facts = facts((-1, 0), Trust::Second);
    let validators = Validators::new(&facts, &key(), at(800_000_000, 0));
    for (name, value, of_part) in [
        ("If-Unmodified-Since", BEFORE, GO),
        ("If-Modified-Since", AFTER, PART),
        ("If-Range", SAME, GO),
    ] {
        let lines = [(name, value), ("Range", "bytes=0-1")];
        assert_eq!(decide(Method::Get, &lines[..1], &validators), GO, "{name}");
        assert_eq!(decide(Method::Get, &lines, &validators), of_part, "{name}");
    }
}

/// A name's files one after the other, as deployments make them. Whoever has one asks by its date when
/// another is there, and must get that one whole.
#[test]
fn no_date_of_one_version_is_taken_for_another() {
    // Length, mtime, ctime, and when the client got it.
    type File = (u64, (i64, u64), (i64, u64), (i64, u64));
    #[rustfmt::skip]
    let stories: &[(&str, File, File)] = &[
        ("written in one second, fetched between",
            (4, (50, 1), (50, 1), (50, 400_000_000)), (4, (50, 500_000_000), (50, 500_000_000), (60, 0))),
        ("written in one second, of two lengths",
            (4, (50, 1), (50, 1), (50, 400_000_000)), (5, (50, 500_000_000), (50, 500_000_000), (60, 0))),
        ("times that are always the same",
            (4, (1, 0), (50, 1), (55, 0)), (4, (1, 0), (70, 1), (80, 0))),
        ("times that are always the same, deployed twice in one second",
            (4, (1, 0), (50, 1), (50, 400_000_000)), (4, (1, 0), (50, 500_000_000), (60, 0))),
        ("times that are kept, to an older file",
            (4, (40, 0), (50, 1), (55, 0)), (4, (30, 0), (70, 1), (80, 0))),
        ("a folder that is swapped for an older one",
            (4, (50, 1), (50, 1), (55, 0)), (4, (30, 1), (30, 1), (80, 0))),
        ("a time in the future",
            (4, (500, 0), (50, 1), (55, 0)), (4, (500, 0), (70, 1), (80, 0))),
        ("one of coarse stamps, written twice in a tick",
            (4, (50, 0), (50, 0), (51, 900_000_000)), (4, (50, 0), (50, 0), (60, 0))),
    ];
    for (story, before, after) in stories {
        let of = |&(length, modified, changed, clock): &File| {
            let facts = Facts {
                inode: Some(7),
                length,
                modified,
                changed,
                trust: crate::file::version::trust(changed, clock, true),
            };
            Validators::new(&facts, &key(), date::from_stat(clock).unwrap())
        };
        let (before, after) = (of(before), of(after));
        assert!(after.are_final(), "{story}");
        // A client may have a date of its own, too: when it got its file.
        let mut dates = vec![date::format(date::from_stat((55, 0)).unwrap()).unwrap()];
        dates.extend(before.last_modified());
        for date in dates {
            let part = ("Range", "bytes=2-");
            for name in ["If-Modified-Since", "If-Range", "If-Unmodified-Since"] {
                let decided = decide(Method::Get, &[(name, &date), part], &after);
                let is_right = matches!(
                    (name, decided),
                    ("If-Modified-Since", PART) | (_, GO | PreconditionFailed)
                );
                assert!(is_right, "{story}: {name}: {date}: {decided:?}");
            }
        }
        if let Some(etag) = before.etag() {
            assert_ne!(Some(etag), after.etag(), "{story}");
        }
        // Who has this very version is told so.
        let date = after.last_modified().unwrap();
        let same = decide(Method::Get, &[("If-Modified-Since", &date)], &after);
        assert_eq!(same, NotModified, "{story}");
    }
}

proptest! {
    /// A tag that matches is found wherever it stands among others.
    #[test]
    fn a_tag_in_a_list(before in "[a-z,]{0,8}", after in "[a-z,]{0,8}", weak: bool) {
        let weak = if weak { "W/" } else { "" };
        let value = format!("\"{before}\", {weak}\"TAG\" ,,\"{after}\"");
        let lines = [("If-None-Match", &*value)];
        prop_assert_eq!(decide(Method::Get, &lines, &validators(Trust::Second)), NotModified);
    }

    #[test]
    fn nothing_panics(value: Vec<u8>, tagged in "[W/\", x*]{0,20}", seconds: i64, nanos: u64) {
        let names = ["if-match", "if-none-match", "if-modified-since", "if-range"];
        let facts = facts((seconds, nanos), Trust::Second);
        let validators = Validators::new(&facts, &key(), at(800_000_000, 0));
        for value in [&value[..], tagged.as_bytes()] {
            for name in names {
                let fields = [(name, value), ("range", value)].into_iter().collect();
                let _ = evaluate(Method::Get, &fields, &validators);
            }
        }
        prop_assert!(validators.etag().is_some_and(|etag| etag.is_ascii()));
    }
}
