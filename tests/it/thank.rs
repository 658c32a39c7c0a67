//! The message pair's server: each client's text is printed and thanked.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::common::{
    Carafe, Followed, connect, exchange, exchange_half_closed, reason_count, until,
};

const THANKS: &[u8] = b"thank you !";

fn gbk(text: &str) -> Vec<u8> {
    encoding_rs::GBK.encode(text).0.into_owned()
}

/// A server and what it prints.
fn server(flags: &[&str]) -> (Carafe, Followed) {
    let mut carafe = Carafe::thank(flags);
    let printed = Followed::new(carafe.stdout());
    (carafe, printed)
}

fn reply(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Ends the server; it must have printed this, and nothing else.
fn assert_printed(carafe: Carafe, printed: &Followed, expected: &str) {
    carafe.stop_clean();
    assert_eq!(printed.wait_for_end(), expected);
}

#[test]
fn gbk_texts_are_printed_as_utf8_and_thanked_one_client_after_another() {
    let (carafe, printed) = server(&[]);
    for text in ["你好", "再见", "plain"] {
        assert_eq!(exchange(carafe.addr(), &gbk(text)).unwrap(), THANKS);
    }
    let half_closed = exchange_half_closed(carafe.addr(), &gbk("谢谢"));
    assert_eq!(half_closed.unwrap(), THANKS);
    assert_printed(carafe, &printed, "你好\n再见\nplain\n谢谢\n");
}

#[test]
fn a_text_is_answered_after_its_first_read() {
    let (carafe, printed) = server(&[]);
    let mut client = connect(carafe.addr());
    client.write_all(b"first").unwrap();
    assert_eq!(reply(&mut client), THANKS);
    client.write_all(b"second").unwrap();
    drop(client);
    assert_printed(carafe, &printed, "first\n");
}

#[test]
fn a_character_cut_in_two_waits_for_its_second_half() {
    // A gap that would outlast the test.
    let (carafe, printed) = server(&["--text-gap", "5m", "--request-timeout", "10m"]);
    let text = gbk("你好");
    let mut client = connect(carafe.addr());
    client.write_all(&text[..3]).unwrap();
    // The second of two answers comes from a later turn: the half has been read by then.
    for _ in 0..2 {
        assert_eq!(exchange(carafe.addr(), b"between").unwrap(), THANKS);
    }
    client.write_all(&text[3..]).unwrap();
    assert_eq!(reply(&mut client), THANKS);
    drop(client);
    assert_printed(carafe, &printed, "between\nbetween\n你好\n");
}

#[test]
fn half_a_character_is_replaced_after_the_gap() {
    let (carafe, printed) = server(&["--text-gap", "50ms"]);
    let mut client = connect(carafe.addr());
    client.write_all(&gbk("你好")[..3]).unwrap();
    assert_eq!(reply(&mut client), THANKS);
    drop(client);
    assert_printed(carafe, &printed, "你\u{fffd}\n");
}

#[test]
fn what_could_steer_a_terminal_is_escaped_and_what_is_no_text_replaced() {
    let (carafe, printed) = server(&[]);
    for text in [&b"a\x1b[2J\nb\r\0"[..], b"a\xff\xffb", b"\"C:\\\""] {
        assert_eq!(exchange(carafe.addr(), text).unwrap(), THANKS);
    }
    let expected = "a\\x1b[2J\\x0ab\\x0d\\x00\na\u{fffd}\u{fffd}b\n\"C:\\\"\n";
    assert_printed(carafe, &printed, expected);
}

#[test]
fn a_long_text_is_printed_whole_and_logged_by_its_beginning() {
    let (carafe, printed) = server(&[]);
    let text = "x".repeat(60_000);
    assert_eq!(
        exchange_half_closed(carafe.addr(), text.as_bytes()).unwrap(),
        THANKS
    );
    printed.wait_for(&format!("{text}\n"));
    let log = carafe.stop_warned(&[]);
    let line = log.lines().find(|line| line.contains("\"xxx"));
    let line = line.unwrap();
    assert!(line.contains("x...\" ") && line.len() < 500, "{line}");
}

#[test]
fn a_client_that_leaves_without_a_text_prints_no_line() {
    let (carafe, printed) = server(&[]);
    let mut client = connect(carafe.addr());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reply(&mut client), b"");
    assert_eq!(exchange(carafe.addr(), b"text").unwrap(), THANKS);
    printed.wait_for("text\n");
    let log = carafe.stop_warned(&[]);
    assert_eq!(reason_count(&log, "client left"), 1, "{log}");
    assert_eq!(printed.wait_for_end(), "text\n");
}

#[test]
fn once_takes_one_text_while_its_client_stays() {
    let (carafe, printed) = server(&["--once"]);
    let mut others = [(); 3].map(|()| connect(carafe.addr()));
    // As the tutorial's client: no end of the text, and no close before the answer.
    let mut first = connect(carafe.addr());
    first.write_all(b"the one").unwrap();
    let mut answer = [0; THANKS.len()];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(answer, THANKS);
    for other in &mut others {
        other.write_all(b"another").unwrap();
        let mut answer = Vec::new();
        other.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"");
    }
    drop((first, others));
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(printed.wait_for_end(), "the one\n");
}

#[test]
fn once_ends_after_one_text() {
    let (carafe, printed) = server(&["--once"]);
    // Leaving without a text doesn't count.
    assert_eq!(exchange_half_closed(carafe.addr(), b"").unwrap(), b"");
    carafe.wait_for_log("client left");
    let answer = exchange_half_closed(carafe.addr(), b"the one");
    assert_eq!(answer.unwrap(), THANKS);
    carafe.wait_for_log("draining\n");
    until("the loop has done all it means to do now", || {
        carafe.is_asleep()
    });
    let late = TcpStream::connect_timeout(&carafe.addr(), Duration::from_millis(300));
    assert!(late.is_err(), "a client was let in after the one text");
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    crate::common::assert_conserved(&log);
    assert_eq!(printed.wait_for_end(), "the one\n");
}

#[test]
fn another_encoding_may_be_asked_for() {
    let (carafe, printed) = server(&["--encoding", "utf-8"]);
    assert_eq!(
        exchange(carafe.addr(), "你好 ☕".as_bytes()).unwrap(),
        THANKS
    );
    assert_printed(carafe, &printed, "你好 ☕\n");
}

#[test]
fn a_stdout_that_nobody_reads_stops_no_thanks() {
    // Never read: more comes than the pipe, the queue and what the writer has in hand can hold.
    let mut carafe = Carafe::thank(&["-q"]);
    let unread = carafe.stdout();
    let text = vec![b'x'; 30_000];
    for _ in 0..120 {
        assert_eq!(exchange(carafe.addr(), &text).unwrap(), THANKS);
    }
    let printed = Followed::new(unread);
    printed.wait_for(" lines dropped: the output didn't take them\n");
    assert_eq!(exchange(carafe.addr(), b"goes on").unwrap(), THANKS);
    printed.wait_for("goes on\n");
    carafe.signal(rustix::process::Signal::TERM);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("did not take every text"), "{log}");
}

#[test]
fn texts_that_stdout_refuses_are_not_lost_in_silence() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_carafe"));
    command
        .args(["thank", "-p", "0", "--bind", "127.0.0.1"])
        .stdout(std::fs::File::create("/dev/full").unwrap());
    let carafe = Carafe::start(command);
    assert_eq!(exchange(carafe.addr(), b"hello").unwrap(), THANKS);
    carafe.signal(rustix::process::Signal::TERM);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("did not take every text"), "{log}");
}
