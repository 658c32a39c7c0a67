//! Logs that can't block: lines go into a bounded queue, and one thread writes them. A stuck
//! terminal or pipe stops that thread, not the loop; lines that don't fit are dropped and counted.

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Zoned;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::limits::{LOG_FLUSH, LOG_QUEUE_BYTES_MAX, LOG_RESERVE_BYTES};

/// Sends everything logged to stderr through a queue. `level` overrides RUST_LOG, which overrides
/// the default, info. A terminal gets short lines, everything else whole stamps.
///
/// # Errors
/// A thread can't be started, or a logger was installed before.
pub fn start(level: Option<LevelFilter>) -> io::Result<LineWriter> {
    let outlet = LineWriter::new(io::stderr())?;
    let mut builder = env_logger::Builder::new();
    match level {
        Some(level) => builder.filter_level(level),
        None => builder.parse_env(env_logger::Env::default().default_filter_or("info")),
    };
    let target = env_logger::Target::Pipe(Box::new(QueueEnd(outlet.clone())));
    builder
        .target(target)
        .write_style(env_logger::WriteStyle::Never);
    if io::stderr().is_terminal() {
        let colours = Colours::wanted();
        builder.format(move |line, record| {
            let time = Zoned::now().strftime("%H:%M:%S").to_string();
            write_for_person(line, record, &time, colours)
        });
    }
    let inner = builder.build();
    log::set_max_level(inner.filter());
    log::set_boxed_logger(Box::new(QueueLogger {
        inner,
        outlet: outlet.clone(),
    }))
    .map_err(io::Error::other)?;
    Ok(outlet)
}

/// Whether a person reads the log and is told what happens.
#[must_use]
pub fn is_watched() -> bool {
    io::stderr().is_terminal() && log::log_enabled!(log::Level::Info)
}

/// Whether lines for a person have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

impl Colours {
    /// No, if NO_COLOR is anything but empty (no-color.org), or if the terminal knows none.
    fn wanted() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_set("NO_COLOR") || is_dumb {
            Self::Off
        } else {
            Self::On
        }
    }
}

/// The time of day where the person is, and the text. A level is named only if it isn't info, nor is
/// it of interest where in the program the line comes from.
fn write_for_person(
    line: &mut impl Write,
    record: &Record<'_>,
    time: &str,
    colours: Colours,
) -> io::Result<()> {
    // ECMA-48's graphic renditions: faint, bold and a colour.
    let (level, rendition) = match record.level() {
        Level::Error => ("error: ", "1;31"),
        Level::Warn => ("warning: ", "1;33"),
        Level::Info => ("", ""),
        Level::Debug => ("debug: ", "2"),
        Level::Trace => ("trace: ", "2"),
    };
    let text = record.args();
    match colours {
        Colours::Off => writeln!(line, "{time} {level}{text}"),
        Colours::On if level.is_empty() => writeln!(line, "\x1b[2m{time}\x1b[0m {text}"),
        Colours::On => writeln!(
            line,
            "\x1b[2m{time}\x1b[0m \x1b[{rendition}m{level}\x1b[0m{text}"
        ),
    }
}

/// One end of a bounded queue of lines; a thread writes them to the sink.
#[derive(Clone, Debug)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// The sink opens itself anew before the line that begins here.
    reopen_at: Vec<usize>,
    /// The writer has taken bytes and not finished with them.
    writing: bool,
    /// Lines that it has taken and not written.
    in_hand: u64,
    /// Nothing is taken or written any more.
    is_closed: bool,
    dropped: u64,
    /// How many of the dropped lines the output has been told of.
    confessed: u64,
}

/// Where lines are written.
pub trait Sink: Write {
    /// Opens itself anew: what is written from now on goes where its path leads now.
    fn reopen(&mut self) {}

    /// Lines were dropped. Returns what the sink shall hold about it: nothing, or a line.
    fn confess(&mut self, lines: u64) -> String;
}

/// A stream that a person reads.
struct Stream<W>(W);

impl<W: Write> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for Stream<W> {
    fn confess(&mut self, lines: u64) -> String {
        format!("carafe: {lines} lines dropped: the output didn't take them\n")
    }
}

