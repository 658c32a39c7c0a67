//! Figures: what was measured, round by round, and what it should have been.

use std::fmt::Write as _;

/// One server's figures, one a round.
#[derive(Debug)]
pub struct Series {
    /// Whose, and under which circumstances.
    pub label: String,
    /// In the order of the rounds.
    pub values: Vec<f64>,
}

/// What something is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// The best of these series, by its median; round by round.
    Best(&'static [&'static str]),
    /// With nothing: the figure itself is judged.
    Nothing,
}

/// What must hold.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The series that is judged.
    pub of: &'static str,
    /// With what it is compared.
    pub against: Against,
    /// The greatest ratio, or figure.
    pub at_most: f64,
}

/// A row of the comparison.
#[derive(Debug)]
pub struct Table {
    /// What was done.
    pub title: String,
    /// What the figures are, with their unit.
    pub unit: String,
    /// All servers'.
    pub series: Vec<Series>,
    /// Compared with these.
    pub targets: Vec<Target>,
    /// What else a reader must know.
    pub notes: Vec<String>,
}

/// A target, judged.
struct Judged {
    what: String,
    value: f64,
    at_most: f64,
}

impl Judged {
    fn line(&self) -> String {
        let met = if self.value <= self.at_most {
            "met"
        } else {
            "NOT met"
        };
        format!("{:.2}, at most {}: {met}", self.value, self.at_most)
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

impl Table {
    /// A table without figures yet.
    pub fn new(title: impl Into<String>, unit: impl Into<String>, targets: &[Target]) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            series: Vec::new(),
            targets: targets.to_vec(),
            notes: Vec::new(),
        }
    }

    /// Adds a round's figure.
    pub fn push(&mut self, label: &str, value: f64) {
        match self.series.iter_mut().find(|series| series.label == label) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series {
                label: label.to_owned(),
                values: vec![value],
            }),
        }
    }

    fn get(&self, label: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.label == label)
    }

    fn judge(&self, target: &Target) -> Option<Judged> {
        let of = self.get(target.of)?;
        match target.against {
            Against::Nothing => Some(Judged {
                what: target.of.to_owned(),
                value: median(&of.values),
                at_most: target.at_most,
            }),
            Against::Best(labels) => {
                let others = labels.iter().filter_map(|label| self.get(label));
                let best = others.min_by(|a, b| median(&a.values).total_cmp(&median(&b.values)))?;
                Some(Judged {
                    what: format!("{} / {}", of.label, best.label),
                    value: ratio(of, best),
                    at_most: target.at_most,
                })
            }
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.title, self.unit);
        let labels = self.series.iter().map(|series| series.label.len());
        let width = labels.max().unwrap_or(0);
        let first = self.series.first();
        for series in &self.series {
            let (least, most) = range(&series.values);
            let median = number(median(&series.values));
            let to_first = first.map_or(1.0, |first| ratio(first, series));
            let label = &series.label;
            let (least, most) = (number(least), number(most));
            push(
                &mut text,
                format_args!(
                    "  {label:width$}  {median:>8}  ({least} to {most})  {to_first:>6.2}\n"
                ),
            );
        }
        for judged in self.targets.iter().filter_map(|target| self.judge(target)) {
            push(
                &mut text,
                format_args!("  {}: {}\n", judged.what, judged.line()),
            );
        }
        for note in &self.notes {
            push(&mut text, format_args!("  {note}\n"));
        }
        text
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}.", self.title, capital(&self.unit));
        for note in &self.notes {
            push(&mut text, format_args!(" {}.", capital(note)));
        }
        let first = self.series.first().map_or("", |first| &first.label);
        push(
            &mut text,
            format_args!("\n\n| server | median | range | {first} / it |\n|---|--:|--:|--:|\n"),
        );
        for series in &self.series {
            let (least, most) = range(&series.values);
            let to_first = self
                .series
                .first()
                .map_or(1.0, |first| ratio(first, series));
            push(
                &mut text,
                format_args!(
                    "| {} | {} | {} to {} | {to_first:.2} |\n",
                    series.label,
                    number(median(&series.values)),
                    number(least),
                    number(most)
                ),
            );
        }
        text.push('\n');
        for judged in self.targets.iter().filter_map(|target| self.judge(target)) {
            push(
                &mut text,
                format_args!("- {}: {}\n", judged.what, judged.line()),
            );
        }
        text
    }
}

/// The median of the rounds' ratios: what disturbs a whole round disturbs both.
fn ratio(of: &Series, to: &Series) -> f64 {
    let pairs = of.values.iter().zip(&to.values);
    let ratios: Vec<_> = pairs.map(|(of, to)| of / to).collect();
    median(&ratios)
}

fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

/// Three digits at least.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("a string takes all that is written");
}
