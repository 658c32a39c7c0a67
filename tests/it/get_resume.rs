//! Downloads over HTTP that are continued: what is had at the end is one version of the file,
//! whole, whatever the server claims and whenever the client dies.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::{pattern, until};
use crate::fake::{Outcome, carafe};
use crate::origin::{Asked, Origin, Version, cut, get, has_bytes, listing};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

const AGAIN: &str = "starting again from zero";
const CHANGED: &str = "the file has changed, or the server can't continue it";
const CUT: &str = "the server closed the connection too early";

type Answer = dyn Fn(&Asked, usize) -> Vec<u8> + Send;

/// A folder with what a download has left that was cut off, and its server.
struct LeftOver {
    folder: TempDir,
    origin: Origin,
    answer: Arc<Mutex<Box<Answer>>>,
}

impl LeftOver {
    /// Lets a download of this version break off after so many bytes.
    fn of(version: &Version, bytes: usize) -> Self {
        let whole = version.clone();
        let first: Box<Answer> = Box::new(move |asked, _| cut(whole.answer(asked), bytes));
        let answer = Arc::new(Mutex::new(first));
        let answers = Arc::clone(&answer);
        let left = Self {
            folder: tempdir().unwrap(),
            origin: Origin::of(move |asked, count| answers.lock().unwrap()(asked, count)),
            answer,
        };
        let outcome = left.get(&["--retries", "0"]);
        assert_eq!(outcome.code, Some(4), "{outcome:?}");
        assert_eq!(left.read("x.part").unwrap(), &version.body[..bytes]);
        left
    }

    /// From now on, the server answers so.
    fn now(&self, answer: impl Fn(&Asked, usize) -> Vec<u8> + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn get(&self, words: &[&str]) -> Outcome {
        let url = self.origin.url("/x");
        get(self.folder.path(), &[words, &[&url]].concat())
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.path().join(name)).ok()
    }

    /// Asserts that the file is had whole, and nothing else.
    #[track_caller]
    fn is(&self, body: &[u8]) {
        assert!(self.read("x").unwrap() == body);
        assert_eq!(listing(self.folder.path()), ["x"]);
    }

    /// What was asked after the first download, as method and start of the range.
    fn asked(&self) -> Vec<(String, Option<usize>)> {
        let asked = self.origin.asked();
        let later = asked[1..].iter();
        later
            .map(|asked| (asked.method.clone(), asked.from()))
            .collect()
    }
}

fn wine() -> Version {
    Version::new(pattern(1, 1000), "\"red\"")
}

/// Another vintage, of the same length.
fn other_wine() -> Version {
    Version::new(pattern(2, 1000), "\"white\"")
}

fn of_get(from: &[Option<usize>]) -> Vec<(String, Option<usize>)> {
    from.iter().map(|from| ("GET".into(), *from)).collect()
}

#[test]
fn a_download_cut_off_anywhere_is_continued_there() {
    let version = wine();
    for at in (1..1000).step_by(37).chain([999]) {
        let left = LeftOver::of(&version, at);
        assert_eq!(listing(left.folder.path()), ["x.part", "x.part.meta"]);
        let whole = version.clone();
        left.now(move |asked, _| whole.answer(asked));
        left.get(&[]).is(0, "");
        left.is(&version.body);
        assert_eq!(left.asked(), of_get(&[Some(at)]));
        let asked = left.origin.asked();
        assert_eq!(asked[1].field("if-range"), Some("\"red\""));
    }
}

#[test]
fn one_command_goes_on_where_each_try_was_cut_off() {
    let version = wine();
    let body = version.body.clone();
    for piece in [137, 500, 999] {
        let folder = tempdir().unwrap();
        let whole = version.clone();
        let origin = Origin::of(move |asked, _| cut(whole.answer(asked), piece));
        let outcome = get(folder.path(), &["-q", "--retries", "9", &origin.url("/x")]);
        outcome.is(0, "");
        assert!(fs::read(folder.path().join("x")).unwrap() == body);
        let starts: Vec<_> = (0..1000).step_by(piece).collect();
        let asked: Vec<_> = origin.from().iter().map(|from| from.unwrap_or(0)).collect();
        assert_eq!(asked, starts);
    }
}

