//! A run from the command line to the exit code: stages of load with quiet points between them,
//! and the report.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::time::ClockId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::check::Reference;
use super::compare;
use super::engine::{Engine, Observer, StageLimits, Workload};
use super::ledger::{Ledger, Phase};
use super::live::{Live, LiveFigures};
use super::merge;
use super::outcome::Class;
use super::outputs;
use super::plan::{Plan, TargetProtocol};
use super::population::ClientKind;
use super::report::{
    self, Against, Comparison, Generator, Model, Report, ServerUsage, Status, TlsUse, Verdict,
    Verification,
};
use super::search;
use super::stretches::{Stretch, Stretches};
use super::tally::Tally;
use super::threshold::Conditions;
use super::verdict::judge;
use super::versus;
use super::watch::Watch;
use crate::descriptors::raise_descriptor_limit;
use crate::escape::Escaped;
use crate::failure::{Exit, Failure, tell};
use crate::limits::{
    SOAK_DESCRIPTORS_RESERVED, SOAK_DURATION, SOAK_OPEN_FILES_MAX, SOAK_SAMPLE_EVERY, SOAK_SAMPLES,
    SOAK_STAGE_MAX, SOAK_STAGE_MIN, SOAK_STAGES, SOAK_WARM_UP_MAX,
};
use crate::signals;
use crate::soak::args::SoakArgs;
use crate::tls::client;

/// Runs a soak test.
pub fn run(args: &SoakArgs) -> Exit {
    soak(args).unwrap_or_else(|failure| failure.report())
}

fn soak(args: &SoakArgs) -> Result<Exit, Failure> {
    let conditions = conditions(args)?;
    match args.of_reports() {
        Some("compare") => return compare_runs(args, &conditions),
        Some("merge") => return merge_parts(args, &conditions),
        _ => {}
    }
    let mut plan =
        Plan::new(args, args.seed.unwrap_or_else(rand::random)).map_err(Failure::usage)?;
    if args.trust.insecure {
        tell(client::INSECURE);
    }
    let references = references(args, &mut plan)?;
    let load = load(args, &plan)?;
    outputs::check(args)?;
    check_source(&plan)?;
    let watches = watches(args)?;
    let signals = signals()?;
    let mut view = View::start(args, watches.first());
    let mut engine = Engine::new(&plan, references, signals).map_err(no_loop)?;
    if args.verify && args.against.is_none() {
        learn(&mut engine).map_err(no_loop)?;
    }
    settle(args, &watches);
    if let Some(at) = args.start_at {
        engine.wait_until(at);
    }
    engine.set_observer(&mut view);
    let mut report = match &args.find {
        Some(demand) => find(args, &mut engine, &load, &demand.clone().without_errors())?,
        None => measure(args, &mut engine, &load, &watches)?,
    };
    drop(engine);
    view.live.finish();
    conclude(args, &mut report, &conditions)
}

/// One load, and the quiet point after it.
fn measure(
    args: &SoakArgs,
    engine: &mut Engine<'_>,
    load: &Workload,
    watches: &[Watch],
) -> Result<Report, Failure> {
    let period = offer(engine, args, load, watches).map_err(no_loop)?;
    settle(args, watches);
    let mut report = assemble(args, engine, load, &period);
    let tally = &engine.ledger.tally;
    let mut servers = watches
        .iter()
        .map(|watch| watch.finish(tally.began, period.ended, warm_up(args, &period)));
    report.server = servers.next();
    let second = servers.next();
    report.comparison = comparison(engine.ledger.plan, tally, report.server.as_ref(), second);
    Ok(report)
}

/// Many loads, each of another rate and watched by itself.
fn find(
    args: &SoakArgs,
    engine: &mut Engine<'_>,
    load: &Workload,
    demand: &Conditions,
) -> Result<Report, Failure> {
    let (Some(rates), Workload::Open { clients_max, .. }) = (args.rate, load) else {
        return Err(Failure::usage("--find: it takes --rate FROM..TO"));
    };
    let time = args.duration.unwrap_or(SOAK_DURATION);
    let mut offer = |rate, lengths| {
        let step = SoakArgs {
            duration: Some(time * lengths),
            ..args.clone()
        };
        let load = Workload::Open {
            rate,
            clients_max: *clients_max,
        };
        let watches = watches(&step)?;
        settle(&step, &watches);
        measure(&step, engine, &load, &watches)
    };
    search::find(demand, [rates.from, rates.to], &mut offer)
}

