//! Trends: a straight line through samples of a resource, and how sure one may be of it.
//!
//! Consecutive looks at a process are not independent: memory that was high a second ago is high
//! now. Taken as independent, they give an interval far too narrow, and noise passes for a leak.
//! So the number of samples is reduced to what independent ones would tell, by the correlation of
//! each residual with the next: `n (1 - r) / (1 + r)`. That is the adjustment of climate trends
//! by Santer et al., "Statistical significance of trends and trend differences in layer-average
//! atmospheric temperature time series", J. Geophys. Res. 105 (2000), section 4.

use super::report::Slope;
use crate::limits::{SLOPE_EFFECTIVE_POINTS_MIN, SLOPE_POINTS_MIN};

/// The 97.5 % quantile of the normal distribution: 2.5 % are left out at either end.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// Fits a line by least squares to points (time in seconds, value), in order of time and evenly
/// spaced. The slope and its 95 % confidence interval are per minute.
///
/// [`Slope::NotEnoughData`] stands for less than [`SLOPE_POINTS_MIN`] points, no time between
/// them, or points that tell no more than [`SLOPE_EFFECTIVE_POINTS_MIN`] independent ones would.
pub fn fit(points: &[(f64, f64)]) -> Slope {
    let [(_, origin), ..] = points else {
        return Slope::NotEnoughData;
    };
    if points.len() < SLOPE_POINTS_MIN {
        return Slope::NotEnoughData;
    }
    let count = points.len() as f64;
    let time_mean = points.iter().map(|(time, _)| time).sum::<f64>() / count;
    // From the first value on: a constant series stays free of rounding.
    let value_mean = points.iter().map(|(_, value)| value - origin).sum::<f64>() / count;
    let centred: Vec<_> = points
        .iter()
        .map(|(time, value)| (time - time_mean, value - origin - value_mean))
        .collect();
    let time_spread: f64 = centred.iter().map(|(time, _)| time * time).sum();
    if time_spread <= 0.0 {
        return Slope::NotEnoughData;
    }
    let product: f64 = centred.iter().map(|(time, value)| time * value).sum();
    let per_second = product / time_spread;
    let residuals: Vec<_> = centred
        .iter()
        .map(|(time, value)| value - per_second * time)
        .collect();
    let value_spread: f64 = centred.iter().map(|(_, value)| value * value).sum();
    let unexplained: f64 = residuals.iter().map(|residual| residual * residual).sum();

    // What rounding leaves of an exact line is no noise, and its correlation means nothing.
    let margin = if unexplained <= value_spread * f64::EPSILON {
        0.0
    } else {
        let effective = effective_count(&residuals, unexplained);
        if effective < SLOPE_EFFECTIVE_POINTS_MIN {
            return Slope::NotEnoughData;
        }
        let freedom = effective - 2.0;
        t_quantile(freedom) * (unexplained / freedom / time_spread).sqrt()
    };
    Slope::Fitted {
        per_minute: per_second * 60.0,
        low: (per_second - margin) * 60.0,
        high: (per_second + margin) * 60.0,
    }
}

/// How many independent points would tell as much. Residuals of a line look less correlated than
/// they are, by about `(1 + 4 r) / n` (Kendall, "Note on bias in the estimation of
/// autocorrelation", Biometrika 41, 1954), which is added again: a random walk would pass for a
/// leak otherwise. A negative correlation is not counted in one's favour.
fn effective_count(residuals: &[f64], unexplained: f64) -> f64 {
    let neighbours = residuals.iter().zip(&residuals[1..]);
    let shared: f64 = neighbours.map(|(one, next)| one * next).sum();
    let count = residuals.len() as f64;
    let apparent = shared / unexplained;
    let correlation = (apparent + (1.0 + 4.0 * apparent) / count).clamp(0.0, 1.0);
    count * (1.0 - correlation) / (1.0 + correlation)
}

