//! What the text and the page say in the same words.

use super::metric::{self, Per, Unit};
use super::report::{
    Against, Comparison, Difference, Interval, Latency, Load, Model, Percentiles, Phase, Report,
    Resource, Search, ServerUsage, Slope, Status, Step, Threshold, ThresholdOutcome, TlsUse,
    Verdict, Verification,
};
use super::units;

/// How many names a heading holds.
const NAMES_SHOWN: usize = 3;

/// The verdict's word.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Pass => "PASS",
        Status::Fail => "FAIL",
        Status::NotOffered => "NOT OFFERED",
        Status::Undecided => "UNDECIDED",
    }
}

/// The verdict in a line: its word, and whether the run was cut short.
pub fn verdict(verdict: &Verdict) -> String {
    let cut_short = if verdict.cut_short {
        " (cut short by a signal)"
    } else {
        ""
    };
    format!("{}{cut_short}", status(verdict.status))
}

/// What was asked for, by name.
pub fn names(report: &Report) -> String {
    let shown = report.names.len().min(NAMES_SHOWN);
    let names = report.names[..shown].join(", ");
    match report.names_total.saturating_sub(shown) {
        0 if names.is_empty() => "no names".into(),
        0 => names,
        more => format!("{names} and {} more", units::count(more as u64)),
    }
}

/// The model of the load.
pub fn model(model: Model) -> &'static str {
    match model {
        Model::Closed => "Closed model: each client waits for its answer",
        Model::Open => "Open model: arrivals at a rate, whatever the server does",
    }
}

/// The population, unless all clients are fast.
pub fn mix(load: &Load) -> Option<String> {
    let present = load.mix.iter().filter(|(_, share)| *share > 0.0);
    let kinds: Vec<_> = present
        .map(|(kind, share)| format!("{kind} {share} %"))
        .collect();
    let is_told = load
        .mix
        .iter()
        .any(|(k, share)| k != "fast" && *share > 0.0);
    is_told.then(|| kinds.join(", "))
}

/// Bytes of bodies a second.
pub fn throughput(load: &Load) -> String {
    let rate = load.body_bytes as f64 / load.seconds.max(1e-6);
    format!("{}/s", units::bytes_about(rate))
}

/// What was asked for against what was achieved, with a heading.
pub fn asked_and_achieved(load: &Load) -> [[String; 3]; 4] {
    let clients = units::count(load.clients);
    let clients = match load.model {
        Model::Closed => clients,
        Model::Open => format!("{clients} at most"),
    };
    let rate = load.rate_asked;
    let rate = rate.map_or_else(String::new, |rate| format!("{}/s", units::number(rate)));
    let [started, ended] = [load.rate_started, load.rate_ended].map(units::number);
    let row = |label: &str, asked, achieved| [label.into(), asked, achieved];
    [
        row("", "asked".into(), "achieved".into()),
        row(
            "clients",
            clients,
            format!("{} at most", units::count(load.clients_max)),
        ),
        row(
            "requests",
            rate,
            format!("{started}/s started, {ended}/s ended"),
        ),
        row(
            "received",
            String::new(),
            format!("{}, {}", units::bytes(load.body_bytes), throughput(load)),
        ),
    ]
}

/// Each of the run's times with its percentiles, `p50` to `max`.
pub fn latencies(latency: &Latency) -> Vec<(&'static str, [String; 5])> {
    let rows = [
        ("connect", &latency.connect),
        ("handshake", &latency.handshake),
        ("first byte", &latency.first_byte),
        ("total", &latency.total),
        ("corrected", &latency.corrected),
    ];
    let is_told = |(label, times): &(&str, &Percentiles)| *label != "handshake" || times.count > 0;
    let told = rows.into_iter().filter(is_told);
    told.map(|(label, times)| (label, percentiles(times)))
        .collect()
}

/// How TLS was spoken.
pub fn tls(tls: TlsUse) -> String {
    let [handshakes, resumed] = [tls.handshakes, tls.resumed].map(units::count);
    let unchecked = if tls.is_insecure {
        "; the server's certificate was NOT CHECKED (--insecure)"
    } else {
        ""
    };
    format!("TLS: {handshakes} handshakes, {resumed} of them resumed{unchecked}")
}

/// What latencies are taken from.
pub const LATENCY_OF: &str = "Complete downloads by fast and halfclose clients";