fn no_loop(error: io::Error) -> Failure {
    Failure::new(Exit::NotOffered, format!("the loop can't be made: {error}"))
}

/// Judges a report, and writes it.
fn conclude(
    args: &SoakArgs,
    report: &mut Report,
    conditions: &Conditions,
) -> Result<Exit, Failure> {
    judge(report, conditions);
    outputs::write(args, report)?;
    Ok(match report.verdict.status {
        Status::Pass => Exit::Done,
        Status::Fail => Exit::Failed,
        Status::NotOffered | Status::Undecided => Exit::NotOffered,
    })
}

/// `compare A.json B.json`
fn compare_runs(args: &SoakArgs, conditions: &Conditions) -> Result<Exit, Failure> {
    let [_, files @ ..] = &args.targets[..] else {
        return Err(Failure::usage("compare takes two reports of --json"));
    };
    let [a, b] = files else {
        return Err(Failure::usage("compare takes two reports of --json"));
    };
    outputs::check(args)?;
    let read = |file: &OsString| compare::read(Path::new(file));
    let names = [a, b].map(|file| file.to_string_lossy().into_owned());
    let reports = [read(a)?, read(b)?];
    if reports.iter().any(|report| report.comparison.is_some()) {
        return Err(Failure::usage(
            "compare takes runs of one server: a report of --versus or of compare compares two itself",
        ));
    }
    let mut report = compare::two_runs(names, reports);
    report.command = command_line(std::env::args_os());
    conclude(args, &mut report, conditions)
}

/// `merge PART.json...`
fn merge_parts(args: &SoakArgs, conditions: &Conditions) -> Result<Exit, Failure> {
    outputs::check(args)?;
    let files = args.targets[1..].iter();
    let reports = files.map(|file| compare::read(Path::new(file)));
    let mut report = merge::merge(reports.collect::<Result<_, _>>()?).map_err(Failure::usage)?;
    report.command = command_line(std::env::args_os());
    conclude(args, &mut report, conditions)
}

/// Two servers beside each other.
fn comparison(
    plan: &Plan,
    tally: &Tally,
    first: Option<&ServerUsage>,
    second: Option<ServerUsage>,
) -> Option<Comparison> {
    let versus = plan.versus.as_ref()?;
    let sides = tally.sides()?;
    let count = |stretches: &Stretches| {
        let over = stretches.over();
        let sum = |of: fn(&Stretch) -> u64| over.iter().map(of).sum();
        (sum(|stretch| stretch.ended), sum(|stretch| stretch.failed))
    };
    Some(Comparison {
        names: [plan.target.clone(), versus.server.clone()],
        is_of_two_runs: false,
        ended: sides.map(count),
        differences: versus::differences(sides, [first, second.as_ref()]),
        server: second,
    })
}

// ---- before the load ----

