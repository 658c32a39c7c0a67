//! `--fail-if`: conditions on what a report says. `p99>50ms,rss_slope>1MB/min`

use std::str::FromStr;

use super::metric::{self, Metric, Per, Source};
use super::outcome::Class;
use super::report::{Against, Report, Resource, Slope, Threshold, ThresholdOutcome};

/// Conditions that make a run fail, in the order written.
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
    /// What a run is held to without `--fail-if`: no errors, and no descriptors left behind where
    /// the server is watched.
    pub fn default_for(has_pid: bool) -> Self {
        let mut conditions = vec![Condition::built_in("errors>0")];
        if has_pid {
            conditions.push(Condition::built_in("fd_left>0"));
        }
        Self(conditions)
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
        let metric = Metric::named(name).ok_or_else(|| format!("'{name}' is no metric"))?;
        let unit = metric.unit;
        let (bound, per) = unit
            .parse(value.trim())
            .ok_or_else(|| format!("the value must be {}", unit.takes()))?;
        Ok(Self {
            text: text.into(),
            metric,
            operator,
            bound,
            per,
        })
    }

    fn evaluate(&self, report: &Report) -> Threshold {
        let measured = match self.metric.source {
            Source::Trend(of) => report
                .server
                .as_ref()
                .and_then(|server| self.judge_trend(of(server))),
            _ => self.judge_value(report),
        };
        let (measured, outcome) = match measured {
            Some((measured, true)) => (measured, ThresholdOutcome::Failed),
            Some((measured, false)) => (measured, ThresholdOutcome::Held),
            None => ("not enough data".into(), ThresholdOutcome::NotEnoughData),
        };
        Threshold {
            text: self.text.clone(),
            measured,
            outcome,
        }
    }

    /// What was measured, and whether the condition is met.
    fn judge_value(&self, report: &Report) -> Option<(String, bool)> {
        let value = self.metric.value(report)?;
        let mut measured = self.metric.unit.show(value);
        if matches!(self.metric.source, Source::Class(Class::Corrupt))
            && value == 0.0
            && matches!(report.verification.against, Against::Nothing)
        {
            measured.push_str(", but nothing was compared");
        }
        Some((measured, self.operator.is_met(value, self.bound)))
    }

    /// A trend meets it only where its whole interval does.
    fn judge_trend(&self, resource: &Resource) -> Option<(String, bool)> {
        let Slope::Fitted {
            per_minute,
            low,
            high,
        } = resource.slope
        else {
            return None;
        };
        let trend = [per_minute, low, high].map(|slope| slope * self.per.minutes());
        let [_, low, high] = trend;
        let nearest = match self.operator {
            Operator::Above | Operator::AtLeast => low,
            Operator::Below | Operator::AtMost => high,
        };
        let measured = self.metric.unit.show_trend(trend, self.per);
        Some((measured, self.operator.is_met(nearest, self.bound)))
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