/// What sets `corrected` apart from `total`.
pub fn corrected(model: Model) -> &'static str {
    match model {
        Model::Closed => "Corrected: with the requests filled in that waiting clients did not send",
        Model::Open => "Corrected: from the moment when a request was due",
    }
}

/// The longest stall.
pub fn stall(latency: &Latency) -> String {
    match latency.longest_silence_us {
        0 => "none".into(),
        us => {
            let (length, at) = (units::time(us), units::time(latency.longest_silence_at_us));
            format!("{length}, from {at} on")
        }
    }
}

/// What was compared, and with what.
pub fn verification(verification: &Verification) -> String {
    let against = match &verification.against {
        Against::Nothing => {
            return "Nothing was compared: a wrong byte would not be noticed".into();
        }
        Against::Folder(folder) => format!("the files in {folder}"),
        Against::FirstDownload => {
            "the first download of each name (a byte that is wrong each time is not noticed)".into()
        }
    };
    let (bodies, bytes) = (verification.bodies, verification.bytes);
    format!(
        "{} bodies and {} compared with {against}: {} corrupt, {} short",
        units::count(bodies),
        units::bytes(bytes),
        units::count(verification.corrupt),
        units::count(verification.short),
    )
}

/// How a threshold came out.
pub fn outcome(outcome: ThresholdOutcome) -> &'static str {
    match outcome {
        ThresholdOutcome::Held => "held",
        ThresholdOutcome::Failed => "FAILED",
        ThresholdOutcome::Undecided => "undecided",
        ThresholdOutcome::NotEnoughData => "not enough data",
    }
}

/// What a comparison of two runs can't know.
pub const TWO_RUNS: &str = "two runs of different times: what differs may be the machine, what else ran on it, or \
     the weather of the network, and no interval here knows of that; --versus asks both in one run";

/// What the run was of.
pub fn subject(report: &Report) -> String {
    match &report.comparison {
        None => report.target.clone(),
        Some(Comparison {
            names: [a, b],
            is_of_two_runs,
            ..
        }) => {
            let between = if *is_of_two_runs { "and" } else { "--versus" };
            format!("{a} {between} {b}")
        }
    }
}

/// What differs, in a table with a heading: the first one's, the second one's, and the difference.
pub fn differences(comparison: &Comparison) -> Vec<[String; 5]> {
    let [a, b] = &comparison.names;
    let heading = ["", a, b, "difference", "in percent"].map(Into::into);
    let row = |of: &Difference| {
        let unit = metric::difference_unit(&of.quantity);
        let show = |interval| unit.show_interval(interval, Per::Second);
        let [a, b] = of.values.map(|value| show(Interval::exact(value)));
        let percent = Unit::Percent.show_interval(of.percent, Per::Second);
        [
            of.quantity.clone().into_owned(),
            a,
            b,
            show(of.absolute),
            percent,
        ]
    };
    let ended =
        |(ended, failed): (u64, u64)| format!("{}, {}", units::count(ended), units::count(failed));
    let [a, b] = comparison.ended.map(ended);
    let rows = comparison.differences.iter().map(row);
    let counts = ["ended, failed".into(), a, b, String::new(), String::new()];
    [heading, counts].into_iter().chain(rows).collect()
}

/// What a search has found, a line each.
pub fn search(search: &Search) -> Vec<String> {
    let rate = |rate: f64| format!("{}/s", units::number(rate));
    let [from, to] = search.between.map(rate);
    let steps = search.steps.len();
    let found = match search.capacity {
        None => "can't be told".into(),
        Some(found) if found.low <= 0.0 => format!("none: {from} is too much already"),
        Some(found) => Unit::Rate.show_interval(found, Per::Second),
    };
    let mut lines = vec![
        format!(
            "{}, from {from} to {to}, in {steps} steps",
            search.condition
        ),
        format!("the highest rate that holds: {found}"),
    ];
    if let Some(crossed) = search.crossed {
        let [up, down] = crossed.map(rate);
        lines.push(format!(
            "crossed at {up} on the way up, at {down} from above"
        ));
    }
    if let Some(held) = search.held {
        lines.push(format!(
            "{} held with its whole interval, for longer",
            rate(held)
        ));
    }
    lines
}

