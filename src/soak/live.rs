//! The live view on a terminal. A thread of its own draws, so that a terminal that takes nothing
//! cannot hold up the load.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use super::units;

/// How long the end of a run waits for a terminal that takes nothing.
const CLEAR_WAIT: Duration = Duration::from_millis(500);

/// The bar's steps: finer than any terminal is wide.
const STEPS: u64 = 1000;

/// What a run looks like now.
#[derive(Clone, Debug, Default)]
pub struct LiveFigures {
    /// Since the load began.
    pub elapsed: Duration,
    /// How long load is offered, if that is limited.
    pub duration: Option<Duration>,
    /// How many requests are started, if that is limited.
    pub requests_limit: Option<u64>,
    /// Requests started so far.
    pub started: u64,
    /// Requests that came to an end in the last second.
    pub rate: f64,
    /// Clients that connect.
    pub connecting: u64,
    /// Clients that wait for the first byte of an answer.
    pub waiting: u64,
    /// Clients that receive a body.
    pub receiving: u64,
    /// Clients that are connected and ask nothing now.
    pub idle: u64,
    /// Downloads completed so far.
    pub completed: u64,
    /// Failures so far.
    pub failed: u64,
    /// The median latency of the last second, in microseconds; nothing was completed in it if none.
    pub p50_us: Option<u64>,
    /// The 99th percentile.
    pub p99_us: Option<u64>,
    /// The server's resident memory in bytes, if it is watched.
    pub server_rss_bytes: Option<u64>,
    /// The server's descriptors, if it is watched.
    pub server_descriptors: Option<u64>,
}

/// The live view, or none where nobody looks.
#[derive(Debug)]
pub struct Live {
    drawing: Option<Drawing>,
}

#[derive(Debug)]
struct Drawing {
    progress: SyncSender<LiveFigures>,
    cleared: Receiver<()>,
}

impl Live {
    /// Starts the view if it is wanted and stderr is a terminal.
    pub fn start(is_wanted: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        let drawing = is_shown.then(|| Drawing::start(draw)).flatten();
        Self { drawing }
    }

    /// Shows how the run stands. Never blocks: while the terminal is busy, it is dropped.
    pub fn show(&self, progress: LiveFigures) {
        if let Some(drawing) = &self.drawing {
            // The next one is a quarter of a second away.
            let _ = drawing.progress.try_send(progress);
        }
    }

    /// Clears the view. Waits at most half a second for a terminal that takes nothing; the thread
    /// then ends with the process, and whatever else is written to stderr waits for it.
    pub fn finish(self) {
        if let Some(Drawing { progress, cleared }) = self.drawing {
            drop(progress);
            // Disconnected or late: either way nothing is left to wait for.
            let _ = cleared.recv_timeout(CLEAR_WAIT);
        }
    }
}

impl Drawing {
    /// None if there is no thread to be had: the run goes on unseen.
    fn start(draw: fn(&Receiver<LiveFigures>)) -> Option<Self> {
        let (progress, shown) = mpsc::sync_channel(1);
        let (done, cleared) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("soak-live".into());
        thread
            .spawn(move || {
                draw(&shown);
                let _ = done.send(());
            })
            .ok()?;
        Some(Self { progress, cleared })
    }
}

fn draw(shown: &Receiver<LiveFigures>) {
    let bar = ProgressBar::new(STEPS);
    for progress in shown {
        bar.set_style(style(part(&progress).is_some()));
        bar.set_prefix(clock(&progress));
        let steps = part(&progress).unwrap_or_default() * STEPS as f64;
        bar.set_position(steps as u64);
        bar.set_message(lines(&progress));
        // The bar draws itself at the first change and then not for a while.
        bar.force_draw();
    }
    bar.finish_and_clear();
}

/// With a bar if the run's end is known.
fn style(has_end: bool) -> ProgressStyle {
    let template = if has_end {
        "{prefix} {wide_bar}\n{msg}"
    } else {
        "{prefix}\n{msg}"
    };
    ProgressStyle::with_template(template).expect("the templates are well-formed")
}

