//! `--fail-if`: conditions on what a report says. `p99>50ms,rss_slope>1MB/min`

use std::fmt;
use std::str::FromStr;

use super::finding;
use super::metric::{self, Metric, Per, Source, Unit};
use super::outcome::Class;
use super::report::{Against, Interval, Report, Threshold, ThresholdOutcome};

/// A run that must be longer by more than this factor is not worth a word.
const LONGER_MAX: f64 = 1000.0;

/// How conditions are met that are to hold.
#[derive(Debug)]
pub struct Met {
    /// All were, by the middles of their intervals.
    pub is_met: bool,
    /// Held if all were with their whole intervals, failed if one was not with the whole of its own.
    pub outcome: ThresholdOutcome,
    /// Those that were not would have been, but for the generator.
    pub is_generators: bool,
    /// The first one's figure.
    pub figure: Option<Interval>,
    /// What was measured.
    pub measured: String,
}

/// Conditions in the order written: those that make a run fail, or those that are to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    text: String,
    metric: Metric,
    operator: Operator,
    /// In the metric's unit: microseconds, bytes, percent, or a number. A trend's is per `per`.
    bound: f64,
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Conditions {
    /// What a run is held to without `--fail-if`: no errors, and where the server is watched no
    /// descriptors left behind, and no leak that is sure.
    pub fn default_for(has_pid: bool) -> Self {
        let of_process = ["fd_left>0", "rss_leak>0/h", "fd_leak>0/h"];
        let of_process = of_process.into_iter().filter(|_| has_pid);
        let all = std::iter::once("errors>0").chain(of_process);
        Self(all.map(Condition::built_in).collect())
    }

    /// What two servers are held to.
    pub fn default_for_two(has_pids: bool) -> Self {
        let cpu = has_pids.then_some("cpu.diff>5%");
        let all = ["errors>0", "p50.diff>5%", "p99.diff>5%"]
            .into_iter()
            .chain(cpu);
        Self(all.map(Condition::built_in).collect())
    }

    /// These, and that there are no errors, unless they say something else of errors.
    #[must_use]
    pub fn without_errors(mut self) -> Self {
        if !self.are_about(|name| name.starts_with("error")) {
            self.0.push(Condition::built_in("errors<=0"));
        }
        self
    }

    /// These, and that the highest rate which holds is not below those that were looked for.
    #[must_use]
    pub fn with_capacity_above(mut self, from: f64) -> Self {
        self.0
            .push(Condition::built_in(&format!("capacity<={from}/s")));
        self
    }

    /// Whether one of them is about a metric of such a name.
    pub fn are_about(&self, is_it: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|condition| is_it(&condition.metric.name))
    }

    /// The first one's unit and bound.
    pub(super) fn first(&self) -> Option<(Unit, f64)> {
        let first = self.0.first()?;
        Some((first.metric.unit, first.bound))
    }

    /// How they are met, where they are to hold.
    pub fn met(&self, report: &Report) -> Met {
        use ThresholdOutcome::{Failed, Held, NotEnoughData, Undecided};
        let mut outcomes = Vec::new();
        let mut measured = Vec::new();
        let (mut is_met, mut is_generators) = (true, true);
        for condition in &self.0 {
            let weighed = condition.weigh(report);
            measured.push(format!(
                "{} {}",
                condition.metric.name,
                condition.shown(weighed.0)
            ));
            let (is_this, outcome) = condition.met(weighed);
            is_met &= is_this;
            is_generators &= is_this || condition.is_generators(report);
            outcomes.push(outcome);
        }
        let worst = [Failed, NotEnoughData, Undecided]
            .into_iter()
            .find(|outcome| outcomes.contains(outcome));
        Met {
            is_met,
            outcome: worst.unwrap_or(Held),
            is_generators,
            figure: self.0.first().and_then(|first| first.weigh(report).0),
            measured: measured.join(", "),
        }
    }

    /// The differences that they are about.
    pub fn differences(&self) -> impl Iterator<Item = &'static str> {
        self.0
            .iter()
            .filter_map(|condition| condition.metric.difference())
    }

    /// Whether one of them is about the server's process, which `--pid` names.
    pub fn needs_pid(&self) -> bool {
        self.0.iter().any(|condition| condition.metric.needs_pid())
    }

    /// Looks at each condition, in the order written. A wrong byte and a short body are always
    /// looked at.
    pub fn evaluate(&self, report: &Report) -> Vec<Threshold> {
        let always = ["corrupt>0", "short>0"].map(Condition::built_in);
        let missing = always.iter().filter(|one| !self.0.contains(one));
        self.0
            .iter()
            .chain(missing)
            .map(|condition| condition.evaluate(report))
            .collect()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.0.iter().map(|condition| &*condition.text);
        f.write_str(&texts.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Conditions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|part| {
                Condition::parse(part.trim()).map_err(|why| {
                    format!(
                        "takes conditions such as p99>50ms,rss_slope>1MB/min; in '{}', {why}. \
                         Metrics: {}",
                        part.trim(),
                        metric::names()
                    )
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl PartialEq for Condition {
    /// However it was written.
    fn eq(&self, other: &Self) -> bool {
        (&self.metric.name, self.operator, self.bound, self.per)
            == (&other.metric.name, other.operator, other.bound, other.per)
    }
}

impl Condition {
    /// A condition of ours.
    fn built_in(text: &str) -> Self {
        Self::parse(text).expect("it is well-formed")
    }

    fn parse(text: &str) -> Result<Self, String> {
        const NO_OPERATOR: &str = "a metric, one of > >= < <= and a value are expected";
        let at = text.find(['<', '>']).ok_or(NO_OPERATOR)?;
        let (name, rest) = text.split_at(at);
        let (operator, value) = Operator::parse(rest).ok_or(NO_OPERATOR)?;
        let name = name.trim();
        let value = value.trim();
        let metric = Metric::named(name, value).ok_or_else(|| format!("'{name}' is no metric"))?;
        let unit = metric.unit;
        // A difference may be below zero.
        let below = value
            .strip_prefix('-')
            .filter(|_| metric.difference().is_some());
        let (bound, per) = unit
            .parse(below.unwrap_or(value))
            .map(|(bound, per)| (if below.is_some() { -bound } else { bound }, per))
            .ok_or_else(|| format!("the value must be {}", unit.takes()))?;
        Ok(Self {
            text: text.into(),
            metric,
            operator,
            bound,
            per,
        })
    }

    /// What it is about, and whether all of that makes a run fail.
    fn weigh(&self, report: &Report) -> (Option<Interval>, ThresholdOutcome) {
        let interval = self.metric.interval(report);
        let interval = interval.map(|interval| interval.scaled(self.minutes()));
        let outcome = interval.map_or(ThresholdOutcome::NotEnoughData, |interval| {
            let is_proof = matches!(self.metric.source, Source::Leak(_));
            let high = if is_proof {
                interval.low
            } else {
                interval.high
            };
            let ends = [interval.low, high];
            match ends.map(|end| self.operator.is_met(end, self.bound)) {
                [true, true] => ThresholdOutcome::Failed,
                [false, false] => ThresholdOutcome::Held,
                _ => ThresholdOutcome::Undecided,
            }
        });
        (interval, outcome)
    }

    fn shown(&self, interval: Option<Interval>) -> String {
        interval.map_or("not enough data".into(), |interval| {
            self.metric.unit.show_interval(interval, self.per)
        })
    }

    /// Of one that is to hold, whether it does by the interval's middle, and by the whole of it.
    fn met(
        &self,
        (interval, outcome): (Option<Interval>, ThresholdOutcome),
    ) -> (bool, ThresholdOutcome) {
        use ThresholdOutcome::{Failed, Held};
        let is_met = interval.is_some_and(|at| self.operator.is_met(at.middle(), self.bound));
        let outcome = match outcome {
            Failed => Held,
            Held => Failed,
            other => other,
        };
        (is_met, outcome)
    }

    /// Whether it is the generator's doing that it isn't met: the server has answered in time what it was asked
    /// late, or this side had no ports or descriptors.
    fn is_generators(&self, report: &Report) -> bool {
        match self.metric.source {
            Source::Time(..) => self.metric.as_sent().is_some_and(|metric| {
                let sent = metric.interval(report);
                sent.is_some_and(|sent| self.operator.is_met(sent.value, self.bound))
            }),
            _ => [Class::OutOfPorts, Class::OutOfDescriptors]
                .iter()
                .any(|&class| report.outcomes.count(class) > 0),
        }
    }

    fn evaluate(&self, report: &Report) -> Threshold {
        let (interval, outcome) = self.weigh(report);
        let is_undecided = outcome == ThresholdOutcome::Undecided;
        Threshold {
            text: self.text.clone(),
            measured: self.explained(self.shown(interval), report),
            outcome,
            longer: interval
                .filter(|_| is_undecided)
                .and_then(|interval| self.longer(interval)),
            is_optional: matches!(self.metric.source, Source::Leak(_)),
            finding: finding::of(&self.metric, self.least(), report),
        }
    }

    /// What a bare figure doesn't tell.
    fn explained(&self, measured: String, report: &Report) -> String {
        let is_nothing = measured == "0";
        match self.metric.source {
            Source::Class(Class::Corrupt)
                if is_nothing && matches!(report.verification.against, Against::Nothing) =>
            {
                "0, but nothing was compared".into()
            }
            _ => measured,
        }
    }

    /// How many times as long a run would have its interval on one side of the bound, if it measured the
    /// same. None where nothing near would.
    fn longer(&self, interval: Interval) -> Option<f64> {
        let distance = (interval.value - self.bound).abs();
        let margin = if interval.value < self.bound {
            interval.high - interval.value
        } else {
            interval.value - interval.low
        };
        let times = (margin / distance).powf(1.0 / self.metric.shrinks_by());
        (1.0..=LONGER_MAX).contains(&times).then_some(times)
    }

    /// The bound, of a condition on what is too much; a trend's per minute.
    fn least(&self) -> Option<f64> {
        let is_above = matches!(self.operator, Operator::Above | Operator::AtLeast);
        is_above.then_some(self.bound / self.minutes())
    }

    /// What a trend is per, in minutes; others are per nothing.
    fn minutes(&self) -> f64 {
        if self.metric.is_trend() {
            self.per.minutes()
        } else {
            1.0
        }
    }
}

impl Operator {
    /// What stands at the text's beginning, and what follows.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let operators = [
            (">=", Self::AtLeast),
            ("<=", Self::AtMost),
            (">", Self::Above),
            ("<", Self::Below),
        ];
        operators
            .into_iter()
            .find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
    }

    fn is_met(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
        }
    }
}

#[cfg(test)]
mod tests;
