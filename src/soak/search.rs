//! `--find`: the highest rate at which conditions hold.
//!
//! Steps of load climb by factors of two until one doesn't hold, and halve what lies between. Then they walk: a
//! notch up after a step that held, a notch down after one that didn't (Dixon and Mood, "A method for obtaining
//! and analyzing sensitivity data", J. Am. Stat. Assoc. 43, 1948). Whenever the walk turns it has crossed the
//! highest rate that holds, from below or from above. Of eight crossings the least and the greatest have the
//! median between them in 99 cases of 100, by the sign test; where they differ, there are sixteen. At last an overload is offered, and then the rate at
//! the interval's lower end, for longer: it must hold with the whole of its own interval.

use super::figures::Interval;
use super::report::{Phase, Report, Search, Step, ThresholdOutcome};
use super::threshold::{Conditions, Met};
use super::verdict;
use crate::failure::Failure;
use crate::limits::{
    SEARCH_CROSSINGS, SEARCH_HOLD_STEPS, SEARCH_HOLDS, SEARCH_HYSTERESIS, SEARCH_NOTCH,
    SEARCH_OVERLOAD, SEARCH_STRAIGHT, SEARCH_TRIES, SEARCH_WALK_MAX,
};

/// Offers load at a rate, for so many steps' time.
type Offer<'a> = dyn FnMut(f64, u32) -> Result<Report, Failure> + 'a;

/// Why a search goes no further.
enum End {
    /// A run could not be made.
    Failed(Failure),
    /// A signal has ended it, or the load could not be offered: the search says which.
    Over,
}

/// Two steps in a row of which one held.
struct Crossing {
    low: f64,
    high: f64,
    from_above: bool,
}

struct Seeker<'a> {
    demand: &'a Conditions,
    offer: &'a mut Offer<'a>,
    search: Search,
    last: Report,
}

/// Searches between two rates. The report is of the last load that was offered.
/// An error is a run's that could not be made.
pub(super) fn find<'a>(
    demand: &'a Conditions,
    between: [f64; 2],
    offer: &'a mut Offer<'a>,
) -> Result<Report, Failure> {
    let mut seeker = Seeker {
        demand,
        offer,
        search: Search {
            condition: demand.to_string(),
            between,
            ..Search::default()
        },
        last: Report::default(),
    };
    if let Err(End::Failed(failure)) = seeker.seek() {
        return Err(failure);
    }
    let mut report = seeker.last;
    report.search = Some(seeker.search);
    Ok(report)
}