fn conditions(args: &SoakArgs) -> Result<Conditions, Failure> {
    let has_pid = !args.pid.is_empty();
    let is_of_runs = args.of_reports().is_some();
    let are_two = args.versus.is_some() || args.of_reports() == Some("compare");
    let most = 1 + usize::from(args.versus.is_some());
    if args.pid.len() > most || (has_pid && args.pid.len() < most) {
        return Err(Failure::usage(format!(
            "--pid: it is given {} times; it takes one for each server",
            args.pid.len()
        )));
    }
    if let [a, b] = args.pid[..]
        && a == b
    {
        return Err(Failure::usage("--pid: both are the same process"));
    }
    let conditions = match &args.fail_if {
        Some(conditions) => conditions.clone(),
        None if are_two => Conditions::default_for_two(has_pid),
        None => Conditions::default_for(has_pid),
    };
    let conditions = match (&args.find, args.rate) {
        (Some(demand), Some(rates)) if rates.from < rates.to => {
            check_demand(demand, has_pid)?;
            conditions.with_capacity_above(rates.from)
        }
        (Some(_), _) => return Err(Failure::usage("--find: it takes --rate FROM..TO")),
        (None, Some(rates)) if rates.from < rates.to => {
            return Err(Failure::usage("--rate: FROM..TO is for --find"));
        }
        _ if conditions.are_about(|name| name == "capacity") && !is_of_runs => {
            return Err(Failure::usage("--fail-if: capacity takes --find"));
        }
        _ => conditions,
    };
    if let Some(of) = conditions.differences().next()
        && !are_two
        && !is_of_runs
    {
        return Err(Failure::usage(format!(
            "--fail-if: {of}.diff takes --versus"
        )));
    }
    let watched = conditions
        .differences()
        .find(|of| ["cpu", "rss"].contains(of));
    if let Some(of) = watched
        && !has_pid
        && !is_of_runs
    {
        return Err(Failure::usage(format!(
            "--fail-if: {of}.diff takes both servers' --pid"
        )));
    }
    if conditions.needs_pid() && !has_pid && !is_of_runs {
        return Err(Failure::usage(
            "--fail-if: what it says of the server takes --pid",
        ));
    }
    Ok(conditions)
}

/// Whether a search can be for that.
fn check_demand(demand: &Conditions, has_pid: bool) -> Result<(), Failure> {
    if demand.differences().next().is_some() || demand.are_about(|name| name == "capacity") {
        return Err(Failure::usage(
            "--find: it takes what one load shows, not a difference or a capacity",
        ));
    }
    if demand.needs_pid() && !has_pid {
        return Err(Failure::usage(
            "--find: what it says of the server takes --pid",
        ));
    }
    Ok(())
}

/// Whether clients can have the first of the local addresses.
fn check_source(plan: &Plan) -> Result<(), Failure> {
    let Some(&source) = plan.sources.first() else {
        return Ok(());
    };
    let bound = std::net::TcpListener::bind((source, 0));
    let wont_do = |why: String| Failure::usage(format!("--source: {source} won't do: {why}"));
    if source.is_ipv4() != plan.address.is_ipv4() {
        return Err(wont_do(format!("the server is {}", plan.address)));
    }
    bound.map(drop).map_err(|error| wont_do(error.to_string()))
}

fn references(args: &SoakArgs, plan: &mut Plan) -> Result<Vec<Option<Reference>>, Failure> {
    let Some(folder) = &args.against else {
        return Ok(vec![None; plan.names.len()]);
    };
    if !folder.is_dir() {
        let folder = Escaped(folder.as_os_str().as_encoded_bytes());
        return Err(Failure::usage(format!(
            "--against: '{folder}' won't do: it takes a folder"
        )));
    }
    if plan.protocol == TargetProtocol::Bare && plan.mix.share(ClientKind::Split) > 0.0 {
        plan.keep_split_names_apart(folder)
            .map_err(Failure::usage)?;
    }
    plan.references(folder).map_err(Failure::usage)
}

fn load(args: &SoakArgs, plan: &Plan) -> Result<Workload, Failure> {
    let limit = raise_descriptor_limit();
    let files = match args.against {
        Some(_) => plan.names.len().min(SOAK_OPEN_FILES_MAX) as u64,
        None => 0,
    };
    let room = limit
        .saturating_sub(SOAK_DESCRIPTORS_RESERVED + files)
        .max(1);
    let sides = plan.sides() as u64;
    let asked = args.clients.or(args.rate.is_none().then_some(10));
    let clients = asked.map_or(room, |all| plan.part.share(all, sides));
    if clients == 0 {
        return Err(Failure::usage("--part: there are fewer clients than parts"));
    }
    if clients > room {
        return Err(Failure::usage(format!(
            "--clients: '{clients}' won't do: with {limit} descriptors it takes 1 to {room}"
        )));
    }
    let longest = duration(args).unwrap_or(Duration::MAX);
    if args.ramp.is_some_and(|ramp| ramp > longest) {
        return Err(Failure::usage(format!(
            "--ramp: the full load would never be reached in the {longest:?} that it lasts"
        )));
    }
    if let Some(rate) = args.rate {
        return Ok(Workload::Open {
            rate: rate.from,
            clients_max: clients,
        });
    }
    let all = asked.unwrap_or_default();
    if !all.is_multiple_of(sides) {
        return Err(Failure::usage(format!(
            "--clients: '{all}' won't do: each of two servers has a half of them"
        )));
    }
    // It is no more than the descriptors.
    let kinds = plan.mix.spread((all / sides) as usize);
    let is_nobody = |kind: &ClientKind| plan.mix.share(*kind) > 0.0 && !kinds.contains(kind);
    if let Some(kind) = ClientKind::ALL.into_iter().find(is_nobody) {
        return Err(Failure::usage(format!(
            "--mix: {}={}% of {all} clients is nobody: it takes more --clients, or --rate",
            kind.as_str(),
            plan.mix.share(kind)
        )));
    }
    let own = (0..clients / sides).map(|pair| kinds[plan.part.of_all(pair, 1) as usize]);
    let of_both = own.flat_map(|kind| std::iter::repeat_n(kind, sides as usize));
    Ok(Workload::Closed(of_both.collect()))
}

