//! A plot as a file of its own, for pages that can't hold markup. It brings its colours, for light
//! pages and dark ones, and its ground, as it can't know what it is put on.

use carafe::soak::plot::{Plot, Shape};
use maud::{Markup, PreEscaped, html};

/// The picture's size, in its own units: pixels, where nobody scales it.
const SIZE: (f64, f64) = (720.0, 420.0);

/// Where the area of the marks begins and ends.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 684.0;
const TOP: f64 = 88.0;
const BOTTOM: f64 = 384.0;

/// What a character of the legend takes at most, and what the line before it takes.
const LEGEND_CHAR: f64 = 7.4;
const LEGEND_LINE: f64 = 40.0;

/// The marks' classes have these colours: of the same lightness each, and told apart by those who
/// see less of red or green.
const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #3d444d; }
.title { font-size: 16px; font-weight: 600; fill: #1f2328; }
.ground { fill: #ffffff; }
.grid { stroke: #d1d9e0; fill: none; vector-effect: non-scaling-stroke; }
.line { stroke-width: 2.5; fill: none; stroke-linecap: round; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.guide { stroke-dasharray: 4 4; }
.first { stroke: #0969da; } .second { stroke: #bc4c00; } .third { stroke: #1a7f37; }
.fourth { stroke: #8250df; }
@media (prefers-color-scheme: dark) {
  text { fill: #b7bdc8; } .title { fill: #f0f6fc; } .ground { fill: #0d1117; }
  .grid { stroke: #3d444d; }
  .first { stroke: #58a6ff; } .second { stroke: #f0883e; } .third { stroke: #3fb950; }
  .fourth { stroke: #bc8cff; }
}
";

/// The plot as an SVG document. Its marks' classes are `first` to `fourth`.
#[must_use]
pub fn picture(plot: &Plot) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (SIZE.0) " " (SIZE.1) }
            width=(SIZE.0) height=(SIZE.1) {
            style { (PreEscaped(STYLE)) }
            rect class="ground" width="100%" height="100%" rx="6" {}
            text class="title" x="16" y="28" { (plot.title) }
            text x="16" y="48" { (plot.note) }
            (legend(plot))
            @for (at, label) in plot.y.ticks() {
                @let y = BOTTOM - at * (BOTTOM - TOP);
                text x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (label) }
            }
            svg x=(LEFT) y=(TOP) width=(RIGHT - LEFT) height=(BOTTOM - TOP) { (plot.svg()) }
            @for (at, label) in plot.x.ticks() {
                @let x = LEFT + at * (RIGHT - LEFT);
                text x=(x) y=(BOTTOM + 22.0) text-anchor="middle" { (label) }
            }
        }
    }
}

fn legend(plot: &Plot) -> Markup {
    let mut x = 16.0;
    let mut entries = Vec::new();
    for (class, label, mark) in &plot.marks {
        if label.is_empty() || !matches!(mark, Shape::Line(_)) {
            continue;
        }
        entries.push((x, class, label));
        x += LEGEND_LINE + label.chars().count() as f64 * LEGEND_CHAR;
    }
    html! {
        @for (x, class, label) in entries {
            path class={ "line " (class) } d={ "M" (x) " 66h18" } {}
            text x=(x + 24.0) y="70" { (label) }
        }
    }
}
