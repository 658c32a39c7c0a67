//! How sure a figure is: 99 % intervals, from how the run's stretches differ.

use statrs::distribution::{Beta, ContinuousCDF as _};

use super::figures::Interval;
use super::slope::{effective_count, t_quantile};
use crate::limits::STRETCHES_MIN;

/// What is left out at either end of an interval.
const TAIL: f64 = 0.005;

/// The normal distribution's quantile that leaves it out.
const NORMAL_QUANTILE: f64 = 2.575_829_303_548_901;

/// A part of a whole, in each stretch of the run.
pub type Parts = Vec<(f64, f64)>;

/// How much less the requests tell of a share than as many independent ones would: Kish's design effect, with
/// the stretches as clusters. Requests of one moment are slow, or fail, together. With few stretches it is
/// itself a guess, and made larger.
pub fn design_effect(parts: &Parts, share: f64) -> f64 {
    let count = parts.len();
    if count < STRETCHES_MIN {
        return 1.0;
    }
    let whole: f64 = parts.iter().map(|(_, whole)| whole).sum();
    let deviations = parts.iter().map(|(part, whole)| part - share * whole);
    let spread: f64 = deviations.map(|deviation| deviation * deviation).sum();
    let freedom = count as f64 - 1.0;
    let by_stretches = spread * count as f64 / freedom;
    let effect = by_stretches / (whole * share * (1.0 - share)).max(f64::MIN_POSITIVE);
    let caution = t_quantile(freedom) / NORMAL_QUANTILE;
    (effect * caution * caution).max(1.0)
}

/// Where a share is of which `part` was seen of `whole`: Clopper and Pearson's interval for as many as these
/// are worth.
pub fn share(part: f64, whole: f64, effect: f64) -> Interval {
    let (hits, all) = (part / effect, whole / effect);
    let quantile =
        |a: f64, b: f64, at: f64| Beta::new(a, b).map_or(at.round(), |beta| beta.inverse_cdf(at));
    Interval {
        value: part / whole,
        low: if hits > 0.0 {
            quantile(hits, all - hits + 1.0, TAIL)
        } else {
            0.0
        },
        high: if hits < all {
            quantile(hits + 1.0, all - hits, 1.0 - TAIL)
        } else {
            1.0
        },
    }
}

/// The shares between which a quantile of `count` times is (Woodruff, "Confidence intervals for medians and
/// other position measures", J. Am. Stat. Assoc. 47, 1952). No upper one: so few may all be below it.
pub fn quantile(at: f64, count: f64, effect: f64) -> (f64, Option<f64>) {
    let between = share(at * count, count, effect);
    let may_all_be_below = at.powf(count / effect) > TAIL;
    (between.low, (!may_all_be_below).then_some(between.high))
}

/// Where the mean of values is that follow each other. Too few are taken for a fact.
pub fn mean(values: &[f64]) -> Interval {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let residuals: Vec<_> = values.iter().map(|value| value - mean).collect();
    let spread: f64 = residuals.iter().map(|residual| residual * residual).sum();
    if values.len() < STRETCHES_MIN || spread <= f64::EPSILON * mean * mean * count {
        return Interval::exact(mean);
    }
    let effective = effective_count(&residuals, 1.0);
    if effective < 2.0 {
        return Interval {
            value: mean,
            low: 0.0,
            high: f64::INFINITY,
        };
    }
    let margin = t_quantile(effective - 1.0) * (spread / count / (effective - 1.0)).sqrt();
    Interval {
        value: mean,
        low: mean - margin,
        high: mean + margin,
    }
}