/// The first signal is the loop's; a second one ends the program as it would any other.
fn signals() -> Result<Signals, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::NotOffered, format!("signals: {error}"));
    let first_has_come = signals::first_has_come(&[SIGINT, SIGTERM]).map_err(failed)?;
    for signal in [SIGINT, SIGTERM] {
        let (again, came) = (128 + signal, std::sync::Arc::clone(&first_has_come));
        signal_hook::flag::register_conditional_shutdown(signal, again, came).map_err(failed)?;
    }
    Signals::new([SIGINT, SIGTERM]).map_err(failed)
}

fn watches(args: &SoakArgs) -> Result<Vec<Watch>, Failure> {
    let start = |&pid: &u64| {
        // At most 2^30, as the flag says.
        Watch::start(pid as u32, sample_every(args))
            .map_err(|error| Failure::usage(format!("--pid: '{pid}' won't do: {error}")))
    };
    args.pid.iter().map(start).collect()
}

/// Waits for the server to come to rest, and has it looked at.
fn settle(args: &SoakArgs, watches: &[Watch]) {
    // The load is over for all of them before one is waited for.
    watches.iter().for_each(|watch| watch.set_quiet(true));
    for watch in watches {
        watch.settle(args.settle);
    }
}

/// Downloads every name once, for what follows to be compared with.
fn learn(engine: &mut Engine<'_>) -> io::Result<()> {
    let names = engine.ledger.references.len() as u32;
    engine.run_stage(Workload::Learn(0..names), StageLimits::default())
}

// ---- the load ----

/// When load was offered.
struct LoadPeriod {
    began: Instant,
    started_at: Timestamp,
    ended: Instant,
    /// How long requests were started, without pauses.
    load: Duration,
    /// CPU time of the loop's thread meanwhile.
    cpu: Duration,
}

/// Stage after stage, with quiet points between them if the server is watched.
fn offer(
    engine: &mut Engine<'_>,
    args: &SoakArgs,
    load: &Workload,
    watches: &[Watch],
) -> io::Result<LoadPeriod> {
    let mut time_left = duration(args);
    let mut ramp = args.ramp.unwrap_or_default();
    engine.begin_count();
    let mut period = LoadPeriod {
        began: Instant::now(),
        started_at: Timestamp::now(),
        ended: Instant::now(),
        load: Duration::ZERO,
        cpu: Duration::ZERO,
    };
    let cpu_before = cpu_time();
    loop {
        let (stage_time, stage_requests) = match watches {
            [_, ..] => stage_max(args),
            [] => (None, None),
        };
        let stage_time = stage_time.map(|time| time.saturating_add(ramp));
        let time = [time_left, stage_time].into_iter().flatten().min();
        let requests = requests_of(args, engine).map(|all| all - engine.ledger.tally.started);
        let requests = [requests, stage_requests].into_iter().flatten().min();
        watches.iter().for_each(|watch| watch.set_quiet(false));
        engine.run_stage(
            load.clone(),
            StageLimits {
                time,
                requests,
                ramp,
            },
        )?;
        period.ended = Instant::now();
        period.load += engine.offered();
        time_left = time_left.map(|left| left.saturating_sub(time.unwrap_or_default()));
        ramp = Duration::ZERO;
        let is_over = engine.cut_short
            || time_left == Some(Duration::ZERO)
            || requests_of(args, engine).is_some_and(|all| engine.ledger.tally.started >= all);
        if is_over {
            break;
        }
        settle(args, watches);
    }
    period.cpu = cpu_time().saturating_sub(cpu_before);
    engine.ledger.tally.close(period.ended);
    Ok(period)
}

