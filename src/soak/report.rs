//! What a run found: the one structure that the text, the JSON and the page are made from.
//! Times are in microseconds and begin with the run, unless a name says otherwise.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use super::figures::{Interval, Latency, Percentiles, Slope};
use super::histograms::Histograms;
use super::outcome::Class;
use super::part::Part;
use super::stretches::{self, Stretch};

/// The JSON's schema. A field may be added under the same name; a change of meaning is a new one.
pub const SCHEMA: &str = "carafe-soak/1";

/// Everything that a run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: Cow<'static, str>,
    /// The program's version.
    pub carafe: Cow<'static, str>,
    /// The command line, as a shell takes it.
    pub command: String,
    /// When the load began, RFC 3339 in UTC.
    pub started_at: String,
    /// The server, as the command line named it: `127.0.0.1:7890` or `http://127.0.0.1:80`.
    pub target: String,
    /// What was asked for: a name or path each; the first hundred of them.
    pub names: Vec<String>,
    /// How many names there are in all.
    pub names_total: usize,
    /// Replays the run's choices.
    pub seed: u64,
    /// What the run says in one word, and why.
    pub verdict: Verdict,
    /// Asked against achieved.
    pub load: Load,
    /// What became of every request.
    pub outcomes: Outcomes,
    /// How long things took, of complete downloads by `fast`, `halfclose` and `split` clients.
    pub latency: Latency,
    /// How TLS was spoken, if it was.
    #[serde(default)]
    pub tls: Option<TlsUse>,
    /// What was checked.
    pub verification: Verification,
    /// The load generator's own part.
    pub generator: Generator,
    /// The server's resources, with `--pid`.
    pub server: Option<ServerUsage>,
    /// Two servers, or two runs, beside each other.
    pub comparison: Option<Comparison>,
    /// The search of `--find`. What is told beside it is of its last step.
    #[serde(default)]
    pub search: Option<Search>,
    /// The thresholds and how they came out.
    pub thresholds: Vec<Threshold>,
    /// One entry a second of the run, for plots.
    pub seconds: Vec<Second>,
    /// What a reader should know before believing a figure, most important first.
    pub notes: Vec<String>,
    /// Which part of a run it is, with `--part`.
    pub part: Option<Part>,
    /// Of several parts that were merged: those that were not there.
    #[serde(default)]
    pub missing_parts: Vec<u64>,
    /// The run in 32 to 64 stretches.
    #[serde(default)]
    pub stretches: Vec<Stretch>,
    /// All times: HdrHistogram's V2, compressed and in base64, of microseconds.
    #[serde(default)]
    pub histograms: Histograms,
}

/// The run in one word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    #[serde(rename = "word")]
    pub status: Status,
    /// Why, a sentence each; empty after a pass.
    #[serde(rename = "because")]
    pub reasons: Vec<String>,
    /// What would have failed the run, 95 times in 100, if it had been there.
    pub finds: Vec<Finding>,
    /// The run was ended early by a signal.
    pub cut_short: bool,
}

/// The least fault of a kind that the run would have found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What it is of: `errors`, `memory`, `descriptors` and such.
    pub of: Cow<'static, str>,
    /// How much of it, a request: bytes, or a number; none if no size would have been found.
    pub per_request: Option<f64>,
    /// The same an hour, at the run's rate.
    pub per_hour: Option<f64>,
    /// The same in words.
    pub text: String,
}

/// What a verdict may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All thresholds held and all bytes checked were right. Exit code 0.
    #[default]
    Pass,
    /// A threshold failed or a byte was wrong. Exit code 1.
    Fail,
    /// The load asked for was not offered, so nothing can be said. Exit code 3.
    NotOffered,
    /// The run was too short, or saw too little, to tell. Exit code 3.
    Undecided,
}

/// Asked against achieved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// `closed` (so many clients, each waits for its answer) or `open` (so many arrivals a second).
    pub model: Model,
    /// Clients at once: asked for in the closed model, a cap in the open one.
    pub clients: u64,
    /// The most that were connected at one time.
    pub clients_max: u64,
    /// Arrivals a second asked for; open model.
    pub rate_asked: Option<f64>,
    /// Requests started a second.
    pub rate_started: f64,
    /// Requests that came to an end a second, whichever.
    pub rate_ended: f64,
    /// Where these two are, with 99 % certainty.
    pub rate_intervals: Option<[Interval; 2]>,
    /// Arrivals that were due and never started; open model.
    pub never_started: u64,
    /// Those that were started more than a quarter of a second late.
    pub started_late: u64,
    /// How long load was offered, in seconds.
    pub seconds: f64,
    /// How much of that the full load was still being reached, in seconds.
    pub ramp_seconds: f64,
    /// The population as asked for: kind and share in percent.
    pub mix: Vec<(String, f64)>,
    /// Bytes of bodies received.
    pub body_bytes: u64,
}

