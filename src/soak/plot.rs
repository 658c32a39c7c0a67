//! A plot: an SVG that stretches, with labels around it that don't. So it fits a phone as it fits
//! a desk, and takes its colours from the page's style.

use std::fmt::Write as _;

use maud::{Markup, html};

/// The SVG's own coordinates run from 0 to this in both directions, and y points down.
const SIZE: f64 = 1000.0;

/// One direction of a plot.
#[derive(Debug)]
pub struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

/// What is drawn, in this order.
#[derive(Debug)]
pub enum Shape {
    /// A stretch of x that is set apart.
    Band(f64, f64),
    /// Bars from the bottom: from, to and height, and what a pointer on it is told.
    Bars(Vec<(f64, f64, f64, String)>),
    /// A line; it is broken where there is no value.
    Line(Vec<(f64, Option<f64>)>),
    /// An upright line with a label.
    Guide(f64, String),
}

/// A plot with a title.
#[derive(Debug)]
pub struct Plot {
    /// Stands above it.
    pub title: &'static str,
    /// What a reader must know about it, in a few words.
    pub note: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn: the style's class, a label for the legend if it needs one, and the mark.
    pub marks: Vec<(&'static str, &'static str, Shape)>,
}

impl Axis {
    /// From zero to a number of things, with ticks at whole multiples of 1, 2 or 5.
    pub fn whole(max: f64, label: fn(f64) -> String) -> Self {
        let step = round_up((max / 4.0).max(1.0));
        Self::stepped(0.0, (max / step).ceil().max(1.0) * step, step, label)
    }

    /// From zero to a number of bytes, with ticks at powers of two.
    pub fn bytes(max: f64, label: fn(f64) -> String) -> Self {
        let step = (max / 4.0).max(1.0).log2().ceil().exp2();
        Self::stepped(0.0, (max / step).ceil().max(1.0) * step, step, label)
    }