/// How many requests are started, if that is limited: this part's.
fn requests_of(args: &SoakArgs, engine: &Engine<'_>) -> Option<u64> {
    let plan = engine.ledger.plan;
    let share = |all| plan.part.share(all, plan.sides() as u64);
    args.requests.map(share)
}

/// How long load is offered, if that is limited.
fn duration(args: &SoakArgs) -> Option<Duration> {
    let default = args.requests.is_none().then_some(SOAK_DURATION);
    args.duration.or(default)
}

/// How far a stage goes: to the next quiet point. A rise that repeats takes some loads to be seen.
fn stage_max(args: &SoakArgs) -> (Option<Duration>, Option<u64>) {
    match (args.quiet_every, duration(args)) {
        (Some(time), _) => (Some(time), None),
        (None, Some(time)) => {
            let time = time.div_f64(SOAK_STAGES).max(SOAK_STAGE_MIN);
            (Some(time.min(SOAK_STAGE_MAX)), None)
        }
        (None, None) => {
            let requests = args.requests.map(|all| (all as f64 / SOAK_STAGES).ceil());
            (
                Some(SOAK_STAGE_MAX),
                requests.map(|requests| requests as u64),
            )
        }
    }
}

fn sample_every(args: &SoakArgs) -> Duration {
    let [least, usual, most] = SOAK_SAMPLE_EVERY;
    let default = duration(args).map_or(usual, |time| (time / SOAK_SAMPLES).clamp(least, most));
    args.sample_every.unwrap_or(default)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    // A thread's CPU time is not negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn warm_up(args: &SoakArgs, period: &LoadPeriod) -> Duration {
    args.warm_up
        .unwrap_or((period.load / 5).min(SOAK_WARM_UP_MAX))
}

// ---- the live view ----

/// Shows a run as it goes on.
struct View<'a> {
    live: Live,
    args: &'a SoakArgs,
    watch: Option<&'a Watch>,
}

impl<'a> View<'a> {
    fn start(args: &'a SoakArgs, watch: Option<&'a Watch>) -> Self {
        Self {
            live: Live::start(!args.quiet),
            args,
            watch,
        }
    }
}

impl Observer for View<'_> {
    fn observe(&mut self, ledger: &Ledger<'_>) {
        let tally = &ledger.tally;
        let last = tally.seconds.last();
        let measured = last.filter(|second| second.completed > 0);
        let server = self.watch.and_then(Watch::latest);
        self.live.show(LiveFigures {
            elapsed: tally.began.elapsed(),
            duration: duration(self.args),
            requests_limit: self.args.requests,
            started: tally.started,
            rate: last.map_or(0.0, |second| {
                (second.completed + second.failed) as f64 / f64::from(second.seconds)
            }),
            connecting: ledger.phase(Phase::Connecting),
            waiting: ledger.phase(Phase::Waiting),
            receiving: ledger.phase(Phase::Receiving),
            idle: ledger.phase(Phase::Idle),
            completed: tally.count(Class::Complete),
            failed: tally.failed(),
            p50_us: measured.map(|second| second.p50),
            p99_us: measured.map(|second| second.p99),
            server_rss_bytes: server.map(|sample| sample.usage.rss_bytes),
            server_descriptors: server.map(|sample| sample.usage.descriptors),
        });
    }
}

// ---- after it ----