/// How much of the run is over; whichever limit is nearer ends it.
fn part(progress: &LiveFigures) -> Option<f64> {
    let of_time = progress
        .duration
        .map(|duration| progress.elapsed.as_secs_f64() / duration.as_secs_f64().max(1e-6));
    let of_requests = progress
        .requests_limit
        .map(|limit| progress.started as f64 / limit.max(1) as f64);
    let part = [of_time, of_requests].into_iter().flatten();
    part.reduce(f64::max).map(|part| part.clamp(0.0, 1.0))
}

fn clock(progress: &LiveFigures) -> String {
    let elapsed = FormattedDuration(progress.elapsed);
    match progress.duration.map(FormattedDuration) {
        Some(duration) => format!("{elapsed} of {duration}"),
        None => elapsed.to_string(),
    }
}

fn lines(progress: &LiveFigures) -> String {
    let latency = |us: Option<u64>| us.map_or_else(|| "-".into(), units::time);
    let limit = progress.requests_limit;
    let limit = limit.map_or_else(String::new, |limit| format!(" of {}", units::count(limit)));
    let mut lines = vec![
        format!(
            "requests  {}{limit} started, {} complete, {} failed, {}/s",
            units::count(progress.started),
            units::count(progress.completed),
            units::count(progress.failed),
            units::number(progress.rate.round()),
        ),
        format!(
            "clients   {} connecting, {} waiting, {} receiving, {} idle",
            units::count(progress.connecting),
            units::count(progress.waiting),
            units::count(progress.receiving),
            units::count(progress.idle),
        ),
        format!(
            "latency   p50 {}, p99 {}",
            latency(progress.p50_us),
            latency(progress.p99_us)
        ),
    ];
    let server = [
        progress.server_rss_bytes.map(units::bytes),
        progress
            .server_descriptors
            .map(|count| format!("{} descriptors", units::count(count))),
    ];
    let server: Vec<_> = server.into_iter().flatten().collect();
    if !server.is_empty() {
        lines.push(format!("server    {}", server.join(", ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_stuck_terminal_stops_neither_the_load_nor_the_end() {
        let stuck = |_: &Receiver<LiveFigures>| thread::sleep(Duration::from_secs(3600));
        let live = Live {
            drawing: Drawing::start(stuck),
        };
        let started = Instant::now();
        for _ in 0..1000 {
            live.show(LiveFigures::default());
        }
        live.finish();
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_end_waits_until_the_view_is_cleared() {
        let live = Live {
            drawing: Drawing::start(draw),
        };
        live.show(LiveFigures::default());
        live.finish();
        let unwanted = Live::start(false);
        assert!(unwanted.drawing.is_none());
        unwanted.show(LiveFigures::default());
        unwanted.finish();
    }

    #[test]
    fn whichever_limit_is_nearer_ends_the_run() {
        let mut progress = LiveFigures {
            elapsed: Duration::from_secs(30),
            ..LiveFigures::default()
        };
        assert_eq!(part(&progress), None);
        assert_eq!(clock(&progress), "00:00:30");
        progress.duration = Some(Duration::from_secs(120));
        assert_eq!(part(&progress), Some(0.25));
        assert_eq!(clock(&progress), "00:00:30 of 00:02:00");
        (progress.requests_limit, progress.started) = (Some(10), 5);
        assert_eq!(part(&progress), Some(0.5));
        progress.started = 11;
        assert_eq!(part(&progress), Some(1.0));
    }

    #[test]
    fn all_that_is_known_is_shown() {
        let progress = LiveFigures {
            started: 1_234,
            requests_limit: Some(10_000),
            receiving: 7,
            failed: 2,
            p50_us: Some(1_500),
            server_descriptors: Some(74),
            ..LiveFigures::default()
        };
        let text = lines(&progress);
        for part in [
            "1,234 of 10,000 started",
            "2 failed",
            "7 receiving",
            "p50 1.50 ms, p99 -",
            "server    74 descriptors",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let unwatched = lines(&LiveFigures::default());
        assert!(!unwatched.contains("server"), "{unwatched}");
    }
}