impl LineWriter {
    /// Starts the thread that writes to a stream, and says there what was dropped.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn new(stream: impl Write + Send + 'static) -> io::Result<Self> {
        Self::to(Stream(stream))
    }

    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn to(sink: impl Sink + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writers = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writers.write_to(sink))?;
        Ok(Self { shared })
    }

    /// Queues one line; the LF is added. Dropped and counted when the queue is full.
    pub fn print(&self, line: &fmt::Arguments<'_>) {
        self.push(format!("{line}\n").as_bytes(), LOG_QUEUE_BYTES_MAX);
    }

    /// Queues one line that may use the reserve: what must be seen with `-q` too.
    pub fn announce(&self, line: &fmt::Arguments<'_>) {
        self.push(
            format!("{line}\n").as_bytes(),
            LOG_QUEUE_BYTES_MAX + LOG_RESERVE_BYTES,
        );
    }

    /// Lines lost so far: the queue was full, or the output failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Has the sink open itself anew, between the lines queued so far and those that follow.
    pub fn reopen(&self) {
        let mut queue = self.shared.lock();
        let at = queue.bytes.len();
        if queue.reopen_at.last() != Some(&at) {
            queue.reopen_at.push(at);
        }
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Waits as [`LineWriter::flush`] does, and gives up on what is left then, and on all that comes.
    /// Returns how many lines were lost in all.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let _ = self.flush();
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        queue.dropped += count_lines(&queue.bytes) + queue.in_hand;
        queue.in_hand = 0;
        queue.bytes.clear();
        queue.reopen_at.clear();
        queue.dropped
    }

    /// Waits until the writer has nothing left, but not longer than a second: the reader may be
    /// stuck. Returns whether every line so far was written.
    pub fn flush(&self) -> bool {
        let queue = self.shared.lock();
        let unwritten = |queue: &mut Queue| queue.writing || queue.has_work();
        let (queue, waited) = self
            .shared
            .emptied
            .wait_timeout_while(queue, LOG_FLUSH, unwritten)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out() && queue.dropped == 0
    }

    fn push(&self, line: &[u8], bytes_max: usize) {
        let mut queue = self.shared.lock();
        if queue.is_closed || queue.bytes.len() + line.len() > bytes_max {
            queue.dropped += 1;
            return;
        }
        queue.bytes.extend_from_slice(line);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Counts a drop instead of a line if there is no room for an ordinary one.
    fn drops_ordinary(&self) -> bool {
        let mut queue = self.shared.lock();
        let is_full = queue.bytes.len() >= LOG_QUEUE_BYTES_MAX;
        queue.dropped += u64::from(is_full);
        is_full
    }
}

impl Shared {
    /// A queue is whole after every push, so a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: impl Sink) {
        let (mut taken, mut reopen_at) = (Vec::new(), Vec::new());
        loop {
            let mut queue = self.lock();
            while !queue.has_work() {
                queue.writing = false;
                self.emptied.notify_all();
                queue = self
                    .filled
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut queue.bytes, &mut taken);
            std::mem::swap(&mut queue.reopen_at, &mut reopen_at);
            queue.writing = true;
            queue.in_hand = count_lines(&taken);
            let dropped = queue.dropped;
            let unconfessed = dropped - queue.confessed;
            drop(queue);
            let mut from = 0;
            for at in reopen_at.drain(..) {
                let _ = self.write_lines(&mut sink, &taken[from..at]);
                sink.reopen();
                from = at;
            }
            let mut result = self.write_lines(&mut sink, &taken[from..]);
            if unconfessed > 0 && result.is_ok() {
                let line = sink.confess(unconfessed);
                result = write_patiently(&mut sink, line.as_bytes(), |_| true);
            }
            if result.is_ok() {
                self.lock().confessed = dropped;
            }
            taken.clear();
        }
    }

    /// Writes lines that are in hand. Those that the sink doesn't take are dropped.
    fn write_lines(&self, sink: &mut impl Sink, lines: &[u8]) -> io::Result<()> {
        let mut left = lines;
        let result = write_patiently(sink, lines, |written| {
            let mut queue = self.lock();
            // Once it is closed none is in hand.
            queue.in_hand = queue.in_hand.saturating_sub(count_lines(&left[..written]));
            left = &left[written..];
            !queue.is_closed
        });
        if result.is_err() {
            let mut queue = self.lock();
            let lost = count_lines(left).min(queue.in_hand);
            queue.in_hand -= lost;
            queue.dropped += lost;
        }
        result
    }
}

impl Queue {
    fn has_work(&self) -> bool {
        !self.bytes.is_empty() || !self.reopen_at.is_empty()
    }
}

/// Writes everything, also to a descriptor that somebody else has made non-blocking, as programs
/// that share a terminal do. `goes_on` is told how many bytes each attempt has written.
fn write_patiently(
    sink: &mut impl Write,
    mut bytes: &[u8],
    mut goes_on: impl FnMut(usize) -> bool,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(20));
                0
            }
            Err(error) => return Err(error),
        };
        bytes = &bytes[written..];
        if !goes_on(written) {
            break;
        }
    }
    sink.flush()
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Where env_logger writes: one call is one whole line.
struct QueueEnd(LineWriter);

impl Write for QueueEnd {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line, LOG_QUEUE_BYTES_MAX + LOG_RESERVE_BYTES);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats by env_logger, but not what will be dropped anyway.
struct QueueLogger {
    inner: env_logger::Logger,
    outlet: LineWriter,
}

