//! A writer that never blocks: lines go into a bounded queue, and a thread writes them, those of a moment
//! with one write(2). A stuck terminal or pipe stops that thread, not the loop; lines that don't fit are
//! dropped and counted.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::limits::{LOG_FLUSH, LOG_GATHER, LOG_QUEUE_BYTES_MAX, LOG_RESERVE_BYTES};

thread_local! {
    /// Where this thread makes its lines, one after the other.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// The near end of a bounded queue of lines; a thread at the far end writes them to the sink.
#[derive(Clone, Debug)]
pub struct LineWriter {
    shared: Arc<SharedQueue>,
}

#[derive(Debug, Default)]
struct SharedQueue {
    queue: Mutex<LineQueue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct LineQueue {
    bytes: Vec<u8>,
    /// The lines in `bytes`.
    lines: u64,
    /// Offsets in `bytes` before which the sink is to be opened anew.
    reopen_at: Vec<usize>,
    /// The thread sleeps until something comes, and is to be woken.
    sleeps: bool,
    /// The thread is to write what there is, and not to wait for more.
    is_urgent: bool,
    /// The thread has taken bytes that it has not finished with.
    writing: bool,
    /// Lines that the thread has taken and not written yet.
    in_flight: u64,
    /// Nothing is taken or written any more.
    is_closed: bool,
    dropped: u64,
    /// How many of the dropped lines were reported in the output.
    reported: u64,
}

/// Where lines are written. By default, a stream that a person reads.
pub trait Sink: Write {
    /// How long lines are gathered before they are written.
    fn gather_time(&self) -> Duration {
        LOG_GATHER
    }

    /// Opens itself anew: what is written from now on goes where its path leads now.
    fn reopen(&mut self) {}

    /// Reports dropped lines. Returns the line that the sink is to hold about it, or nothing.
    fn report_dropped(&mut self, lines: u64) -> String {
        format!("carafe: {lines} lines dropped: the output didn't take them\n")
    }
}

/// What is printed there is what the program is run for: nobody waits for it longer than needed.
impl Sink for io::Stdout {
    fn gather_time(&self) -> Duration {
        Duration::ZERO
    }
}

impl Sink for io::Stderr {}
/// For tests: nothing is written anywhere.
impl Sink for io::Sink {}

impl LineWriter {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn new(sink: impl Sink + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(SharedQueue::default());
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || thread_shared.write_to(sink))?;
        Ok(Self { shared })
    }

    /// Queues one line; the LF is added. Dropped and counted when the queue is full.
    pub fn print(&self, line: &fmt::Arguments<'_>) {
        self.push_line(LOG_QUEUE_BYTES_MAX, |text| append(text, *line));
    }

    /// Queues one line that may use the reserve, and is written at once: what must be seen with `-q` too.
    pub fn announce(&self, line: &fmt::Arguments<'_>) {
        let most = LOG_QUEUE_BYTES_MAX + LOG_RESERVE_BYTES;
        self.push_line(most, |text| append(text, *line));
        self.shared.hurry(&mut self.shared.lock());
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
        self.shared.hurry(&mut queue);
    }

    /// Waits as [`LineWriter::flush`] does, and gives up on what is left then, and on all that comes.
    /// Returns how many lines were lost in all.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let _ = self.flush();
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        queue.dropped += queue.lines + queue.in_flight;
        (queue.lines, queue.in_flight) = (0, 0);
        queue.bytes.clear();
        queue.reopen_at.clear();
        queue.dropped
    }

    /// Waits until the thread has written everything, but not longer than [`LOG_FLUSH`]: the reader
    /// may be stuck. Returns whether every line so far was written.
    pub fn flush(&self) -> bool {
        let mut queue = self.shared.lock();
        self.shared.hurry(&mut queue);
        let unwritten = |queue: &mut LineQueue| queue.writing || queue.has_work();
        let (queue, waited) = self
            .shared
            .emptied
            .wait_timeout_while(queue, LOG_FLUSH, unwritten)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out() && queue.dropped == 0
    }

    /// Queues the line that `make` makes, if there are not more bytes in the queue with it.
    pub(super) fn push_line(&self, bytes_max: usize, make: impl FnOnce(&mut String)) {
        // If something logs while it is made, that has a text of its own.
        let mut line = LINE.take();
        line.clear();
        make(&mut line);
        line.push('\n');
        self.push(line.as_bytes(), bytes_max);
        LINE.set(line);
    }

    fn push(&self, line: &[u8], bytes_max: usize) {
        let mut queue = self.shared.lock();
        if queue.is_closed || queue.bytes.len() + line.len() > bytes_max {
            queue.dropped += 1;
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        if queue.bytes.len() >= LOG_QUEUE_BYTES_MAX / 2 && !queue.is_urgent {
            self.shared.hurry(&mut queue);
        } else if std::mem::take(&mut queue.sleeps) {
            drop(queue);
            self.shared.filled.notify_one();
        }
    }

    /// Whether an ordinary line would be dropped; then it counts as dropped, and need not be formatted.
    pub(super) fn should_drop(&self) -> bool {
        let mut queue = self.shared.lock();
        let is_full = queue.bytes.len() >= LOG_QUEUE_BYTES_MAX;
        queue.dropped += u64::from(is_full);
        is_full
    }
}

impl SharedQueue {
    /// A queue is whole after every push, so a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, LineQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread write what there is now.
    fn hurry(&self, queue: &mut LineQueue) {
        queue.is_urgent = true;
        self.filled.notify_one();
    }

    /// Waits for lines, and then for more that come at nearly the same time: one write costs as much as
    /// many lines, and a thread that is awake need not be woken.
    fn wait_for_lines(&self, gather_time: Duration) -> MutexGuard<'_, LineQueue> {
        let mut queue = self.lock();
        while !queue.has_work() {
            (queue.writing, queue.sleeps, queue.is_urgent) = (false, true, false);
            self.emptied.notify_all();
            let woken = self.filled.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        queue.sleeps = false;
        let has_time = |queue: &mut LineQueue| !queue.is_urgent;
        let (mut queue, _) = self
            .filled
            .wait_timeout_while(queue, gather_time, has_time)
            .unwrap_or_else(PoisonError::into_inner);
        queue.is_urgent = false;
        queue
    }

    fn write_to(&self, mut sink: impl Sink) {
        let (mut taken, mut reopen_at) = (Vec::new(), Vec::new());
        loop {
            let mut queue = self.wait_for_lines(sink.gather_time());
            std::mem::swap(&mut queue.bytes, &mut taken);
            std::mem::swap(&mut queue.reopen_at, &mut reopen_at);
            queue.writing = true;
            queue.in_flight = std::mem::take(&mut queue.lines);
            let dropped = queue.dropped;
            let unreported = dropped - queue.reported;
            drop(queue);
            let mut from = 0;
            for at in reopen_at.drain(..) {
                let _ = self.write_lines(&mut sink, &taken[from..at]);
                sink.reopen();
                from = at;
            }
            let mut result = self.write_lines(&mut sink, &taken[from..]);
            if unreported > 0 && result.is_ok() {
                let line = sink.report_dropped(unreported);
                result = write_all_retrying(&mut sink, line.as_bytes(), |_| true);
            }
            if result.is_ok() {
                self.lock().reported = dropped;
            }
            taken.clear();
        }
    }

    /// Writes lines that were taken. Those that the sink doesn't take are dropped.
    fn write_lines(&self, sink: &mut impl Sink, lines: &[u8]) -> io::Result<()> {
        let mut left = lines;
        let result = write_all_retrying(sink, lines, |written| {
            // Before the lock is taken, which the loop may wait for.
            let lines = count_lines(&left[..written]);
            left = &left[written..];
            let mut queue = self.lock();
            // After `finish` none counts as in flight.
            queue.in_flight = queue.in_flight.saturating_sub(lines);
            !queue.is_closed
        });
        if result.is_err() {
            let lost = count_lines(left);
            let mut queue = self.lock();
            let lost = lost.min(queue.in_flight);
            queue.in_flight -= lost;
            queue.dropped += lost;
        }
        result
    }
}

impl LineQueue {
    fn has_work(&self) -> bool {
        !self.bytes.is_empty() || !self.reopen_at.is_empty()
    }
}

/// Writes everything, also to a descriptor that somebody else has made non-blocking, as programs
/// that share a terminal do. `keep_going` is told how many bytes each attempt has written.
fn write_all_retrying(
    sink: &mut impl Write,
    mut bytes: &[u8],
    mut keep_going: impl FnMut(usize) -> bool,
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
        if !keep_going(written) {
            break;
        }
    }
    sink.flush()
}