    /// Seconds, as they are: time does not end at a round number.
    pub fn time(from: f64, to: f64) -> Self {
        const STEPS: [f64; 13] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
        ];
        let to = to.max(from + 1e-3);
        let rough = (to - from) / 5.0;
        let step = match STEPS.into_iter().find(|&step| step >= rough) {
            Some(step) if rough > 0.5 => step,
            Some(_) => round_up(rough),
            None => round_up(rough / 3600.0) * 3600.0,
        };
        let label: fn(f64) -> String = match step {
            3600.0.. => |at| format!("{} h", at / 3600.0),
            60.0.. => |at| format!("{} min", at / 60.0),
            1.0.. => |at| format!("{at} s"),
            _ => |at| format!("{} s", (at * 1e3).round() / 1e3),
        };
        Self::stepped(from, to, step, label)
    }

    /// Logarithmic, from below the least value to above the greatest, both above zero.
    pub fn log(min: f64, max: f64, label: fn(f64) -> String) -> Self {
        let (mut from, mut to) = (round_down(min), round_up(max));
        if from >= to {
            (from, to) = (from / 2.0, to * 2.0);
        }
        let decades = (to / from).log10();
        let digits: &[f64] = match decades {
            ..2.2 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = (decades / 6.0).ceil().max(1.0) as i32;
        let exponents = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
        let exponents = exponents.filter(|exponent| exponent % every == 0);
        let ticks = exponents.flat_map(|exponent| {
            let decade = 10_f64.powi(exponent);
            digits.iter().map(move |digit| digit * decade)
        });
        let ticks = ticks.filter(|tick| (from * 0.999..=to * 1.001).contains(tick));
        Self {
            from,
            to,
            is_log: true,
            ticks: ticks.map(|tick| (tick, label(tick))).collect(),
        }
    }

    /// With ticks at these values instead.
    #[must_use]
    pub fn labelled(mut self, at: &[u64], label: fn(f64) -> String) -> Self {
        let ticks = at.iter().map(|&at| at as f64);
        self.ticks = ticks.map(|tick| (tick, label(tick))).collect();
        self
    }

    fn stepped(from: f64, to: f64, step: f64, label: fn(f64) -> String) -> Self {
        let (first, last) = ((from / step).ceil() as i64, (to / step * 1.000_001) as i64);
        let ticks = (first..=last).map(|at| at as f64 * step);
        Self {
            from,
            to,
            is_log: false,
            ticks: ticks.map(|tick| (tick, label(tick))).collect(),
        }
    }

    /// The labels, each with its fraction of the axis.
    pub fn ticks(&self) -> impl Iterator<Item = (f64, &str)> {
        let ticks = self.ticks.iter();
        ticks.map(|(tick, label)| (self.fraction(*tick), label.as_str()))
    }

    /// Where a value stands: 0 at the axis's beginning, 1 at its end.
    fn fraction(&self, value: f64) -> f64 {
        let fraction = if self.is_log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        fraction.clamp(0.0, 1.0)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below a value.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let lead = value / decade * (1.0 - 1e-9);
    let mut steps = [1.0, 2.0, 5.0].into_iter();
    steps.find(|&step| step >= lead).unwrap_or(10.0) * decade
}

/// The greatest of 1, 2 and 5 times a power of ten that is not above a value.
fn round_down(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let lead = value / decade * (1.0 + 1e-9);
    let mut steps = [5.0, 2.0].into_iter();
    steps.find(|&step| step <= lead).unwrap_or(1.0) * decade
}

impl Plot {
    /// The plot as a figure.
    pub fn render(&self) -> Markup {
        let legend = self.marks.iter().filter(|(_, label, _)| !label.is_empty());
        html! {
            figure {
                figcaption {
                    h3 { (self.title) }
                    @if !self.note.is_empty() { p { (self.note) } }
                    ul class="legend" {
                        @for (class, label, _) in legend {
                            li { i class=(class) {} (label) }
                        }
                    }
                }
                div class="frame" {
                    div class="y" {
                        @for (at, label) in self.y.ticks() {
                            span style={ "bottom:" (percent(at)) } { (label) }
                        }
                    }
                    div class="area" { (self.svg()) (self.guides()) }
                    div class="x" {
                        @for (at, label) in self.x.ticks() {
                            span style={ "left:" (percent(at)) } { (label) }
                        }
                    }
                }
            }
        }
    }

    /// What is drawn, without the labels: as large as whatever it stands in.
    pub fn svg(&self) -> Markup {
        html! {
            svg viewBox={ "0 0 " (SIZE) " " (SIZE) } preserveAspectRatio="none" role="img"
                aria-label=(self.title) {
                path class="grid" d=(self.grid()) {}
                @for (class, _, mark) in &self.marks {
                    @match mark {
                        Shape::Band(from, to) => (self.band(class, *from, *to)),
                        Shape::Bars(bars) => g class=(class) { (self.bars(bars)) },
                        Shape::Line(points) => path class={ "line " (class) } d=(self.line(points)) {},
                        Shape::Guide(at, _) => {
                            path class={ "guide " (class) } d={ "M" (self.left(*at)) " 0V" (SIZE) } {}
                        }
                    }
                }
            }
        }
    }

    /// The labels of upright lines: one below the other, on the side that has room.
    fn guides(&self) -> Markup {
        let guides = self.marks.iter().filter_map(|(_, _, mark)| match mark {
            Shape::Guide(at, label) => Some((self.x.fraction(*at), label)),
            _ => None,
        });
        html! {
            @for (row, (at, label)) in guides.enumerate() {
                @let (side, at) = if at > 0.6 { ("right", 1.0 - at) } else { ("left", at) };
                span class="guide" style={ (side) ":" (percent(at)) ";top:calc(" (row) "*1.6em + .3em)" } { (label) }
            }
        }
    }

    fn grid(&self) -> String {
        let mut path = String::new();
        for (at, _) in &self.y.ticks {
            push(&mut path, format_args!("M0 {}H{SIZE}", self.top(*at)));
        }
        path
    }

    fn band(&self, class: &str, from: f64, to: f64) -> Markup {
        let (from, to) = (self.x.fraction(from), self.x.fraction(to));
        html! {
            rect class=(class) x=(round(from * SIZE)) y="0" width=(round((to - from) * SIZE))
                height=(SIZE) {}
        }
    }

    fn bars(&self, bars: &[(f64, f64, f64, String)]) -> Markup {
        html! {
            @for (from, to, height, tooltip) in bars {
                @let (from, to) = (self.x.fraction(*from), self.x.fraction(*to));
                @let height = self.y.fraction(*height);
                rect x=(round(from * SIZE)) y=(round((1.0 - height) * SIZE))
                    width=(round((to - from) * SIZE)) height=(round(height * SIZE)) {
                    title { (tooltip) }
                }
            }
        }
    }

    fn line(&self, points: &[(f64, Option<f64>)]) -> String {
        let mut path = String::new();
        let mut is_drawing = false;
        for &(x, y) in points {
            if let Some(y) = y {
                let (x, y) = (self.left(x), self.top(y));
                // A line of no length is a dot, as its ends are round.
                let command = if is_drawing { "L" } else { "M" };
                let dot = if is_drawing { "" } else { "h0" };
                push(&mut path, format_args!("{command}{x} {y}{dot}"));
            }
            is_drawing = y.is_some();
        }
        path
    }

    fn left(&self, x: f64) -> f64 {
        round(self.x.fraction(x) * SIZE)
    }

    fn top(&self, y: f64) -> f64 {
        round((1.0 - self.y.fraction(y)) * SIZE)
    }
}

fn push(path: &mut String, more: std::fmt::Arguments<'_>) {
    path.write_fmt(more)
        .expect("a string takes all that is written");
}

/// A tenth is finer than a pixel, and keeps the page small.
fn round(coordinate: f64) -> f64 {
    (coordinate * 10.0).round() / 10.0
}

fn percent(part: f64) -> String {
    format!("{}%", round(part * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        let plain = |at: f64| format!("{at}");
        assert_eq!(labels(&Axis::whole(0.0, plain)).len(), 2);
        assert_eq!(
            labels(&Axis::whole(5_060.0, plain)),
            ["0", "2000", "4000", "6000"]
        );
        assert_eq!(labels(&Axis::whole(1.0, plain)), ["0", "1"]);
        assert_eq!(labels(&Axis::bytes(9.0, plain)), ["0", "4", "8", "12"]);
        let time = Axis::time(-2.0, 125.0);
        assert_eq!(labels(&time), ["0 s", "30 s", "60 s", "90 s", "120 s"]);
        assert_eq!(labels(&Axis::time(0.0, 86_400.0)).last(), Some(&"20 h"));
        assert_eq!(
            labels(&Axis::time(0.0, 0.3)),
            ["0 s", "0.1 s", "0.2 s", "0.3 s"]
        );
        assert_eq!(
            labels(&Axis::log(310.0, 6_500.0, plain)),
            ["200", "500", "1000", "2000", "5000", "10000"]
        );
    }

    #[test]
    fn every_scale_stays_within_bounds() {
        let plain = |at: f64| format!("{at}");
        for exponent in -3..15 {
            let max = 1.7 * 10_f64.powi(exponent);
            let axes = [
                Axis::whole(max, plain),
                Axis::bytes(max, plain),
                Axis::time(0.0, max),
                Axis::log(0.001, max, plain),
                Axis::log(max, max, plain),
            ];
            for (index, axis) in axes.iter().enumerate() {
                let ticks = axis.ticks.len();
                assert!((1..=10).contains(&ticks), "{index}, {max}: {ticks}");
                assert!(axis.to >= max * 0.999_999, "{index}, {max}: to {}", axis.to);
            }
        }
    }

    #[test]
    fn a_gap_breaks_a_line_and_a_lone_point_is_a_dot() {
        let plot = Plot {
            title: "",
            note: String::new(),
            x: Axis::whole(10.0, |at| format!("{at}")),
            y: Axis::whole(10.0, |at| format!("{at}")),
            marks: Vec::new(),
        };
        let points = [
            (0.0, Some(0.0)),
            (5.0, Some(10.0)),
            (6.0, None),
            (10.0, Some(5.0)),
        ];
        assert_eq!(plot.line(&points), "M0 1000h0L500 0M1000 500h0");
    }
}