/// The steps of a search, with a heading.
pub fn steps(search: &Search) -> Vec<[String; 4]> {
    let heading = ["step", "rate", "", "measured"].map(Into::into);
    let row = |step: &Step| {
        let phase = match step.phase {
            Phase::Climb => "climb",
            Phase::Narrow => "narrow",
            Phase::Walk => "walk",
            Phase::Overload => "overload",
            Phase::Hold => "hold",
        };
        let outcome = if step.is_offered {
            outcome(step.outcome)
        } else {
            "not offered"
        };
        [
            phase.into(),
            format!("{}/s", units::number(step.rate)),
            outcome.into(),
            step.measured.clone(),
        ]
    };
    std::iter::once(heading)
        .chain(search.steps.iter().map(row))
        .collect()
}

/// What the page's words mean.
pub const GLOSSARY: [(&str, &str); 11] = [
    (
        "p99",
        "99 requests in 100 were as fast as this, or faster; p50 is the median",
    ),
    (
        "first byte",
        "from the request, when it was sent, to the answer's first byte",
    ),
    (
        "total",
        "from the beginning of the connection, or of the request on a kept one, to the last byte",
    ),
    (
        "corrected",
        "as somebody would have seen it who doesn't wait for the server: without coordinated omission, \
         which hides what clients that wait did not ask meanwhile",
    ),
    (
        "open, closed model",
        "requests arrive at a rate whatever the server does, or each client waits for its answer",
    ),
    ("silence", "somebody waited, and nobody received a byte"),
    (
        "99 % interval",
        "where the truth is in 99 of 100 cases; a threshold is held or failed if all of it is",
    ),
    (
        "slope",
        "how fast the floor of memory still rises at the end of the run: less than that is a cache that has filled",
    ),
    (
        "difference",
        "how much more the second server, or run, has than the first; cpu is CPU time a request, rss memory \
         while there was load",
    ),
    (
        "capacity",
        "the highest rate at which what --find asks for holds; a walk of steps up and down has crossed it from \
         both sides, and half of the steps at it hold",
    ),
    (
        "no client",
        "a quiet point: the load has paused, and what is left is the server's own",
    ),
];

/// How much longer a run must be to decide a threshold.
pub fn longer(threshold: &Threshold, report: &Report) -> String {
    if report.search.is_some() {
        return "longer steps (-z) may tell".into();
    }
    match threshold.longer {
        Some(times) => format!(
            "a run {} times as long would tell, of {}",
            units::number((times * 10.0).ceil() / 10.0),
            units::seconds(report.load.seconds * times)
        ),
        None => "a longer run, or more loads with quiet points between them, may tell".into(),
    }
}

/// What stands above the faults that a run would have found.
pub const FINDS: &str = "would have found, 95 times in 100:";

/// The figures of a distribution, `p50` to `max`; none of nothing.
pub fn percentiles(of: &Percentiles) -> [String; 5] {
    let figures = [of.p50, of.p90, of.p99, of.p999, of.max];
    figures.map(|us| match of.count {
        0 => "-".into(),
        _ => units::time(us),
    })
}

/// The server in a line.
pub fn server(server: &ServerUsage) -> String {
    let (name, pid) = (&server.name, server.pid);
    let cpu = units::number(server.cpu_percent);
    let died = if server.died {
        "; it ENDED during the run"
    } else {
        ""
    };
    format!("{name} (pid {pid}), CPU {cpu} % of one core{died}")
}

/// What the server's resources did, with a heading.
pub fn resources(server: &ServerUsage) -> [[String; 5]; 3] {
    let heading = [
        "",
        "before",
        "max",
        "after",
        "slope per minute (99 % interval)",
    ];
    [
        heading.map(Into::into),
        resource("memory", &server.rss, units::bytes_about),
        resource("descriptors", &server.descriptors, units::number),
    ]
}

fn resource(label: &str, of: &Resource, show: fn(f64) -> String) -> [String; 5] {
    let slope = match of.slope {
        Slope::NotEnoughData => "not enough data".into(),
        Slope::Fitted {
            per_minute,
            low,
            high,
            ..
        } => format!("{} ({} to {})", show(per_minute), show(low), show(high)),
    };
    let [before, max, after] = [of.before, of.max, of.after].map(show);
    [label.into(), before, max, after, slope]
}