#[test]
fn tries_without_progress_run_out_and_are_told() {
    let version = wine();
    let folder = tempdir().unwrap();
    let origin = Origin::of(move |asked, count| match count {
        0..3 => cut(version.answer(asked), 300),
        _ => cut(version.answer(asked), 0),
    });
    let url = origin.url("/x");
    let broken =
        |bytes| format!("carafe: {url}: the download broke off after {bytes} bytes: {CUT}");
    // Whenever something came, they are counted from one.
    get(folder.path(), &["--retries", "2", &url]).is(
        4,
        &format!(
            "{}; trying again in 0s (1 of 2)\n{}; trying again in 0s (1 of 2)\n\
             {again}; trying again in 0s (1 of 2)\n{again}; trying again in 0s (2 of 2)\n\
             {again}; 900 bytes are kept in x.part\n",
            broken(300),
            broken(600),
            again = broken(900),
        ),
    );
}

#[test]
fn what_comes_a_second_time_is_no_progress() {
    // Without a validator every try begins at zero.
    let folder = tempdir().unwrap();
    let origin = crate::origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwine");
    let outcome = get(folder.path(), &["-q", "--retries", "2", &origin.url("/x")]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    // The first four bytes were progress.
    assert_eq!(origin.asked().len(), 3);
}

#[test]
fn a_part_of_another_coding_adds_nothing() {
    for length in ["", "Content-Length: 600\r\n"] {
        let left = LeftOver::of(&wine(), 400);
        left.now(move |asked, _| match asked.from() {
            Some(_) => {
                let fields = format!(
                    "Content-Range: bytes 400-999/1000\r\nContent-Encoding: gzip\r\n{length}"
                );
                wine().with_head("206 Partial Content", &fields, &[b'z'; 600])
            }
            None => wine().answer(asked),
        });
        assert_eq!(left.get(&["-q"]).code, Some(0));
        left.is(&wine().body);
        assert_eq!(left.asked(), of_get(&[Some(400), None]));
    }
}

#[test]
fn what_came_coded_is_not_continued() {
    let version = Version {
        validators: "ETag: \"red\"\r\nContent-Encoding: gzip\r\n".into(),
        ..wine()
    };
    let left = LeftOver::of(&version, 400);
    left.now(|asked, _| wine().answer(asked));
    left.get(&[]).is(0, "");
    left.is(&wine().body);
    assert_eq!(left.asked(), of_get(&[None]));
}

#[test]
fn verbose_tells_what_an_earlier_download_had_left() {
    let version = wine();
    let left = LeftOver::of(&version, 400);
    left.now(move |asked, _| version.answer(asked));
    let outcome = left.get(&["-v"]);
    let told = ": 1000 bytes, 400 of them from an earlier download, in ";
    assert!(outcome.stderr.contains(told), "{outcome:?}");
}

#[test]
fn a_file_that_changed_is_had_from_zero() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|asked, _| other_wine().answer(asked));
    let url = left.origin.url("/x");
    left.get(&[])
        .is(0, &format!("carafe: {url}: {CHANGED}; {AGAIN}\n"));
    left.is(&other_wine().body);
    assert_eq!(left.asked(), of_get(&[Some(400)]));
}

#[test]
fn a_server_that_knows_no_ranges_sends_the_whole_again() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|_, _| {
        let length = "Content-Length: 1000\r\n";
        wine().with_head("200 OK", length, &wine().body)
    });
    assert_eq!(left.get(&["-q"]).code, Some(0));
    left.is(&wine().body);
}

/// Each answers the first range with something else than was asked for.
#[test]
fn a_206_that_lies_adds_nothing() {
    let lies: [(&str, Vec<u8>); 10] = [
        ("begins early", wine().part(399, 399, 1000)),
        ("begins late", wine().part(401, 401, 1000)),
        ("says another begin", wine().part(400, 300, 1000)),
        ("of another length", wine().part(400, 400, 1001)),
        ("of another version", other_wine().part(400, 400, 1000)),
        (
            "of a weak version",
            Version::new(wine().body, "W/\"red\"").part(400, 400, 1000),
        ),
        (
            "of no version",
            Version {
                validators: String::new(),
                ..wine()
            }
            .part(400, 400, 1000),
        ),
        (
            "no range",
            wine().with_head("206 Partial Content", "Content-Length: 3\r\n", b"abc"),
        ),
        (
            "two ranges",
            wine().with_head(
                "206 Partial Content",
                "Content-Range: bytes 400-999/1000\r\nContent-Range: bytes 0-9/1000\r\n",
                &wine().body[400..],
            ),
        ),
        (
            "another length than its range",
            wine().with_head(
                "206 Partial Content",
                "Content-Range: bytes 400-999/1000\r\nContent-Length: 10\r\n",
                &wine().body[..10],
            ),
        ),
    ];
    for (lie, answer) in lies {
        let left = LeftOver::of(&wine(), 400);
        left.now(move |asked, count| match count {
            1 => answer.clone(),
            _ => other_wine().answer(asked),
        });
        let url = left.origin.url("/x");
        let why = "the server sends another part than it was asked for";
        left.get(&[])
            .is(0, &format!("carafe: {url}: {why}; {AGAIN}\n"));
        left.is(&other_wine().body);
        assert_eq!(left.asked(), of_get(&[Some(400), None]), "{lie}");
    }
}