/// The model of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// A fixed number of clients, each of which waits for its answer before it asks again.
    #[default]
    Closed,
    /// Arrivals at a rate, whatever the server does.
    Open,
}

/// What became of every request: `started` is the sum of all the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// Requests started.
    pub started: u64,
    /// How many of them were sent a second time, on a new connection: the server had closed the kept one
    /// before it answered.
    pub asked_again: u64,
    /// The share of failures, where it is with 99 % certainty.
    pub failed_share: Option<Interval>,
    /// Names that were asked for and never came; the first hundred of them.
    pub never_complete: Vec<String>,
    /// The ways they ended, in the order of [`Class::ALL`]; none that
    /// did not occur.
    pub classes: Vec<ClassCount>,
}

impl Report {
    /// Fills in what follows from the histograms and the stretches.
    pub fn derive(&mut self, silence: (u64, u64)) {
        self.latency = self.histograms.latency(&self.stretches, silence);
        self.generator.lateness = self.histograms.lateness.percentiles();
        self.load.rate_intervals = Some(stretches::rates(&self.stretches));
        self.outcomes.failed_share = stretches::failures(&self.stretches);
        let seconds = self.load.seconds.max(1e-9);
        self.load.rate_started = self.outcomes.started as f64 / seconds;
        self.load.rate_ended = self.outcomes.ended() as f64 / seconds;
    }
}

impl Outcomes {
    /// How many ended so.
    pub fn count(&self, class: Class) -> u64 {
        let mut classes = self.classes.iter();
        let found = classes.find(|found| found.class == class.as_str());
        found.map_or(0, |found| found.count)
    }

    /// How many ended, in whichever way.
    pub fn ended(&self) -> u64 {
        self.classes.iter().map(|class| class.count).sum()
    }

    /// The ways to fail.
    pub fn failures(&self) -> impl Iterator<Item = &ClassCount> {
        self.classes.iter().filter(|class| class.is_failure)
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures().map(|class| class.count).sum()
    }
}

/// One way to end, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassCount {
    /// Its name, such as `complete` or `reset_before_first_byte`.
    pub class: Cow<'static, str>,
    /// Whether it counts as a failure.
    pub is_failure: bool,
    /// How often.
    pub count: u64,
    /// One example, of a failure: what was asked for and what happened.
    pub sample: Option<String>,
}

/// How TLS was spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsUse {
    /// Handshakes that came to their end.
    pub handshakes: u64,
    /// Those of them that resumed a session.
    pub resumed: u64,
    /// No server's certificate was checked.
    pub is_insecure: bool,
}

/// What was checked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verification {
    /// What bodies were compared with.
    pub against: Against,
    /// Bodies that were compared to their end.
    pub bodies: u64,
    /// Bytes that were compared and right.
    pub bytes: u64,
    /// Bodies with a wrong byte.
    pub corrupt: u64,
    /// Bodies that ended early.
    pub short: u64,
}

/// What bodies are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Nothing: a wrong byte would not be noticed.
    #[default]
    Nothing,
    /// A local folder.
    Folder(String),
    /// The first download of each name.
    FirstDownload,
}

/// The load generator's own part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// How late requests were sent: sent minus due; open model.
    pub lateness: Percentiles,
    /// CPU time of the loop's thread, in percent of the time the load lasted.
    pub cpu_percent: f64,
    /// Resident memory at its highest, in bytes.
    pub rss_max_bytes: u64,
}

/// The server's resources.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerUsage {
    /// Its process.
    pub pid: u32,
    /// Its name, as /proc has it.
    pub name: String,
    /// It ended or was restarted during the run.
    pub died: bool,
    /// Samples, in order: of a long run about 2,000, and all quiet points and highest values.
    pub samples: Vec<Sample>,
    /// CPU time in percent of one core, over the load.
    pub cpu_percent: f64,
    /// Where that is, with 99 % certainty.
    pub cpu_interval: Option<Interval>,
    /// Resident memory, in bytes.
    pub rss: Resource,
    /// Descriptors.
    pub descriptors: Resource,
}

/// Two servers that were asked the same, or two runs: how the second differs from the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// The servers, or the runs, as the command line named them.
    pub names: [String; 2],
    /// They are two runs, each at its own time.
    pub is_of_two_runs: bool,
    /// How many requests of each ended, and how many of these failed.
    pub ended: [(u64, u64); 2],
    /// What was compared.
    pub differences: Vec<Difference>,
    /// The second server's resources, with a second `--pid`.
    pub server: Option<ServerUsage>,
}

/// How one quantity differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// Which: `mean`, `p50`, `p90`, `p99`, `p99.9` (microseconds), `rate` (a second), `cpu` (microseconds a
    /// request), `rss` (bytes, while there was load).
    pub quantity: Cow<'static, str>,
    /// The first one's, and the second one's.
    pub values: [f64; 2],
    /// By how much the second one's is more.
    pub absolute: Interval,
    /// The same, in percent of the first one's.
    pub percent: Interval,
    /// Both over time: seconds since the load began, the first one's, and the second one's.
    pub stretches: Vec<(f64, f64, f64)>,
}