/// The 97.5 % quantile of Student's t distribution, from the normal one by the expansion in
/// Abramowitz and Stegun, 26.7.5. From 3 degrees of freedom on it is right to 2 in 1,000.
fn t_quantile(freedom: f64) -> f64 {
    let z = NORMAL_QUANTILE;
    let [z3, z5, z7, z9] = [3, 5, 7, 9].map(|power| z.powi(power));
    z + (z3 + z) / 4.0 / freedom
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / 96.0 / freedom.powi(2)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / 384.0 / freedom.powi(3)
        + (79.0 * z9 + 776.0 * z7 + 1482.0 * z5 - 1920.0 * z3 - 945.0 * z)
            / 92_160.0
            / freedom.powi(4)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    use super::*;

    fn fitted(points: &[(f64, f64)]) -> (f64, f64, f64) {
        match fit(points) {
            Slope::Fitted {
                per_minute,
                low,
                high,
            } => (per_minute, low, high),
            Slope::NotEnoughData => panic!("not enough data"),
        }
    }

    /// A point a second: noise of which each value keeps a part of the one before, on a line.
    fn series(seed: u64, count: u32, kept: f64, per_minute: f64) -> Vec<(f64, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut noise = 0.0;
        (0..count)
            .map(|second| {
                noise = kept * noise + rng.sample::<f64, _>(StandardNormal);
                let time = f64::from(second);
                (time, 1000.0 + noise + per_minute * time / 60.0)
            })
            .collect()
    }

    /// In how many of 400 series without a trend the interval leaves out zero.
    fn false_alarms(count: u32, kept: f64) -> usize {
        (0..400)
            .filter(|&seed| match fit(&series(seed, count, kept, 0.0)) {
                Slope::Fitted { low, high, .. } => low > 0.0 || high < 0.0,
                Slope::NotEnoughData => false,
            })
            .count()
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, known) in [
            (3.0, 3.182_446),
            (4.0, 2.776_445),
            (5.0, 2.570_582),
            (10.0, 2.228_139),
            (30.0, 2.042_272),
            (120.0, 1.979_930),
            (1e9, 1.959_964),
        ] {
            let quantile = t_quantile(freedom);
            assert!(
                (quantile / known - 1.0).abs() < 2e-3,
                "{freedom}: {quantile}"
            );
        }
    }

    #[test]
    fn an_exact_line_has_no_margin() {
        for slope in [-3.0, 0.1, 7.0, 1e9] {
            let points: Vec<_> = (0..60)
                .map(|second| (f64::from(second) - 7.5, 0.3 + slope * f64::from(second)))
                .collect();
            let (per_minute, low, high) = fitted(&points);
            assert!((per_minute / slope / 60.0 - 1.0).abs() < 1e-9, "{slope}");
            assert_eq!((low, high), (per_minute, per_minute), "{slope}");
        }
    }

    #[test]
    fn a_constant_has_no_slope_and_no_margin() {
        for value in [0.0, 0.1, 12_345_678_912_345.6] {
            let points: Vec<_> = (0..50).map(|second| (f64::from(second), value)).collect();
            assert_eq!(fitted(&points), (0.0, 0.0, 0.0), "{value}");
        }
    }

    /// Worked apart from this code, with the t table's 2.100922 for 18 degrees of freedom.
    #[test]
    fn a_known_sample_has_its_known_interval() {
        let points: Vec<_> = (0..20)
            .map(|second| (f64::from(second), f64::from(second * 7 % 5)))
            .collect();
        let (per_minute, low, high) = fitted(&points);
        let known = [1.804_511, -5.427_413, 9.036_436];
        for (found, known) in [per_minute, low, high].into_iter().zip(known) {
            assert!((found - known).abs() < 1e-3, "{found}, not {known}");
        }
    }

    #[test]
    fn little_data_says_nothing() {
        let line = |count: u32| -> Vec<_> {
            (0..count)
                .map(|second| (f64::from(second), f64::from(second)))
                .collect()
        };
        assert!(matches!(fit(&[]), Slope::NotEnoughData));
        assert!(matches!(fit(&line(19)), Slope::NotEnoughData));
        assert!(matches!(fit(&line(20)), Slope::Fitted { .. }));
        assert!(matches!(fit(&[(1.0, 5.0); 40]), Slope::NotEnoughData));
        // One long swing tells as much as a few points.
        let swing: Vec<_> = (0..40)
            .map(|second| (f64::from(second), (f64::from(second) / 10.0).sin()))
            .collect();
        assert!(matches!(fit(&swing), Slope::NotEnoughData));
    }

    #[test]
    fn noise_is_no_leak() {
        for (count, kept) in [(60, 0.0), (600, 0.0), (60, 0.5), (600, 0.5), (600, 0.9)] {
            let alarms = false_alarms(count, kept);
            assert!(alarms <= 30, "{count} points, {kept} kept: {alarms} of 400");
        }
    }

    /// Its neighbours taken as independent, nearly every one of these would have a slope.
    #[test]
    fn a_random_walk_is_seldom_a_leak() {
        for count in [60, 600] {
            let alarms = false_alarms(count, 1.0);
            assert!(alarms <= 80, "{count} points: {alarms} of 400");
        }
    }

    #[test]
    fn a_leak_in_noise_is_found() {
        for kept in [0.0, 0.5, 0.9] {
            let (_, low, high) = fitted(&series(1, 1200, kept, 1.0));
            assert!(
                low > 0.0 && low < 1.0 && high > 1.0,
                "{kept}: {low} to {high}"
            );
        }
    }

    /// A descriptor lost once a minute is a staircase, whose steps are far from independent.
    #[test]
    fn a_staircase_is_a_leak_and_a_single_step_is_none() {
        let stairs = |every: u32| -> Vec<_> {
            (0..1200)
                .map(|second| (f64::from(second), f64::from(second / every)))
                .collect()
        };
        let (per_minute, low, _) = fitted(&stairs(60));
        assert!(
            (per_minute - 1.0).abs() < 0.01 && low > 0.9,
            "{per_minute}, {low}"
        );
        match fit(&stairs(600)) {
            Slope::NotEnoughData => {}
            Slope::Fitted { low, high, .. } => assert!(low <= 0.0, "{low} to {high}"),
        }
    }
}