impl Seeker<'_> {
    fn seek(&mut self) -> Result<(), End> {
        let [from, to] = self.search.between;
        let (good, bad) = self.climb()?;
        let Some(good) = good else {
            let is_sure = self.outcome() == ThresholdOutcome::Failed;
            self.search.capacity = is_sure.then_some(Interval {
                value: from,
                low: 0.0,
                high: from,
            });
            return Ok(());
        };
        let Some(bad) = bad else {
            self.hold(to)?;
            self.search.capacity = self.search.held.map(|held| Interval {
                value: to,
                low: held,
                high: f64::INFINITY,
            });
            return Ok(());
        };
        let start = self.narrow(good, bad)?;
        let crossings = self.walk(start)?;
        self.conclude(&crossings);
        let Some(capacity) = self.search.capacity else {
            return Ok(());
        };
        // What comes of it is a part of the search, whether or not it holds.
        self.step(Phase::Overload, (capacity.high * SEARCH_OVERLOAD).min(to))?;
        self.hold(capacity.low)
    }

    /// The highest rate that held, and the one that didn't: each twice as high as the one before. The lowest one
    /// is looked at again, and for longer, before it counts as one that doesn't.
    fn climb(&mut self) -> Result<(Option<f64>, Option<f64>), End> {
        let [mut rate, to] = self.search.between;
        let mut good = None;
        while self.step(Phase::Climb, rate)? || (good.is_none() && self.step(Phase::Hold, rate)?) {
            good = Some(rate);
            if rate >= to {
                return Ok((good, None));
            }
            rate = (rate * 2.0).min(to);
        }
        Ok((good, Some(rate)))
    }

    /// Halves what lies between them, until it is a few notches wide. The one that doesn't hold.
    fn narrow(&mut self, mut good: f64, mut bad: f64) -> Result<f64, End> {
        while bad / good > SEARCH_NOTCH * SEARCH_NOTCH {
            let middle = (good * bad).sqrt();
            if self.step(Phase::Narrow, middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(bad)
    }

    /// Goes up and down. What goes straight on goes faster: a server that has broken down may come back far
    /// below.
    fn walk(&mut self, mut rate: f64) -> Result<Vec<Crossing>, End> {
        let [from, to] = self.search.between;
        let mut crossings = Vec::new();
        let mut before: Option<(f64, bool)> = None;
        let mut straight = 0;
        for _ in 0..SEARCH_WALK_MAX {
            let sure = crossings.len() / if is_sharp(&crossings) { 1 } else { 2 };
            if sure >= SEARCH_CROSSINGS {
                break;
            }
            let is_met = self.step(Phase::Walk, rate)?;
            straight += 1;
            if let Some((last, was_met)) = before
                && was_met != is_met
            {
                straight = 1;
                crossings.push(Crossing {
                    low: rate.min(last),
                    high: rate.max(last),
                    from_above: is_met,
                });
            }
            before = Some((rate, is_met));
            let notch = SEARCH_NOTCH.powi(1 << (straight / SEARCH_STRAIGHT).min(5));
            let next = if is_met { rate * notch } else { rate / notch };
            rate = next.clamp(from, to);
        }
        Ok(crossings)
    }

    /// What the crossings say. Where those from above are lower, these count: a rate that is held only as long as
    /// nothing has gone wrong is not held.
    fn conclude(&mut self, crossings: &[Crossing]) {
        let middle = |of: &[&Crossing]| {
            let logs = of.iter().map(|one| (one.low * one.high).ln() / 2.0);
            (logs.sum::<f64>() / of.len() as f64).exp()
        };
        let (above, below): (Vec<_>, Vec<_>) = crossings.iter().partition(|one| one.from_above);
        let is_enough = crossings.len() >= SEARCH_CROSSINGS;
        let mut counted: Vec<_> = crossings.iter().collect();
        let mut has_hysteresis = false;
        if !above.is_empty() && !below.is_empty() {
            let crossed = [middle(&below), middle(&above)];
            self.search.crossed = Some(crossed);
            has_hysteresis = crossed[0] > crossed[1] * SEARCH_HYSTERESIS;
        }
        if has_hysteresis {
            counted = above;
        }
        if !(is_enough || has_hysteresis) {
            return;
        }
        let [low, high] = ends(counted.iter().copied());
        self.search.capacity = Some(Interval {
            value: middle(&counted),
            low,
            high,
        });
    }

    /// Offers a rate for longer, and lower ones until one holds for sure.
    fn hold(&mut self, mut rate: f64) -> Result<(), End> {
        let [from, _] = self.search.between;
        for fall in 1..=SEARCH_HOLDS {
            self.step(Phase::Hold, rate)?;
            if self.outcome() == ThresholdOutcome::Held {
                self.search.held = Some(rate);
                break;
            }
            if rate <= from {
                break;
            }
            rate = (rate / SEARCH_NOTCH.powi(fall)).max(from);
        }
        Ok(())
    }

    fn outcome(&self) -> ThresholdOutcome {
        let last = self.search.steps.last();
        last.map_or(ThresholdOutcome::NotEnoughData, |step| step.outcome)
    }

    /// Offers one rate, again if it was not offered. Whether the conditions were met.
    fn step(&mut self, phase: Phase, rate: f64) -> Result<bool, End> {
        let lengths = match phase {
            Phase::Hold => SEARCH_HOLD_STEPS,
            _ => 1,
        };
        let mut tries = 1;
        loop {
            let report = (self.offer)(rate, lengths).map_err(End::Failed)?;
            let met = self.demand.met(&report);
            let lack = lack(&report, &met);
            self.search.steps.push(Step {
                phase,
                rate,
                seconds: report.load.seconds,
                figure: met.figure,
                measured: met.measured,
                outcome: met.outcome,
                is_offered: lack.is_none(),
            });
            self.last = report;
            if self.last.verdict.cut_short {
                return Err(End::Over);
            }
            match lack {
                Some(why) if phase != Phase::Overload && tries == SEARCH_TRIES => {
                    self.search.not_offered = Some(why);
                    return Err(End::Over);
                }
                Some(_) if phase != Phase::Overload => tries += 1,
                _ => return Ok(met.is_met),
            }
        }
    }
}

/// Whether they are all at one place, a notch more or less.
fn is_sharp(crossings: &[Crossing]) -> bool {
    let [low, high] = ends(crossings);
    high / low < SEARCH_NOTCH.powi(4)
}

/// The lowest and the highest end.
fn ends<'a>(crossings: impl IntoIterator<Item = &'a Crossing>) -> [f64; 2] {
    let ends = crossings.into_iter().map(|one| [one.low, one.high]);
    ends.fold([f64::INFINITY, 0.0], |[low, high], one| {
        [low.min(one[0]), high.max(one[1])]
    })
}

/// Why it was the generator that could do no more; none if the load was there, or if the server was too slow
/// for what there was of it.
fn lack(report: &Report, met: &Met) -> Option<String> {
    let lack = verdict::not_offered(report).filter(|_| met.is_met || met.is_generators);
    lack.or_else(|| verdict::busy(report).filter(|_| !met.is_met))
}

#[cfg(test)]
mod tests;
