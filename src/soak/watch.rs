//! Watches the server's process: its CPU time, memory, descriptors and sockets, from /proc, on a
//! thread of its own so that the loop never waits for it.

mod samples;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::debug;

use super::process::{Process, is_end};
use super::report::{Sample, ServerUsage};
use crate::limits::{RSS_STEP_BYTES, SETTLE_CHECK_INTERVAL, WATCH_SAMPLES_MAX};
use samples::RawSample;

/// A process that is looked at until [`finish`](Watch::finish), or until it ends.
#[derive(Debug)]
pub struct Watch {
    sampler: Arc<Sampler>,
    pid: u32,
    name: String,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Sampler {
    state: Mutex<SamplerState>,
    changed: Condvar,
    /// Odd while no client is there; each change adds one, so it also numbers the quiet runs.
    phase: AtomicU64,
}

#[derive(Debug)]
struct SamplerState {
    samples: Vec<RawSample>,
    /// When load began, and ended, and began again.
    turns: Vec<Instant>,
    has_died: bool,
    is_settling: bool,
    is_over: bool,
}

impl Watch {
    /// Looks at a process now and then again after each `every`, quiet at first.
    /// An error is `NotFound` if there is no such process, or what /proc or the start of a thread says.
    pub fn start(pid: u32, every: Duration) -> io::Result<Self> {
        let (process, name) = Process::open(pid)?;
        let sampler = Arc::new(Sampler {
            state: Mutex::new(SamplerState {
                samples: Vec::new(),
                turns: Vec::new(),
                has_died: false,
                is_settling: false,
                is_over: false,
            }),
            changed: Condvar::new(),
            phase: AtomicU64::new(1),
        });
        let first = sampler.sample(&process)?;
        sampler.lock().samples.push(first);
        let thread = thread::Builder::new().name("watch".into()).spawn({
            let sampler = Arc::clone(&sampler);
            move || sampler.run(&process, every)
        })?;
        Ok(Self {
            sampler,
            pid,
            name,
            began: first.at,
            thread: Some(thread),
        })
    }

    /// Says whether no client is there from now on. Waits for no more than another thread's note.
    pub fn set_quiet(&self, is_quiet: bool) {
        let phase = &self.sampler.phase;
        let changed = phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |phase| {
            ((phase % 2 == 1) != is_quiet).then_some(phase + 1)
        });
        // An error stands for "is so already".
        if changed.is_ok() {
            self.sampler.lock().turns.push(Instant::now());
        }
    }

    /// The last look, in time since the watch began; none after the process's end.
    pub fn latest(&self) -> Option<Sample> {
        let state = self.sampler.lock();
        let sample = state.samples.last().filter(|_| !state.has_died);
        sample.map(|sample| sample.report(self.began))
    }