fn assemble(args: &SoakArgs, engine: &Engine<'_>, load: &Workload, period: &LoadPeriod) -> Report {
    let (plan, tally) = (engine.ledger.plan, &engine.ledger.tally);
    let shown =
        |name: &super::plan::RequestTemplate| String::from_utf8_lossy(&name.shown).into_owned();
    let against = match &args.against {
        Some(folder) => Against::Folder(folder.to_string_lossy().into_owned()),
        None if args.verify => Against::FirstDownload,
        None => Against::Nothing,
    };
    let mut report = Report {
        schema: report::SCHEMA.into(),
        carafe: env!("CARGO_PKG_VERSION").into(),
        command: command_line(std::env::args_os()),
        started_at: format!("{:.0}", period.started_at),
        target: plan.target.clone(),
        names: plan.names.iter().take(100).map(shown).collect(),
        names_total: plan.names.len(),
        seed: plan.seed,
        verdict: Verdict {
            status: Status::Pass,
            reasons: Vec::new(),
            finds: Vec::new(),
            cut_short: engine.cut_short,
        },
        load: asked_and_achieved(args, engine, load, period),
        outcomes: report::Outcomes {
            never_complete: engine
                .ledger
                .never_complete()
                .take(100)
                .map(shown)
                .collect(),
            ..tally.outcomes()
        },
        latency: report::Latency::default(),
        tls: plan.uses_tls().then(|| TlsUse {
            handshakes: tally.handshake.count(),
            resumed: tally.resumed,
            is_insecure: args.trust.insecure,
        }),
        verification: Verification {
            against,
            bodies: tally.checked.0,
            bytes: tally.checked.1,
            corrupt: tally.count(Class::Corrupt),
            short: tally.count(Class::Short),
        },
        generator: Generator {
            lateness: report::Percentiles::default(),
            cpu_percent: 100.0 * period.cpu.as_secs_f64()
                / (period.ended - period.began).as_secs_f64().max(1e-9),
            rss_max_bytes: rss_max_bytes(),
        },
        server: None,
        comparison: None,
        search: None,
        thresholds: Vec::new(),
        seconds: tally.seconds.clone(),
        notes: Vec::new(),
        part: args.part,
        missing_parts: Vec::new(),
        stretches: tally.stretches().to_vec(),
        histograms: tally.histograms(),
    };
    report.derive(tally.silence());
    report
}

fn asked_and_achieved(
    args: &SoakArgs,
    engine: &Engine<'_>,
    load: &Workload,
    period: &LoadPeriod,
) -> report::Load {
    let (plan, tally) = (engine.ledger.plan, &engine.ledger.tally);
    let (model, rate_asked, clients) = match load {
        Workload::Open { rate, clients_max } => {
            (Model::Open, Some(*rate / plan.part.of as f64), *clients_max)
        }
        Workload::Closed(kinds) => (Model::Closed, None, kinds.len() as u64),
        Workload::Learn(_) => (Model::Closed, None, 0),
    };
    let kinds = ClientKind::ALL
        .into_iter()
        .filter(|&kind| plan.mix.share(kind) > 0.0);
    report::Load {
        model,
        clients,
        clients_max: engine.ledger.in_flight_max,
        rate_asked,
        rate_started: 0.0,
        rate_ended: 0.0,
        rate_intervals: None,
        never_started: engine.never_started,
        started_late: tally.late,
        seconds: period.load.as_secs_f64(),
        ramp_seconds: args.ramp.unwrap_or_default().as_secs_f64(),
        mix: kinds
            .map(|kind| (kind.as_str().to_owned(), plan.mix.share(kind)))
            .collect(),
        body_bytes: tally.body_bytes,
    }
}

/// The words as a shell takes them again.
fn command_line(words: impl Iterator<Item = OsString>) -> String {
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=%@+".contains(c);
        if word.chars().all(is_plain) && !word.is_empty() {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The peak of the resident set; zero where that can't be read.
fn rss_max_bytes() -> u64 {
    let status = procfs::process::Process::myself().and_then(|this| this.status());
    status.ok().and_then(|status| status.vmhwm).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_told_as_it_can_be_typed() {
        let words = [
            "carafe",
            "soak",
            "[::1]:7",
            "it's",
            "",
            "--fail-if",
            "p99>5ms",
        ];
        let told = command_line(words.into_iter().map(OsString::from));
        assert_eq!(
            told,
            r"carafe soak '[::1]:7' 'it'\''s' '' --fail-if 'p99>5ms'"
        );
    }
}