impl Log for QueueLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_ordinary = record.level() >= log::Level::Info;
        if self.inner.matches(record) && !(is_ordinary && self.outlet.drops_ordinary()) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        // Who asks for this prints the count of what was dropped itself.
        let _ = self.outlet.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_person_is_short_and_names_a_level_that_matters() {
        let cases = [
            (Level::Info, Colours::Off, "21:00:00 text\n"),
            (Level::Warn, Colours::Off, "21:00:00 warning: text\n"),
            (Level::Info, Colours::On, "\x1b[2m21:00:00\x1b[0m text\n"),
            (
                Level::Error,
                Colours::On,
                "\x1b[2m21:00:00\x1b[0m \x1b[1;31merror: \x1b[0mtext\n",
            ),
        ];
        for (level, colours, expected) in cases {
            let mut line = Vec::new();
            let text = format_args!("text");
            let record = Record::builder().level(level).args(text).build();
            write_for_person(&mut line, &record, "21:00:00", colours).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    use std::sync::mpsc;

    /// A sink that takes a write only when the test allows it.
    struct Gate {
        allowed: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.allowed.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_sink_drops_and_counts_and_says_so() {
        let (allow, allowed) = mpsc::channel();
        let (written, output) = mpsc::channel();
        let outlet = LineWriter::new(Gate { allowed, written }).unwrap();
        outlet.print(&format_args!("first"));
        while !outlet.shared.lock().writing {
            thread::yield_now();
        }
        let line = "x".repeat(1023);
        let fits = LOG_QUEUE_BYTES_MAX / 1024;
        for _ in 0..3 * fits {
            outlet.print(&format_args!("{line}"));
        }
        let dropped = outlet.dropped();
        assert_eq!(dropped, 2 * fits as u64, "the queue is bounded");
        outlet.announce(&format_args!("urgent"));
        assert_eq!(
            outlet.dropped(),
            dropped,
            "the reserve takes what is urgent"
        );
        drop(allow);
        let mut all = Vec::new();
        while !all.ends_with(b"take them\n") {
            all.extend(output.recv().unwrap());
        }
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains("\nurgent\n"));
        assert!(text.ends_with(&format!(
            "carafe: {dropped} lines dropped: the output didn't take them\n"
        )));
        // The first line, those that fit, the urgent one and the confession.
        assert_eq!(text.lines().count(), fits + 3);
    }

    /// A sink that fails each write after some lines.
    struct Failing {
        bytes_left: usize,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.bytes_left);
            self.bytes_left -= count;
            match count {
                0 => Err(ErrorKind::StorageFull.into()),
                _ => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_failing_sink_did_not_take_are_counted_once() {
        let outlet = LineWriter::new(Failing { bytes_left: 3 }).unwrap();
        outlet.print(&format_args!("a"));
        assert!(outlet.flush());
        for line in ["b", "c", "d"] {
            // The first of them is cut in two.
            outlet.print(&format_args!("{line}"));
            assert!(!outlet.flush());
        }
        assert_eq!(outlet.dropped(), 3);
    }

    /// A sink that says in its output when it was opened anew.
    struct Marked(mpsc::Sender<Vec<u8>>);

    impl Write for Marked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Marked {
        fn reopen(&mut self) {
            let _ = self.0.send(b"|".to_vec());
        }

        fn confess(&mut self, _: u64) -> String {
            String::new()
        }
    }

    #[test]
    fn a_sink_is_opened_anew_between_the_lines_before_and_those_after() {
        let (written, output) = mpsc::channel();
        let outlet = LineWriter::to(Marked(written)).unwrap();
        let mut expected = String::new();
        for round in 0..1000 {
            for line in 0..round % 3 {
                outlet.print(&format_args!("{round}.{line}"));
                expected.push_str(&format!("{round}.{line}\n"));
            }
            outlet.reopen();
            expected.push('|');
        }
        assert!(outlet.flush());
        let all: Vec<u8> = output.try_iter().flatten().collect();
        let text = String::from_utf8(all).unwrap();
        // Twice without a line between may be once.
        let folded = |text: &str| text.replace("||", "|");
        assert_eq!(folded(&text), folded(&expected));
    }

    #[test]
    fn what_a_stuck_sink_has_not_taken_at_the_end_counts_as_dropped() {
        let (allow, allowed) = mpsc::channel();
        let (written, output) = mpsc::channel();
        let outlet = LineWriter::new(Gate { allowed, written }).unwrap();
        allow.send(()).unwrap();
        outlet.print(&format_args!("a"));
        assert!(outlet.flush());
        for line in ["b", "c", "d"] {
            outlet.print(&format_args!("{line}"));
        }
        assert_eq!(outlet.finish(), 3);
        outlet.print(&format_args!("e"));
        assert_eq!(outlet.finish(), 4);
        assert_eq!(output.try_iter().count(), 1);
    }

    #[test]
    fn flush_ends_when_all_is_written_and_when_the_sink_is_stuck() {
        let (allow, allowed) = mpsc::channel();
        let (written, output) = mpsc::channel();
        let outlet = LineWriter::new(Gate { allowed, written }).unwrap();
        outlet.print(&format_args!("a"));
        assert!(!outlet.flush());
        assert!(output.try_recv().is_err(), "flush gave up on a stuck sink");
        allow.send(()).unwrap();
        assert!(outlet.flush());
        assert_eq!(output.try_recv().unwrap(), b"a\n");
    }
}