/// A search for the highest rate at which conditions hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Search {
    /// The conditions, as they were written, and what holds beside them.
    pub condition: String,
    /// The rates between which it went, a second.
    pub between: [f64; 2],
    /// The highest rate that holds; none where that can't be told.
    pub capacity: Option<Interval>,
    /// Where that was crossed on the way up, and coming from above, in the middle.
    pub crossed: Option<[f64; 2]>,
    /// The rate that held with its whole interval, for longer and after an overload.
    pub held: Option<f64>,
    /// Why a load could not be offered, so that the search ended.
    pub not_offered: Option<String>,
    /// The loads that were offered, in this order.
    pub steps: Vec<Step>,
}

/// One load of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What it was for.
    pub phase: Phase,
    /// Arrivals a second.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// What the first condition is about, in microseconds, percent or its own unit.
    pub figure: Option<Interval>,
    /// What all of them are about, in words.
    pub measured: String,
    /// Whether they held with the whole of their intervals.
    pub outcome: ThresholdOutcome,
    /// The load was there.
    pub is_offered: bool,
}

/// What a step of a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Twice as much each time, until it doesn't hold.
    Climb,
    /// Halving what lies between.
    Narrow,
    /// A notch up or down.
    Walk,
    /// Too much, on purpose.
    Overload,
    /// The rate that is to hold, for longer.
    Hold,
}

/// One look at the server.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When; negative before the first client.
    pub at_us: i64,
    /// No client was there: before the first, after the last, or in a pause.
    pub is_quiet: bool,
    /// What it used.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time so far, in microseconds.
    pub cpu_us: u64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// TCP sockets in use in its network namespace.
    pub tcp_in_use: u64,
    /// TCP sockets in TIME_WAIT in its network namespace.
    pub tcp_time_wait: u64,
}

/// How one resource moved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resource {
    /// At the first quiet point.
    pub before: f64,
    /// At its highest.
    pub max: f64,
    /// At the last quiet point.
    pub after: f64,
    /// What is left of it, as far as that can be told from a cache: see [`Left`].
    pub left: Option<Left>,
    /// The trend after the warm-up.
    pub slope: Slope,
}

/// What a load leaves behind. A rise that repeats with each load is a leak; one that doesn't is a cache.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Left {
    /// At least so much.
    pub low: f64,
    /// At most so much.
    pub high: f64,
    /// Loads that were judged: those after the first one.
    pub loads: usize,
}

/// One threshold and how it came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Threshold {
    /// As it was written.
    pub text: String,
    /// What was measured, with its unit.
    pub measured: String,
    /// What that means.
    pub outcome: ThresholdOutcome,
    /// How many times as long a run would decide it, about.
    pub longer: Option<f64>,
    /// It fails a run, but the lack of data does not keep it from passing.
    pub is_optional: bool,
    /// What it would have found.
    #[serde(skip)]
    pub finding: Option<Finding>,
}

/// How a threshold came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdOutcome {
    /// The run stayed within it.
    Held,
    /// The run failed by it.
    Failed,
    /// Its interval lies on both sides.
    Undecided,
    /// Nothing can be said.
    NotEnoughData,
}

/// One second of the run; of more than four hours, two of them, and so on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the load began.
    pub at: u32,
    /// How many seconds it stands for.
    #[serde(default = "one")]
    pub seconds: u32,
    /// Requests started.
    pub started: u64,
    /// Downloads completed.
    pub completed: u64,
    /// Failures.
    pub failed: u64,
    /// Bytes of bodies received.
    pub body_bytes: u64,
    /// Clients connected at its end.
    pub clients: u64,
    /// The median of total latency of those completed in it; of several seconds, the worst one's.
    pub p50: u64,
    /// The 99th percentile, likewise.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

fn one() -> u32 {
    1
}

impl Default for Second {
    fn default() -> Self {
        Self::new(0, 1)
    }
}

impl Second {
    /// So many seconds from then on, in which nothing has happened.
    pub fn new(at: u32, seconds: u32) -> Self {
        Self {
            at,
            seconds,
            started: 0,
            completed: 0,
            failed: 0,
            body_bytes: 0,
            clients: 0,
            p50: 0,
            p99: 0,
            max: 0,
        }
    }

    /// Counts what another one has counted, beside the clients. Of what isn't a count, the worse stays.
    pub fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.completed += other.completed;
        self.failed += other.failed;
        self.body_bytes += other.body_bytes;
        self.p50 = self.p50.max(other.p50);
        self.p99 = self.p99.max(other.p99);
        self.max = self.max.max(other.max);
    }
}