#[test]
fn a_206_that_ends_early_is_continued_at_once() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|asked, _| {
        let (whole, from) = (wine(), asked.from().unwrap());
        let end = (from + 250).min(1000);
        let total = if from == 400 { "*" } else { "1000" };
        let fields = format!("Content-Range: bytes {from}-{}/{total}\r\n", end - 1);
        whole.with_head("206 Partial Content", &fields, &whole.body[from..end])
    });
    left.get(&["--retries", "0"]).is(0, "");
    left.is(&wine().body);
    assert_eq!(left.asked(), of_get(&[Some(400), Some(650), Some(900)]));
}

#[test]
fn a_206_with_more_than_it_announced_is_refused_and_forgotten() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|_, _| {
        let fields = "Content-Range: bytes 400-999/1000\r\n";
        let body = [&wine().body[400..], b"more"].concat();
        wine().with_head("206 Partial Content", fields, &body)
    });
    let outcome = left.get(&[]);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    assert!(outcome.stderr.contains("more than the part it announced"));
    assert_eq!(listing(left.folder.path()), ["x.part"]);
}

#[test]
fn a_206_nobody_asked_for_is_no_file() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|_, _| wine().part(0, 0, 1000));
    let outcome = get(folder.path(), &[&origin.url("/x")]);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    assert!(listing(folder.path()).is_empty());
}

/// All bytes came, but not the news of it: the kill hit between the last byte and the rename.
fn whole_but_unnamed() -> LeftOver {
    let left = LeftOver::of(&wine(), 999);
    let part = left.folder.path().join("x.part");
    let mut part = fs::OpenOptions::new().append(true).open(part).unwrap();
    part.write_all(&wine().body[999..]).unwrap();
    left
}

#[test]
fn a_416_ends_it_only_if_the_version_is_the_same() {
    let left = whole_but_unnamed();
    left.now(|asked, _| wine().answer(asked));
    left.get(&[]).is(0, "");
    left.is(&wine().body);
    let head = ("HEAD".to_owned(), None);
    assert_eq!(left.asked(), [("GET".into(), Some(1000)), head.clone()]);

    // It has the same length, which is all that the 416 says.
    let left = whole_but_unnamed();
    left.now(|asked, count| match count {
        1 => wine().answer(asked),
        _ => other_wine().answer(asked),
    });
    assert_eq!(left.get(&["-q"]).code, Some(0));
    left.is(&other_wine().body);
    assert_eq!(
        left.asked(),
        [("GET".into(), Some(1000)), head, ("GET".into(), None)]
    );
}

#[test]
fn a_416_of_another_length_or_none_starts_again() {
    for fields in [
        "Content-Range: bytes */999\r\n",
        "",
        "Content-Range: bytes */*\r\n",
    ] {
        let left = whole_but_unnamed();
        left.now(move |asked, count| match count {
            1 => wine().with_head("416 Range Not Satisfiable", fields, b""),
            _ => other_wine().answer(asked),
        });
        assert_eq!(left.get(&["-q"]).code, Some(0));
        left.is(&other_wine().body);
        assert_eq!(left.asked(), of_get(&[Some(1000), None]));
    }
}

#[test]
fn a_head_that_says_nothing_starts_again() {
    for head in ["405 Method Not Allowed", "200 OK"] {
        let left = whole_but_unnamed();
        left.now(move |asked, _| match asked.method.as_str() {
            "HEAD" => format!("HTTP/1.1 {head}\r\n\r\n").into_bytes(),
            _ => wine().answer(asked),
        });
        assert_eq!(left.get(&["-q"]).code, Some(0));
        left.is(&wine().body);
    }
}

#[test]
fn a_date_is_a_validator_only_if_it_is_old_enough() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (date, is_strong) in [
        (Some("Sun, 06 Nov 1994 08:50:37 GMT"), true),
        (Some("Sun, 06 Nov 1994 08:50:36 GMT"), false),
        (None, false),
    ] {
        let date = date.map_or(String::new(), |date| format!("Date: {date}\r\n"));
        let version = Version {
            body: wine().body,
            validators: format!("Last-Modified: {modified}\r\n{date}"),
        };
        let left = LeftOver::of(&version, 400);
        left.now(move |asked, _| version.answer(asked));
        left.get(&[]).is(0, "");
        left.is(&wine().body);
        let asked = &left.origin.asked()[1];
        assert_eq!(asked.from(), is_strong.then_some(400));
        assert_eq!(asked.field("if-range"), is_strong.then_some(modified));
    }
}

