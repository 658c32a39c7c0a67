//! Trends: whether a resource still grows at the end of a run, and how sure one may be of it.
//!
//! Memory that is collected is a sawtooth, and a leak lifts its floor: so the looks are cut into stretches of
//! at least a cycle, and the least of each is kept. A cache fills and levels off: so a parabola is fitted to
//! the floors, and its slope at the end counts. A line would take a full cache for a leak.
//!
//! Consecutive floors are not independent: memory that was high a minute ago is high now. Taken as
//! independent, they give an interval far too narrow, and noise passes for a leak. So their number is reduced
//! to what independent ones would tell, by the correlation of each residual with the next:
//! `n (1 - r) / (1 + r)`. That is the adjustment of climate trends by Santer et al., "Statistical significance
//! of trends and trend differences in layer-average atmospheric temperature time series", J. Geophys. Res.
//! 105 (2000), section 4.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::figures::Slope;
use crate::limits::{
    TREND_EFFECTIVE_FLOORS_MIN, TREND_FALL_SHARE, TREND_FLOORS_MAX, TREND_FLOORS_MIN,
    TREND_FOUND_MARGINS, TREND_LOOKS_MIN, TREND_PARTS, TREND_STEPS_UNSURE,
};

/// Points (time in seconds, value), in order of time and about evenly spaced.
type Point = (f64, f64);

/// The parameters of a parabola.
const PARAMETERS: f64 = 3.0;

/// The slope at the end of looks under load, with its 99 % interval, per minute. Those before `from` are the
/// warm-up, and tell only how large the steps are; no step is taken to be smaller than `step`.
///
/// Where no curve fits, as when a cache was full after half of the run, the beginning is left out.
/// [`Slope::NotEnoughData`] stands for fewer than [`TREND_LOOKS_MIN`] looks, fewer than
/// [`TREND_FLOORS_MIN`] cycles, or floors that tell no more than [`TREND_EFFECTIVE_FLOORS_MIN`] independent
/// ones would.
pub fn of_looks(looks: &[Point], from: f64, step: f64) -> Slope {
    from_some_part_on(looks, from, |warm| {
        let mut count = TREND_FLOORS_MAX.min(warm.len() / 3);
        if let cycles @ 1.. = falls(&Parabola::fit(warm)?.residuals, step) {
            // Each stretch has more than a cycle, and so a floor.
            count = count.min(cycles * 4 / 5);
        }
        if count < TREND_FLOORS_MIN {
            return None;
        }
        let width = warm.len() / count;
        // From the end, so that what is left over is the warm-up's.
        let all: Vec<_> = looks.rchunks(width).map(floor).rev().collect();
        judge(
            &all[all.len() - count..],
            step.max(typical_step(&all)),
            step,
        )
    })
}

/// The same of quiet points, each of which is a floor.
pub fn of_quiet_points(points: &[Point], from: f64, step: f64) -> Slope {
    let steps = step.max(typical_step(points));
    from_some_part_on(points, from, |warm| judge(warm, steps, step))
}

/// Tries all from a time on, then the later half of that, then its half.
fn from_some_part_on(
    points: &[Point],
    from: f64,
    judge: impl Fn(&[Point]) -> Option<Slope>,
) -> Slope {
    let mut warm = &points[points.partition_point(|(time, _)| *time < from)..];
    for _ in 0..TREND_PARTS {
        if warm.len() < TREND_LOOKS_MIN {
            break;
        }
        if let Some(slope) = judge(warm) {
            return slope;
        }
        warm = &warm[warm.len() / 2..];
    }
    Slope::NotEnoughData
}

fn floor(stretch: &[Point]) -> Point {
    let least = stretch.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    *least.expect("no stretch is empty")
}

/// How often values fall from a peak by a good part of their range: the ends of cycles. What moves within a
/// step or two has none.
fn falls(values: &[f64], step: f64) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let range = at(0.95) - at(0.05);
    if range <= 2.0 * step {
        return 0;
    }
    let fall = TREND_FALL_SHARE * range;
    let (mut count, mut is_falling, mut turn) = (0, false, values[0]);
    for &value in values {
        if is_falling {
            turn = turn.min(value);
            if value - turn > fall {
                (turn, is_falling) = (value, false);
            }
        } else {
            turn = turn.max(value);
            if turn - value > fall {
                (turn, is_falling, count) = (value, true, count + 1);
            }
        }
    }
    count
}

