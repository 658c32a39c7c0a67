//! Watches the server's process: its CPU time, memory, descriptors and sockets, from /proc, on a
//! thread of its own so that the loop never waits for it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::debug;

use super::process::{Process, Usage, is_end};
use super::report::{Resource, Sample, ServerUsage};
use super::slope;
use crate::limits::{REPORT_SAMPLES, SETTLE_CHECK_INTERVAL, SLOPE_POINTS_MIN};

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
    has_died: bool,
    is_settling: bool,
    is_over: bool,
}

/// One look at the process.
#[derive(Clone, Copy, Debug)]
struct RawSample {
    at: Instant,
    /// The stretch without clients in which all of it was taken.
    quiet_phase: Option<u64>,
    usage: Usage,
}

impl Watch {
    /// Looks at a process now and then again after each `every`, quiet at first.
    /// An error is `NotFound` if there is no such process, or what /proc or the start of a thread says.
    pub fn start(pid: u32, every: Duration) -> io::Result<Self> {
        let (process, name) = Process::open(pid)?;
        let sampler = Arc::new(Sampler {
            state: Mutex::new(SamplerState {
                samples: Vec::new(),
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

    /// Says whether no client is there from now on. Doesn't block.
    pub fn set_quiet(&self, is_quiet: bool) {
        // An error stands for "is so already".
        let _ = self
            .sampler
            .phase
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |phase| {
                ((phase % 2 == 1) != is_quiet).then_some(phase + 1)
            });
    }

    /// The last look, in time since the watch began; none after the process's end.
    pub fn latest(&self) -> Option<Sample> {
        let state = self.sampler.lock();
        let sample = state.samples.last().filter(|_| !state.has_died);
        sample.map(|sample| sample.sample(self.began))
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
            if samples >= 2 && is_at_rest(&state.samples) {
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
    ///
    /// A quiet point is the last look of a stretch without clients: those before it may have seen
    /// the server still winding down. Trends leave out the warm-up. They are fitted to the quiet
    /// points where those are enough, to the looks under load otherwise.
    pub fn finish(
        mut self,
        load_began: Instant,
        load_ended: Instant,
        warm_up: Duration,
    ) -> ServerUsage {
        self.stop();
        let state = self.sampler.lock();
        let samples = &state.samples;
        let from = load_began + warm_up;
        let trend = trend(samples, from, load_ended);
        let resource = |value: fn(&Usage) -> u64| {
            let mut quiet = quiet_points(samples);
            let before = quiet.next().map_or(0, |sample| value(&sample.usage));
            let after = quiet.last().map_or(before, |sample| value(&sample.usage));
            let max = samples.iter().map(|sample| value(&sample.usage)).max();
            let points: Vec<_> = trend
                .iter()
                .map(|sample| {
                    let time = sample.at.saturating_duration_since(load_began);
                    (time.as_secs_f64(), value(&sample.usage) as f64)
                })
                .collect();
            Resource {
                before: before as f64,
                max: max.unwrap_or(before) as f64,
                after: after as f64,
                slope: slope::fit(&points),
            }
        };
        ServerUsage {
            pid: self.pid,
            name: self.name.clone(),
            died: state.has_died,
            samples: thinned(samples, load_began),
            cpu_percent: cpu_percent(samples, load_began, load_ended),
            rss: resource(|usage| usage.rss_bytes),
            descriptors: resource(|usage| usage.descriptors),
        }
    }

    fn stop(&mut self) {
        self.sampler.lock().is_over = true;
        self.sampler.changed.notify_all();
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
    fn run(&self, process: &Process, every: Duration) {
        while self.wait_until_due(every) {
            let sample = self.sample(process);
            let mut state = self.lock();
            match sample {
                Ok(sample) => state.samples.push(sample),
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

impl RawSample {
    fn sample(&self, origin: Instant) -> Sample {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let after = self.at.saturating_duration_since(origin);
        let before = origin.saturating_duration_since(self.at);
        Sample {
            at_us: micros(after) - micros(before),
            is_quiet: self.quiet_phase.is_some(),
            cpu_us: self.usage.cpu_us,
            rss_bytes: self.usage.rss_bytes,
            descriptors: self.usage.descriptors,
            tcp_in_use: self.usage.tcp_in_use,
            tcp_time_wait: self.usage.tcp_time_wait,
        }
    }
}

/// The last look of each stretch without clients.
fn quiet_points(samples: &[RawSample]) -> impl Iterator<Item = &RawSample> {
    samples
        .chunk_by(|one, next| one.quiet_phase == next.quiet_phase)
        .filter_map(|run| run.last().filter(|sample| sample.quiet_phase.is_some()))
}

/// Whether the last look found no more descriptors than the first quiet point, if that is of an
/// earlier stretch.
fn is_at_rest(samples: &[RawSample]) -> bool {
    match (quiet_points(samples).next(), samples.last()) {
        (Some(first), Some(last)) => {
            first.quiet_phase == last.quiet_phase
                || last.usage.descriptors <= first.usage.descriptors
        }
        _ => true,
    }
}

/// The looks that a trend is fitted to.
fn trend(samples: &[RawSample], from: Instant, to: Instant) -> Vec<&RawSample> {
    let quiet: Vec<_> = quiet_points(samples)
        .filter(|sample| sample.at >= from)
        .collect();
    if quiet.len() >= SLOPE_POINTS_MIN {
        return quiet;
    }
    samples
        .iter()
        .filter(|sample| sample.quiet_phase.is_none() && (from..=to).contains(&sample.at))
        .collect()
}

/// CPU time over the load, in percent of one core. It is taken between the looks around the load,
/// as the server rests outside of it.
fn cpu_percent(samples: &[RawSample], began: Instant, ended: Instant) -> f64 {
    let from = samples.iter().rfind(|sample| sample.at <= began);
    let to = samples.iter().find(|sample| sample.at >= ended);
    let (Some(from), Some(to)) = (from.or(samples.first()), to.or(samples.last())) else {
        return 0.0;
    };
    let time = to
        .at
        .min(ended)
        .saturating_duration_since(from.at.max(began));
    if time.is_zero() {
        return 0.0;
    }
    let cpu_us = to.usage.cpu_us.saturating_sub(from.usage.cpu_us);
    cpu_us as f64 / 1e6 / time.as_secs_f64() * 100.0
}

/// What the report holds: of a long watch every so many looks, so that about [`REPORT_SAMPLES`]
/// are left, and beside them every quiet point and the highest memory and descriptors.
fn thinned(samples: &[RawSample], origin: Instant) -> Vec<Sample> {
    let step = samples.len().div_ceil(REPORT_SAMPLES);
    let highest = |value: fn(&Usage) -> u64| {
        (0..samples.len()).max_by_key(|&index| value(&samples[index].usage))
    };
    let highest = [
        highest(|usage| usage.rss_bytes),
        highest(|usage| usage.descriptors),
    ];
    let is_kept = |&index: &usize| {
        let run = samples[index].quiet_phase;
        let next = samples.get(index + 1).and_then(|sample| sample.quiet_phase);
        index % step == 0 || highest.contains(&Some(index)) || (run.is_some() && run != next)
    };
    let kept = (0..samples.len()).filter(is_kept);
    kept.map(|index| samples[index].sample(origin)).collect()
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
        watch.latest().expect("it lives").descriptors
    }

    #[test]
    fn our_own_process_can_be_watched() {
        let began = Instant::now();
        let watch = Watch::start(std::process::id(), EVERY).expect("our own process");
        let mut spun = 0_u64;
        until("CPU time was used", || {
            spun = (0..1_000_000).fold(spun, |sum, number| std::hint::black_box(sum ^ number));
            watch.latest().is_some_and(|sample| sample.cpu_us > 0)
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        until("the listener is counted", || {
            watch.latest().is_some_and(|sample| sample.tcp_in_use > 0)
        });
        drop(listener);
        let server = watch.finish(began, Instant::now(), Duration::ZERO);
        assert!(!server.died);
        assert!(!server.name.is_empty());
        assert!(server.rss.before > 100_000.0 && server.rss.max >= server.rss.before);
        assert!(server.samples.iter().all(|sample| sample.is_quiet));
        assert!(server.samples.iter().all(|sample| sample.descriptors > 0));
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

    /// Looks a second apart, so many before the load.
    fn samples(
        origin: Instant,
        count: u64,
        at: impl Fn(u64) -> (Option<u64>, u64),
    ) -> Vec<RawSample> {
        let second = |number| {
            let (quiet_phase, descriptors) = at(number);
            RawSample {
                at: origin + Duration::from_secs(number),
                quiet_phase,
                usage: Usage {
                    descriptors,
                    cpu_us: number * 250_000,
                    ..Usage::default()
                },
            }
        };
        (0..count).map(second).collect()
    }

    #[test]
    fn quiet_points_are_the_last_of_their_stretches() {
        // Two stretches may meet, when the load between them was too short for a look.
        let runs = [Some(1), Some(1), None, Some(3), Some(3), Some(5), None];
        let samples = samples(Instant::now(), 7, |number| (runs[number as usize], number));
        let points: Vec<_> = quiet_points(&samples)
            .map(|sample| sample.usage.descriptors)
            .collect();
        assert_eq!(points, [1, 4, 5]);
    }

    #[test]
    fn a_trend_is_taken_from_enough_quiet_points_or_from_the_load() {
        let origin = Instant::now();
        let after = |seconds| origin + Duration::from_secs(seconds);
        // A pause of one look in every ten, from the first look on.
        let samples = samples(origin, 300, |number| {
            ((number % 10 == 0).then_some(number), number)
        });
        let under_load = trend(&samples[..200], after(5), after(104));
        assert_eq!(under_load.len(), 90);
        assert!(under_load.iter().all(|sample| sample.quiet_phase.is_none()));
        let quiet = trend(&samples, after(95), after(299));
        assert_eq!(quiet.len(), 20);
        assert!(quiet.iter().all(|sample| sample.quiet_phase.is_some()));
    }

    #[test]
    fn cpu_time_is_of_the_load() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let samples = samples(origin, 20, |_| (None, 0));
        let close = |found: f64, known: f64| assert!((found - known).abs() < 1e-9, "{found}");
        close(cpu_percent(&samples, at(4000), at(12_000)), 25.0);
        // Two seconds' work around a load of one and a half.
        close(cpu_percent(&samples, at(4250), at(5750)), 100.0 / 3.0);
        // It ended, and was no longer looked at.
        close(cpu_percent(&samples, at(9000), at(99_000)), 25.0);
        close(cpu_percent(&samples, at(9000), at(9000)), 0.0);
        close(cpu_percent(&[], at(0), at(9000)), 0.0);
    }

    #[test]
    fn a_long_watch_is_thinned() {
        let origin = Instant::now();
        let samples = samples(origin, 86_400, |number| match number {
            0..3 => (Some(1), 0),
            43_217..43_219 => (Some(3), 1),
            77_777 => (None, 99),
            _ => (None, 5),
        });
        let kept = thinned(&samples, origin + Duration::from_secs(10));
        assert!((REPORT_SAMPLES / 2..REPORT_SAMPLES + 10).contains(&kept.len()));
        assert_eq!(kept[0].at_us, -10_000_000);
        assert!(kept.is_sorted_by_key(|sample| sample.at_us));
        let has = |number: i64| {
            let mut all = kept.iter();
            all.any(|sample| sample.at_us == (number - 10) * 1_000_000)
        };
        assert!(has(2) && has(43_218) && has(77_777));
        assert_eq!(thinned(&samples[..50], origin).len(), 50);
        assert!(thinned(&[], origin).is_empty());
    }
}