/// Writing to memory doesn't fail.
pub(super) fn append(text: &mut String, line: fmt::Arguments<'_>) {
    let _ = text.write_fmt(line);
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

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

    impl Sink for Gate {}

    #[test]
    fn a_stuck_sink_drops_and_counts_and_says_so() {
        let (allow, allowed) = mpsc::channel();
        let (written, output) = mpsc::channel();
        let writer = LineWriter::new(Gate { allowed, written }).unwrap();
        writer.print(&format_args!("first"));
        while !writer.shared.lock().writing {
            thread::yield_now();
        }
        let line = "x".repeat(1023);
        let fits = LOG_QUEUE_BYTES_MAX / 1024;
        for _ in 0..3 * fits {
            writer.print(&format_args!("{line}"));
        }
        let dropped = writer.dropped();
        assert_eq!(dropped, 2 * fits as u64, "the queue is bounded");
        writer.announce(&format_args!("urgent"));
        assert_eq!(
            writer.dropped(),
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
        // The first line, those that fit, the urgent one and the report.
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

    impl Sink for Failing {}

    #[test]
    fn lines_that_a_failing_sink_did_not_take_are_counted_once() {
        let writer = LineWriter::new(Failing { bytes_left: 3 }).unwrap();
        writer.print(&format_args!("a"));
        assert!(writer.flush());
        for line in ["b", "c", "d"] {
            // The first of them is cut in two.
            writer.print(&format_args!("{line}"));
            assert!(!writer.flush());
        }
        assert_eq!(writer.dropped(), 3);
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

        fn report_dropped(&mut self, _: u64) -> String {
            String::new()
        }
    }

    #[test]
    fn lines_of_a_moment_share_one_write() {
        let (written, output) = mpsc::channel();
        let start = Instant::now();
        let writer = LineWriter::new(Marked(written)).unwrap();
        for line in 0..1000 {
            writer.print(&format_args!("{line}"));
        }
        assert!(writer.flush());
        let gathered = start.elapsed().as_nanos() / LOG_GATHER.as_nanos();
        let writes = output.try_iter().count() as u128;
        // Each write but the one that is flushed has gathered; each line alone would make a thousand.
        assert!(writes <= gathered + 1, "{writes} writes");
    }

    #[test]
    fn a_sink_is_opened_anew_between_the_lines_before_and_those_after() {
        let (written, output) = mpsc::channel();
        let writer = LineWriter::new(Marked(written)).unwrap();
        let mut expected = String::new();
        for round in 0..1000 {
            for line in 0..round % 3 {
                writer.print(&format_args!("{round}.{line}"));
                expected.push_str(&format!("{round}.{line}\n"));
            }
            writer.reopen();
            expected.push('|');
        }
        assert!(writer.flush());
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
        let writer = LineWriter::new(Gate { allowed, written }).unwrap();
        allow.send(()).unwrap();
        writer.print(&format_args!("a"));
        assert!(writer.flush());
        for line in ["b", "c", "d"] {
            writer.print(&format_args!("{line}"));
        }
        assert_eq!(writer.finish(), 3);
        writer.print(&format_args!("e"));
        assert_eq!(writer.finish(), 4);
        assert_eq!(output.try_iter().count(), 1);
    }

    #[test]
    fn flush_ends_when_all_is_written_and_when_the_sink_is_stuck() {
        let (allow, allowed) = mpsc::channel();
        let (written, output) = mpsc::channel();
        let writer = LineWriter::new(Gate { allowed, written }).unwrap();
        writer.print(&format_args!("a"));
        assert!(!writer.flush());
        assert!(output.try_recv().is_err(), "flush gave up on a stuck sink");
        allow.send(()).unwrap();
        assert!(writer.flush());
        assert_eq!(output.try_recv().unwrap(), b"a\n");
    }
}