/// The step that half of all rise is made in: an allocator that asks for much at once hides a leak until the
/// next time.
fn typical_step(floors: &[Point]) -> f64 {
    let steps = floors.windows(2).map(|pair| pair[1].1 - pair[0].1);
    let mut steps: Vec<_> = steps.filter(|&step| step > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    let mut left = steps.iter().sum::<f64>() / 2.0;
    let half = steps.into_iter().find(|step| {
        left -= step;
        left <= 0.0
    });
    half.unwrap_or(0.0)
}

/// A parabola fitted by least squares, as a sum of three orthogonal polynomials: 1, `time - mean`, and the
/// rest of its square.
struct Parabola {
    /// Its slope at the last point, per second.
    end_slope: f64,
    /// The variance of that, in those of a value.
    leverage: f64,
    residuals: Vec<f64>,
}

impl Parabola {
    /// `None`: there is no time between the points.
    fn fit(points: &[Point]) -> Option<Self> {
        let (_, origin) = *points.first()?;
        let count = points.len() as f64;
        let mean = |of: &dyn Fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
        let time_mean = mean(&|point| point.0);
        // From the first value on: a constant series stays free of rounding.
        let value_mean = mean(&|point| point.1 - origin);
        let centred = points
            .iter()
            .map(|(time, value)| (time - time_mean, value - origin - value_mean));
        let centred: Vec<_> = centred.collect();
        let sum = |of: &dyn Fn(&Point) -> f64| centred.iter().map(of).sum::<f64>();
        let time_spread = sum(&|(time, _)| time * time);
        if time_spread <= 0.0 {
            return None;
        }
        let tilt = sum(&|(time, _)| time.powi(3)) / time_spread;
        let square = |time: f64| time * time - tilt * time - time_spread / count;
        let square_spread = sum(&|(time, _)| square(*time).powi(2));
        let line = sum(&|(time, value)| time * value) / time_spread;
        let bend = sum(&|(time, value)| square(*time) * value) / square_spread;
        // What the bend adds to the slope at the end.
        let end = 2.0 * centred.last()?.0 - tilt;
        let residual = |(time, value): &Point| value - line * time - bend * square(*time);
        Some(Self {
            end_slope: line + bend * end,
            leverage: 1.0 / time_spread + end * end / square_spread,
            residuals: centred.iter().map(residual).collect(),
        })
    }
}

/// The slope at the end of floors. `None`: they don't tell.
fn judge(floors: &[Point], typical_step: f64, least_step: f64) -> Option<Slope> {
    let time = floors.last()?.0 - floors.first()?.0;
    let parabola = Parabola::fit(floors)?;
    let residuals = &parabola.residuals;
    let unexplained: f64 = residuals.iter().map(|residual| residual * residual).sum();
    // What is less than a step is rounding, and its correlation means nothing.
    let by_noise = if unexplained <= least_step * least_step * residuals.len() as f64 / 4.0 {
        0.0
    } else {
        let effective = effective_count(residuals, PARAMETERS);
        if effective < TREND_EFFECTIVE_FLOORS_MIN {
            return None;
        }
        let freedom = effective - PARAMETERS;
        t_quantile(freedom) * (unexplained / freedom * parabola.leverage).sqrt()
    };
    let margin = by_noise.max(TREND_STEPS_UNSURE * typical_step / time);
    Some(Slope::Fitted {
        per_minute: parabola.end_slope * 60.0,
        low: (parabola.end_slope - margin) * 60.0,
        high: (parabola.end_slope + margin) * 60.0,
        finds: margin * TREND_FOUND_MARGINS * 60.0,
    })
}

/// How many independent values would tell as much as these residuals of a curve. They look less correlated
/// than they are, by about `(parameters + 4 r) / n` (Kendall, "Note on bias in the estimation of
/// autocorrelation", Biometrika 41, 1954, for one parameter), which is added again: a random walk would pass
/// for a leak otherwise. A negative correlation is not counted in one's favour.
pub fn effective_count(residuals: &[f64], parameters: f64) -> f64 {
    let neighbours = residuals.iter().zip(&residuals[1..]);
    let shared: f64 = neighbours.map(|(one, next)| one * next).sum();
    let unexplained: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let count = residuals.len() as f64;
    let apparent = shared / unexplained;
    let correlation = (apparent + (parameters + 4.0 * apparent) / count).clamp(0.0, 1.0);
    count * (1.0 - correlation) / (1.0 + correlation)
}

/// The 99.5 % quantile of Student's t distribution: half a percent is left out at either end.
pub fn t_quantile(freedom: f64) -> f64 {
    let student = StudentsT::new(0.0, 1.0, freedom).expect("its freedom is positive");
    student.inverse_cdf(0.995)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(count: u32, at: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..count)
            .map(|second| (f64::from(second), at(f64::from(second))))
            .collect()
    }

    fn fitted(slope: Slope) -> (f64, f64, f64) {
        match slope {
            Slope::Fitted {
                per_minute,
                low,
                high,
                ..
            } => (per_minute, low, high),
            Slope::NotEnoughData => panic!("not enough data"),
        }
    }

    #[test]
    fn an_even_rise_is_found_as_far_as_steps_let_it() {
        for slope in [-3.0, 7.0, 1e6] {
            let rise = looks(600, |second| 1e9 + slope * second);
            let (per_minute, low, high) = fitted(of_looks(&rise, 60.0, 1.0));
            assert!((per_minute / slope / 60.0 - 1.0).abs() < 1e-6, "{slope}");
            assert!(low < per_minute && per_minute < high, "never 0 to 0");
            assert!((low > 0.0) == (slope > 0.0) && (high < 0.0) == (slope < 0.0));
        }
        let (per_minute, low, high) = fitted(of_looks(&looks(600, |_| 5.0), 60.0, 1.0));
        assert_eq!(per_minute, 0.0);
        // Four steps in nine minutes, less what the floors leave out.
        assert!(
            (0.4..0.5).contains(&high) && low == -high,
            "{low} to {high}"
        );
    }

    #[test]
    fn a_parabola_is_fitted_exactly_and_its_end_counts() {
        let curve = looks(100, |second| 3.0 + 2.0 * second - 0.01 * second * second);
        let parabola = Parabola::fit(&curve).expect("there is time");
        assert!((parabola.end_slope - (2.0 - 0.02 * 99.0)).abs() < 1e-9);
        assert!(
            parabola
                .residuals
                .iter()
                .all(|residual| residual.abs() < 1e-9)
        );
        // Four times as unsure as a line's slope, for evenly spaced points.
        let line = 12.0 / 100.0_f64.powi(3);
        assert!(
            (parabola.leverage / line / 16.0 - 1.0).abs() < 0.1,
            "{}",
            parabola.leverage
        );
    }

    #[test]
    fn little_data_says_nothing() {
        for few in [
            looks(0, |second| second),
            looks(1, |second| second),
            looks(19, |second| second),
            vec![(1.0, 5.0); 400],
            // Eight cycles.
            looks(400, |second| (second % 50.0) * 1e6),
        ] {
            assert!(matches!(of_looks(&few, 0.0, 1.0), Slope::NotEnoughData));
        }
        let enough = looks(60, |second| second * 1e6);
        assert!(matches!(of_looks(&enough, 0.0, 1.0), Slope::Fitted { .. }));
        // The warm-up is left out.
        assert!(matches!(of_looks(&enough, 45.0, 1.0), Slope::NotEnoughData));
    }

    #[test]
    fn cycles_are_counted_by_their_falls() {
        let saw: Vec<_> = looks(400, |second| second % 20.0)
            .into_iter()
            .map(|at| at.1)
            .collect();
        assert_eq!(falls(&saw, 1.0), 19);
        assert_eq!(falls(&saw, 15.0), 0, "within a step or two");
    }

    #[test]
    fn a_step_is_what_half_of_the_rise_is_made_in() {
        let stairs = looks(100, |second| {
            (second / 10.0).floor() * 64.0 + (second % 2.0)
        });
        assert_eq!(typical_step(&stairs), 64.0 - 1.0);
        assert_eq!(typical_step(&looks(10, |second| -second)), 0.0);
    }
}