    /// Waits for the process to come to rest, after the last client has gone: until it was looked
    /// at twice and has no more descriptors than at the first quiet point, for so long at most.
    /// Says whether it did.
    pub fn settle(&self, timeout: Duration) -> bool {
        self.set_quiet(true);
        let run = self.sampler.phase.load(Ordering::SeqCst);
        let deadline = Instant::now() + timeout;
        let mut state = self.sampler.lock();
        state.is_settling = true;
        self.sampler.changed.notify_all();
        let seen = state.samples.len();
        let is_settled = loop {
            if state.has_died {
                break false;
            }
            let fresh = state.samples[seen..].iter();
            let samples = fresh
                .filter(|sample| sample.quiet_phase == Some(run))
                .count();
            if samples >= 2 && samples::is_at_rest(&state.samples) {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            let waited = self.sampler.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        state.is_settling = false;
        is_settled
    }

    /// Ends the watch and says what it found of a load that lasted from one moment to the other.
    pub fn finish(&self, began: Instant, ended: Instant, warm_up: Duration) -> ServerUsage {
        self.end();
        let state = self.sampler.lock();
        let samples = &state.samples;
        let resource = |of| samples::resource(samples, &state.turns, warm_up, of);
        ServerUsage {
            pid: self.pid,
            name: self.name.clone(),
            died: state.has_died,
            samples: samples::thinned(samples, began),
            cpu_percent: samples::cpu_percent(samples, &state.turns, began, ended),
            cpu_interval: Some(samples::cpu_interval(samples)),
            rss: resource((|usage| usage.rss_bytes, RSS_STEP_BYTES)),
            descriptors: resource((|usage| usage.descriptors, 1.0)),
        }
    }

    fn end(&self) {
        self.sampler.lock().is_over = true;
        self.sampler.changed.notify_all();
    }

    fn stop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A panic there has printed itself; what was seen before it still counts.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sampler {
    fn lock(&self) -> MutexGuard<'_, SamplerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self, process: &Process) -> io::Result<RawSample> {
        let phase = self.phase.load(Ordering::SeqCst);
        let at = Instant::now();
        let usage = process.usage()?;
        let is_quiet = phase % 2 == 1 && phase == self.phase.load(Ordering::SeqCst);
        Ok(RawSample {
            at,
            quiet_phase: is_quiet.then_some(phase),
            usage,
        })
    }

    /// The thread: looks until the watch is over or the process has ended.
    fn run(&self, process: &Process, mut every: Duration) {
        while self.wait_until_due(every) {
            let sample = self.sample(process);
            let mut state = self.lock();
            match sample {
                Ok(sample) => {
                    state.samples.push(sample);
                    // A run waits for the looks that follow its own.
                    if state.samples.len() >= WATCH_SAMPLES_MAX && !state.is_settling {
                        samples::forget_half(&mut state.samples);
                        every *= 2;
                    }
                }
                Err(error) if is_end(&error) => state.has_died = true,
                // Such as no free descriptor to count theirs with: this look is lost.
                Err(error) => debug!("the server can't be looked at: {error}"),
            }
            self.changed.notify_all();
            if state.has_died {
                break;
            }
        }
    }

    /// Waits until the next look is due; false when the watch is over.
    fn wait_until_due(&self, every: Duration) -> bool {
        let began = Instant::now();
        let mut state = self.lock();
        while !state.is_over {
            let pause = if state.is_settling {
                every.min(SETTLE_CHECK_INTERVAL)
            } else {
                every
            };
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};

    use super::super::report::Slope;
    use super::*;

    const EVERY: Duration = Duration::from_millis(2);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn until(what: &str, mut is_true: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_true() {
            assert!(Instant::now() < end, "never came true: {what}");
            thread::sleep(EVERY);
        }
    }

    /// A shell that does what it is told, line by line.
    struct Shell(Child);

    impl Shell {
        fn new() -> Self {
            let mut shell = Command::new("sh");
            shell.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut shell = Self(shell.spawn().expect("sh"));
            // What it inherited from the runner is closed, so that those numbers are free.
            shell.tell("exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; echo ready");
            let output = shell.0.stdout.as_mut().expect("a pipe");
            output.read_exact(&mut [0; 6]).expect("it is ready");
            shell
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }

        fn tell(&mut self, line: &str) {
            let input = self.0.stdin.as_mut().expect("a pipe");
            writeln!(input, "{line}").expect("sh reads");
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn descriptors(watch: &Watch) -> u64 {
        watch.latest().expect("it lives").usage.descriptors
    }

    #[test]
    fn our_own_process_can_be_watched() {
        let began = Instant::now();
        let watch = Watch::start(std::process::id(), EVERY).expect("our own process");
        let mut spun = 0_u64;
        until("CPU time was used", || {
            spun = (0..1_000_000).fold(spun, |sum, number| std::hint::black_box(sum ^ number));
            watch.latest().is_some_and(|sample| sample.usage.cpu_us > 0)
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        until("the listener is counted", || {
            watch
                .latest()
                .is_some_and(|sample| sample.usage.tcp_in_use > 0)
        });
        drop(listener);
        let server = watch.finish(began, Instant::now(), Duration::ZERO);
        assert!(!server.died);
        assert!(!server.name.is_empty());
        assert!(server.rss.before > 100_000.0 && server.rss.max >= server.rss.before);
        assert!(server.samples.iter().all(|sample| sample.is_quiet));
        assert!(
            server
                .samples
                .iter()
                .all(|sample| sample.usage.descriptors > 0)
        );
    }

    #[test]
    fn nobody_cannot_be_watched() {
        // A number above the kernel's own limit of 2^22 is nobody's.
        let error = Watch::start(1 << 23, EVERY).expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_end_is_noticed_before_and_after_it_is_asked_for() {
        for is_reaped in [false, true] {
            let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
            let watch = Watch::start(child.id(), EVERY).expect("a child");
            let began = Instant::now();
            child.kill().expect("its end");
            if is_reaped {
                child.wait().expect("its end");
            }
            until("the end is noticed", || watch.latest().is_none());
            assert!(!watch.settle(PATIENCE), "the dead don't settle");
            let server = watch.finish(began, Instant::now(), Duration::ZERO);
            assert!(server.died && !server.samples.is_empty());
            child.wait().expect("its end");
        }
    }

    #[test]
    fn descriptors_rise_and_must_fall_again_to_settle() {
        let mut shell = Shell::new();
        let watch = Watch::start(shell.pid(), EVERY).expect("sh");
        assert!(watch.settle(PATIENCE), "nothing to compare with");
        let base = descriptors(&watch);

        let began = Instant::now();
        watch.set_quiet(false);
        shell.tell("exec 8</dev/null; exec 9</dev/null");
        until("descriptors are open", || descriptors(&watch) == base + 2);
        assert!(!watch.settle(Duration::from_millis(20)), "two are left");
        shell.tell("exec 8<&-; exec 9<&-");
        assert!(watch.settle(PATIENCE), "all are closed");

        let server = watch.finish(began, Instant::now(), Duration::ZERO);
        let found = &server.descriptors;
        assert_eq!((found.before, found.after), (base as f64, base as f64));
        // While it opens them the shell has one more.
        assert!(found.max >= (base + 2) as f64);
        assert!(matches!(found.slope, Slope::NotEnoughData));
        assert!(!server.died);
    }
}
