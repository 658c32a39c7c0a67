//! Lists of folders are made while the loop goes on. Meanwhile the client says more, shuts its side or
//! leaves, and others want lists, too.

use std::fs;

use crate::common::{Carafe, count_lines, exchange, until, vanish};
use crate::talk::{Talk, get};
use rustix::process::Signal;
use tempfile::TempDir;

/// Several slices' worth.
const FILES: usize = 200;

/// Folders of many files, listed.
fn server(folders: usize) -> (TempDir, Carafe) {
    let root = tempfile::tempdir().unwrap();
    for folder in 0..folders {
        let folder = root.path().join(format!("d{folder}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..FILES {
            fs::write(folder.join(format!("file-{file:05}")), "").unwrap();
        }
    }
    fs::write(root.path().join("small"), "small bytes").unwrap();
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    (root, carafe)
}

#[track_caller]
fn assert_lists(talk: &mut Talk) {
    let answer = talk.answer();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    for file in [0, 1, FILES / 2, FILES - 1] {
        let name = format!("file-{file:05}");
        assert!(text.contains(&name), "{name} in {} bytes", text.len());
    }
}

#[test]
fn more_lists_at_once_than_are_made_at_once_all_come() {
    let (_root, carafe) = server(20);
    // All of them in the same turn, and each with a second one who wants the same.
    carafe.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..40)
        .map(|at| {
            let mut talk = Talk::to(carafe.addr());
            talk.say(get(&format!("/d{}/", at % 20), ""));
            talk
        })
        .collect();
    carafe.signal(Signal::CONT);
    for talk in &mut clients {
        assert_lists(talk);
    }
    drop(clients);
    carafe.stop_clean();
}

#[test]
fn a_folder_that_goes_while_it_is_listed_takes_nobodys_place() {
    let (root, carafe) = server(20);
    for _ in 0..2 {
        carafe.signal(Signal::STOP);
        let mut clients: Vec<_> = (0..20)
            .map(|at| {
                let mut talk = Talk::to(carafe.addr());
                talk.say(get(&format!("/d{at}/"), ""));
                talk
            })
            .collect();
        carafe.signal(Signal::CONT);
        // Some time between the first slice and the last, or after it: the answers tell.
        for at in 0..20 {
            let folder = root.path().join(format!("d{at}"));
            let aside = root.path().join(format!("gone{at}"));
            fs::rename(folder, aside).unwrap();
        }
        for talk in &mut clients {
            assert!(matches!(talk.answer().status, 200 | 404));
        }
        for at in 0..20 {
            let folder = root.path().join(format!("d{at}"));
            fs::rename(root.path().join(format!("gone{at}")), folder).unwrap();
        }
    }
    let mut talk = Talk::to(carafe.addr());
    talk.say(get("/d7/", ""));
    assert_lists(&mut talk);
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn what_comes_while_a_list_is_made_is_answered_after_it() {
    let (_root, carafe) = server(1);
    let sockets = carafe.sockets();
    // In one write, in several, and with the FIN behind: all in the queue before the first step,
    // and later.
    for is_stopped in [true, false] {
        for half_closes in [true, false] {
            let mut talk = Talk::to(carafe.addr());
            if is_stopped {
                carafe.signal(Signal::STOP);
            }
            talk.say(get("/d0/", "") + &get("/small", ""));
            talk.say(get("/d0/", ""));
            talk.say(get("/small", ""));
            if half_closes {
                talk.half_close();
            }
            if is_stopped {
                carafe.signal(Signal::CONT);
            }
            for _ in 0..2 {
                assert_lists(&mut talk);
                assert_eq!(talk.answer().text(), "small bytes");
            }
            if half_closes {
                talk.ends()
            } else {
                assert_eq!(talk.get("/small").text(), "small bytes")
            }
        }
    }
    until("all are forgotten", || carafe.sockets() == sockets);
    let log = carafe.stop_warned(&[]);
    assert_eq!(count_lines(&log, "\"GET /d0/"), 8, "{log}");
}

#[test]
fn a_client_that_leaves_while_its_list_is_made_harms_nobody() {
    let (_root, carafe) = server(3);
    let sockets = carafe.sockets();
    for reset in [true, false] {
        carafe.signal(Signal::STOP);
        for at in 0..9 {
            let mut talk = Talk::to(carafe.addr());
            talk.say(get(&format!("/d{}/", at % 3), ""));
            let stream = talk.stream.into_inner();
            if reset { vanish(stream) } else { drop(stream) }
        }
        carafe.signal(Signal::CONT);
        let mut talk = Talk::to(carafe.addr());
        talk.say(get("/d1/", "Connection: close\r\n"));
        assert_lists(&mut talk);
        talk.ends();
    }
    until("all are forgotten", || carafe.sockets() == sockets);
    carafe.stop_clean();
}

#[test]
fn a_stopping_server_finishes_its_lists() {
    let (_root, carafe) = server(1);
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(talk.get("/small").status, 200);
    carafe.signal(Signal::STOP);
    talk.say(get("/d0/", ""));
    carafe.signal(Signal::TERM);
    carafe.signal(Signal::CONT);
    assert_lists(&mut talk);
    talk.ends();
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_bare_client_that_names_a_folder_gets_its_list() {
    let (_root, carafe) = server(1);
    for name in ["d0\n", "/d0/\r\n"] {
        let menu = exchange(carafe.addr(), name.as_bytes()).unwrap();
        let menu = String::from_utf8(menu).unwrap();
        assert!(menu.contains("file-00000") && menu.contains("file-00199"));
    }
    assert_eq!(exchange(carafe.addr(), b"missing\n").unwrap(), b"");
    // A name that is too long is no folder's, even where its beginning is one.
    let name = format!("d0{}x\n", "/".repeat(1_100));
    assert_eq!(exchange(carafe.addr(), name.as_bytes()).unwrap(), b"");
    carafe.stop_clean();
}
