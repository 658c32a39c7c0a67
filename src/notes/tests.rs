use std::fs;

use super::*;

fn played(number: u8) -> String {
    let mut out = Vec::new();
    let args = NotesArgs {
        number: Some(number),
        html: None,
    };
    show(&args, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What each goes wrong with, and what comes right, is what the kernel said.
#[test]
fn each_note_shows_what_it_says() {
    for (number, shown) in [
        (1, &["= ECONNREFUSED", "◀─── RST ─", "accept("][..]),
        (2, &["= EADDRINUSE", "getsockname("]),
        (
            3,
            &[
                "= ECONNREFUSED",
                "= EINVAL",
                "= ENOTCONN",
                "= 6, \"a name\"",
            ],
        ),
        (4, &["= EPIPE", "= 6, \"a name\""]),
        (5, &["= 5, \"first\"", "= 6, \"second\""]),
        (6, &["= gave up after 300 ms", "SYN ───✗", "8 bytes"]),
        (7, &["= ECONNREFUSED", "= 7, \"goes on\"", "= ECONNRESET"]),
        (
            8,
            &[
                "= 5, \"bytes\"",
                "◀─── FIN ─",
                "◀─── RST ─",
                "in all, then ECONNRESET",
            ],
        ),
        (9, &["── FIN ──", "= 0\n", "= 9, \"its bytes\""]),
    ] {
        let text = played(number);
        for words in shown {
            assert!(text.contains(words), "note {number}: {words}\n{text}");
        }
        assert!(text.contains("It goes wrong") || number == 5, "{text}");
        for line in text.lines() {
            // Chinese characters take two columns.
            let columns: usize = line.chars().map(|c| 1 + usize::from(c > '\u{2e7f}')).sum();
            assert!(columns <= 80, "{columns}: {line}");
        }
    }
}

#[test]
fn what_is_to_be_read_is_there() {
    for note in &NOTES {
        let (function, file) = note.here;
        let code = fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let is_there = [format!("fn {function}("), format!("fn {function}<")];
        assert!(
            is_there.iter().any(|it| code.contains(it)),
            "{function} in {file}"
        );
    }
}

#[test]
fn a_page_has_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.html");
    let args = NotesArgs {
        number: None,
        html: Some(path.clone()),
    };
    let mut out = Vec::new();
    show(&args, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out)
            .unwrap()
            .matches("Read on: man ")
            .count(),
        9
    );
    let page = fs::read_to_string(&path).unwrap();
    assert_eq!(page.matches("<section>").count(), 9);
    assert!(page.contains("class=\"wire right lost\""), "{page}");
    let nowhere = NotesArgs {
        number: Some(1),
        html: Some(folder.path().join("no/such")),
    };
    let error = show(&nowhere, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("--html: '"), "{error}");
}