#[test]
fn without_a_strong_validator_nothing_is_continued() {
    for validators in [
        "",
        "ETag: W/\"red\"\r\n",
        "ETag: red\r\n",
        "ETag: \"a\"\r\nETag: \"b\"\r\n",
    ] {
        let version = Version {
            validators: validators.into(),
            ..wine()
        };
        let left = LeftOver::of(&version, 400);
        assert_eq!(listing(left.folder.path()), ["x.part"]);
        left.now(move |asked, _| version.answer(asked));
        left.get(&[]).is(0, "");
        left.is(&wine().body);
        assert_eq!(left.asked(), of_get(&[None]));
    }
}

#[test]
fn without_its_meta_or_with_another_a_part_is_of_no_use() {
    type Spoil = fn(&LeftOver);
    let spoils: [(&str, Spoil); 5] = [
        ("gone", |left| {
            fs::remove_file(left.folder.path().join("x.part.meta")).unwrap()
        }),
        ("no JSON", |left| {
            fs::write(left.folder.path().join("x.part.meta"), "{").unwrap()
        }),
        ("a longer part", |left| {
            let part = left.folder.path().join("x.part");
            fs::write(part, pattern(1, 1001)).unwrap();
        }),
        ("an empty part", |left| {
            fs::write(left.folder.path().join("x.part"), "").unwrap()
        }),
        ("a link", |left| {
            let meta = left.folder.path().join("x.part.meta");
            let elsewhere = tempdir().unwrap().keep().join("meta");
            fs::rename(&meta, &elsewhere).unwrap();
            std::os::unix::fs::symlink(elsewhere, meta).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let left = LeftOver::of(&wine(), 400);
        assert!(left.read("x.part.meta").is_some());
        spoil(&left);
        left.now(|asked, _| other_wine().answer(asked));
        left.get(&[]).is(0, "");
        left.is(&other_wine().body);
        assert_eq!(left.asked(), of_get(&[None]), "{what}");
    }
}

#[test]
fn a_meta_torn_anywhere_starts_again() {
    let left = LeftOver::of(&wine(), 400);
    let (meta, part) = (
        left.read("x.part.meta").unwrap(),
        left.read("x.part").unwrap(),
    );
    left.now(|asked, _| wine().answer(asked));
    for cut in (0..meta.len()).step_by(9) {
        fs::write(left.folder.path().join("x.part.meta"), &meta[..cut]).unwrap();
        fs::write(left.folder.path().join("x.part"), &part).unwrap();
        left.get(&[]).is(0, "");
        left.is(&wine().body);
        assert_eq!(left.asked().last().unwrap().1, None, "{cut}");
    }
}

#[test]
fn another_url_starts_again() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|asked, _| wine().answer(asked));
    let outcome = crate::fake::run(
        carafe(left.folder.path()).args(["get", "-o", "x", &left.origin.url("/x?1")]),
        b"",
    );
    let url = left.origin.url("/x?1");
    let line = format!("x.part is another URL's; {AGAIN}");
    outcome.is(0, &format!("carafe: {url}: {line}\n"));
    left.is(&wine().body);
    assert_eq!(left.asked(), of_get(&[None]));
}

