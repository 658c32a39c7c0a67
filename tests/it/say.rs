//! `carafe say` as its users meet it: the real program against small servers.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::fake::{Outcome, Untouched, carafe, receive_once, reset, run, serve};

fn say(words: &[&str], answers: &[u8]) -> Outcome {
    let mut command = carafe(Path::new("."));
    command.arg("say").args(words);
    run(&mut command, answers)
}

/// A server that expects a request, byte for byte, and answers it.
fn answering(request: &'static [u8], reply: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| {
        assert_eq!(receive_once(&stream), request);
        stream.write_all(reply).unwrap();
    })
}

const GREETING: &str = "你好, carafe";
const GREETING_GBK: &[u8] = b"\xc4\xe3\xba\xc3, carafe";

#[test]
fn a_text_goes_out_in_gbk_and_the_reply_comes_back_in_it() {
    let server = answering(GREETING_GBK, b"thank you ! \xd0\xbb\xd0\xbb").to_string();
    let outcome = say(&[&server, GREETING], b"");
    outcome.is(0, "");
    assert_eq!(outcome.stdout, "thank you ! 谢谢\n".as_bytes());
}

#[test]
fn another_encoding_is_taken_at_its_word() {
    // What looks like a byte order mark is text in an encoding that has none.
    let server = answering(b"caf\xe9", b"\xff\xfe").to_string();
    let outcome = say(&[&server, "café", "--encoding", "latin1"], b"");
    outcome.is(0, "");
    assert_eq!(outcome.stdout, "ÿþ\n".as_bytes());
}

#[test]
fn no_lf_and_no_half_close_follow_the_text() {
    let server = serve(|mut stream| {
        assert_eq!(receive_once(&stream), b"a");
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!(stream.read(&mut [0]).is_err(), "neither a byte nor an end");
        stream.write_all(b"b").unwrap();
    });
    say(&[&server.to_string(), "a"], b"").is(0, "");
}

#[test]
fn it_asks_for_what_is_missing() {
    let server = answering(GREETING_GBK, b"ok");
    let all = format!("127.0.0.1\n{}\n{GREETING}\r\n", server.port());
    let outcome = say(&[], all.as_bytes());
    outcome.is(0, "server ip: \nserver port: \ntext: \n");
    assert_eq!(outcome.stdout, b"ok\n");
    let outcome = say(&[&server.to_string()], GREETING.as_bytes());
    outcome.is(0, "text: \n");
    assert_eq!(outcome.stdout, b"ok\n");
}

#[test]
fn what_cannot_be_said_is_refused_before_connecting() {
    let untouched = Untouched::new();
    let server = untouched.address().to_string();
    let nothing = "carafe: text: there is nothing to say\n";
    say(&[&server, "好 🍷 🍺"], b"").is(2, "carafe: text: GBK can't write '🍷' (U+1F377)\n");
    say(&[&server, "\u{202e}"], b"").is(
        2,
        "carafe: text: GBK can't write '\\xe2\\x80\\xae' (U+202E)\n",
    );
    say(&[&server, ""], b"").is(2, nothing);
    say(&[&server], b"\n").is(2, &format!("text: \n{nothing}"));
    say(&[&server], b"\xff\n").is(2, "text: \ncarafe: text: it is not UTF-8\n");
    say(&[&server], b"").is(2, "text: \ncarafe: text: no answer: end of file\n");
    say(&[], b"h\nx\n").is(
        2,
        "server ip: \nserver port: \n\
         carafe: server port: 'x' won't do: it takes a port, 1 to 65535\n",
    );
}

#[test]
fn a_text_of_64_kib_is_said_and_a_longer_one_refused() {
    // What is typed has three bytes a character, and two in GBK.
    let (longest, longer) = ("好".repeat(32 * 1024), "好".repeat(32 * 1024) + "!");
    let server = serve(|mut stream| {
        let mut text = vec![0; 64 * 1024];
        stream.read_exact(&mut text).unwrap();
        assert!(text.chunks(2).all(|pair| pair == b"\xba\xc3"));
        stream.write_all(b"b").unwrap();
    })
    .to_string();
    let outcome = say(&[&server], format!("{longest}\r\n").as_bytes());
    outcome.is(0, "text: \n");
    assert_eq!(outcome.stdout, b"b\n");

    let untouched = Untouched::new();
    let server = untouched.address().to_string();
    let refused = |has| {
        format!("carafe: text: it takes at most 65536 bytes in GBK, and this one has {has}\n")
    };
    say(&[&server, &"a".repeat(100_000)], b"").is(2, &refused("100000"));
    say(&[&server], longer.as_bytes()).is(2, &format!("text: \n{}", refused("65537")));
    let endless = "a".repeat(300_000);
    say(&[&server], endless.as_bytes()).is(2, &format!("text: \n{}", refused("more")));
}

#[test]
fn a_reply_is_one_line_and_steers_no_terminal() {
    let server = answering(b"a", b"one\ntwo\x1b[2J \"\xff\"").to_string();
    let outcome = say(&[&server, "a"], b"");
    outcome.is(0, "");
    let shown = "one\\x0atwo\\x1b[2J \"\u{fffd}\"\n";
    assert_eq!(String::from_utf8(outcome.stdout).unwrap(), shown);
}

#[test]
fn no_reply_is_a_failure() {
    let server = answering(b"a", b"").to_string();
    let outcome = say(&[&server, "a"], b"");
    outcome.is(1, "carafe: the server closed without a reply\n");
    assert_eq!(outcome.stdout, b"");
}

#[test]
fn silence_has_a_limit_and_what_came_is_shown() {
    let server = serve(|mut stream| {
        if receive_once(&stream) == b"half" {
            stream.write_all(b"ha").unwrap();
        }
        std::mem::forget(stream);
    })
    .to_string();
    for (text, bytes, stdout) in [("half", 2, &b"ha\n"[..]), ("none", 0, b"")] {
        let outcome = say(&["-t", "200ms", &server, text], b"");
        outcome.is(
            4,
            &format!("carafe: the reply broke off after {bytes} bytes: nothing moved for 200ms\n"),
        );
        assert_eq!(outcome.stdout, stdout);
    }
}

#[test]
fn a_reset_is_the_networks_failure() {
    let server = serve(|stream| {
        receive_once(&stream);
        reset(stream);
    })
    .to_string();
    say(&[&server, "a"], b"").is(
        4,
        "carafe: the reply broke off after 0 bytes: Connection reset by peer (os error 104)\n",
    );
}

#[test]
fn a_reply_has_a_limit() {
    let server = serve(|mut stream| {
        let length = match receive_once(&stream)[..] {
            [b'=', ..] => 1 << 20,
            _ => (1 << 20) + 1,
        };
        stream.write_all(&vec![b'r'; length]).unwrap();
    })
    .to_string();
    let cut = "carafe: the reply is longer than 1048576 bytes; the rest is left out\n";
    for (text, stderr) in [("=", ""), (">", cut)] {
        let outcome = say(&[&server, text], b"");
        outcome.is(0, stderr);
        assert_eq!(outcome.stdout.len(), (1 << 20) + 1);
    }
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let server = answering(b"a", b"ok").to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = carafe(Path::new("."))
        .args(["say", &server, "a"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