#[test]
fn a_bare_download_takes_over_and_removes_the_meta() {
    let left = LeftOver::of(&wine(), 400);
    let path = left.folder.path().to_owned();
    let server = crate::fake::serve(move |mut stream| {
        crate::fake::receive_once(&stream);
        stream.write_all(b"grape juice").unwrap();
        until("it is written", || has_bytes(&path.join("x.part"), 11));
        crate::fake::reset(stream);
    });
    let outcome = get(left.folder.path(), &[&format!("gopher://{server}/9x")]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert_eq!(listing(left.folder.path()), ["x.part"]);
    assert_eq!(left.read("x.part").unwrap(), b"grape juice");
    left.now(|asked, _| wine().answer(asked));
    left.get(&[]).is(0, "");
    left.is(&wine().body);
    assert_eq!(left.asked(), of_get(&[None]));
}

#[test]
fn an_error_status_keeps_what_is_there_for_later() {
    let left = LeftOver::of(&wine(), 400);
    left.now(|_, _| b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec());
    let url = left.origin.url("/x");
    let line = "the server says 403 Forbidden; 400 bytes are kept in x.part";
    left.get(&[]).is(8, &format!("carafe: {url}: {line}\n"));
    left.now(|asked, _| wine().answer(asked));
    left.get(&[]).is(0, "");
    left.is(&wine().body);
    assert_eq!(left.asked(), of_get(&[Some(400), Some(400)]));
}

/// Begins a download whose server goes silent after its first bytes.
fn stalled(folder: &TempDir, version: &Version, bytes: usize) -> (Child, Origin) {
    let whole = version.clone();
    let origin = Origin::start(move |asked, count, mut stream| {
        let answer = whole.answer(asked);
        if count > 0 {
            return stream.write_all(&answer).unwrap();
        }
        stream.write_all(&cut(answer, bytes)).unwrap();
        std::mem::forget(stream);
    });
    let child = begin(folder, &origin.url("/x"));
    let part = folder.path().join("x.part");
    until("it stalls", || has_bytes(&part, bytes as u64));
    (child, origin)
}

fn begin(folder: &TempDir, url: &str) -> Child {
    let mut command: Command = carafe(folder.path());
    command.args(["get", "-q", "-O", "--retry-delay", "0s", url]);
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_download_is_continued() {
    let folder = tempdir().unwrap();
    let (child, origin) = stalled(&folder, &wine(), 400);
    kill(child);
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    assert_eq!(origin.from(), [None, Some(400)]);
    assert_eq!(listing(folder.path()), ["x"]);
    assert!(fs::read(folder.path().join("x")).unwrap() == wine().body);
}

#[test]
fn one_part_has_one_writer() {
    let folder = tempdir().unwrap();
    let (child, origin) = stalled(&folder, &wine(), 400);
    let url = origin.url("/x");
    let line = "cannot write x.part: another download is writing it";
    get(folder.path(), &[&url]).is(3, &format!("carafe: {url}: {line}\n"));
    let meta = fs::read(folder.path().join("x.part.meta")).unwrap();
    assert!(!meta.is_empty());
    assert_eq!(origin.from(), [None]);
    kill(child);
}

/// One download that is killed: how many bytes it is given, at most 299 so that three don't make it
/// whole, and whether the file is another one from then on.
#[derive(Clone, Copy, Debug)]
struct Step {
    bytes: usize,
    changes: bool,
}

/// The server gives so many bytes of its version and stops. The client is killed when it has asked;
/// where the count is even, when it has written some, too.
fn kills_and_changes(steps: &[Step]) {
    let folder = tempdir().unwrap();
    let versions = [wine(), other_wine()];
    let state = Arc::new(Mutex::new((0, None::<usize>)));
    let now = Arc::clone(&state);
    let origin = Origin::start(move |asked, _, mut stream| {
        let (version, stop) = *now.lock().unwrap();
        let answer = versions[version].answer(asked);
        match stop {
            Some(bytes) => {
                let _ = stream.write_all(&cut(answer, bytes));
                std::mem::forget(stream);
            }
            None => stream.write_all(&answer).unwrap(),
        }
    });
    let part = folder.path().join("x.part");
    for step in steps {
        state.lock().unwrap().1 = Some(step.bytes);
        let before = origin.asked().len();
        let child = begin(&folder, &origin.url("/x"));
        until("it has asked", || origin.asked().len() > before);
        if step.bytes % 2 == 0 {
            let from = origin.from()[before].unwrap_or(0);
            let end = (from + step.bytes).min(999) as u64;
            // A file that changed has its bytes from zero.
            let end = if from > 0 {
                end.min(step.bytes as u64)
            } else {
                end
            };
            until("its bytes are there", || has_bytes(&part, end));
        }
        kill(child);
        let mut state = state.lock().unwrap();
        state.0 = if step.changes { 1 - state.0 } else { state.0 };
    }
    state.lock().unwrap().1 = None;
    assert_eq!(get(folder.path(), &["-q", &origin.url("/x")]).code, Some(0));
    let expected = [wine(), other_wine()][state.lock().unwrap().0].body.clone();
    assert!(fs::read(folder.path().join("x")).unwrap() == expected);
    assert_eq!(listing(folder.path()), ["x"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn killed_at_any_moment_while_the_file_changes_it_is_never_a_joint(
        steps in prop::collection::vec((1..300usize, any::<bool>()), 1..4)
    ) {
        let step = |&(bytes, changes): &(usize, bool)| Step { bytes, changes };
        kills_and_changes(&steps.iter().map(step).collect::<Vec<_>>());
    }
}
