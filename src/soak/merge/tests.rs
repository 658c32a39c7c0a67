use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::soak::fixtures;
use crate::soak::part::Part;
use crate::soak::report::{Latency, Model, Percentiles, Status, Verification};
use crate::soak::tally::Tally;
use crate::soak::threshold::Conditions;
use crate::soak::verdict::judge;

/// A part's report, as it is read again.
fn part(number: u64, of: u64, tally: &Tally) -> Report {
    let mut report = Report {
        part: Some(Part { number, of }),
        started_at: "2026-02-03T04:05:06Z".into(),
        outcomes: tally.outcomes(),
        histograms: tally.histograms(),
        stretches: tally.stretches().to_vec(),
        seconds: tally.seconds.clone(),
        verification: Verification::default(),
        server: None,
        ..fixtures::report()
    };
    report.load.model = Model::Closed;
    report.load.never_started = 0;
    report.load.started_late = 0;
    report.derive((0, 0));
    serde_json::from_str(&serde_json::to_string(&report).expect("JSON")).expect("a report")
}

/// A quarter of a second after the other, some times in each.
fn record(tally: &mut Tally, began: Instant, quarters: &[Vec<(u64, u64)>]) {
    for (quarter, times) in (1..).zip(quarters) {
        for &(us, length) in times {
            let time = Duration::from_micros(us);
            tally.start();
            tally.connect.record(time / 3);
            tally.first_byte.record(time / 2);
            tally.complete(time, (length % 2 == 0).then_some(time * 2), length);
            tally.end(Class::Complete, String::new);
        }
        tally.roll(began + Duration::from_millis(250) * quarter, 1);
    }
    tally.close(began + Duration::from_millis(250) * quarters.len() as u32);
}

fn figures(latency: &Latency) -> Vec<Percentiles> {
    [
        latency.connect,
        latency.first_byte,
        latency.total,
        latency.corrected,
    ]
    .map(|times| Percentiles {
        intervals: None,
        ..times
    })
    .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What the parts make together is, bit for bit, what one would have recorded.
    #[test]
    fn merged_percentiles_are_those_of_one_recorder(
        quarters in prop::collection::vec(
            prop::collection::vec((1_u64..90_000_000, 0_u64..1 << 30), 0..20), 1..9),
        of in 1_u64..5,
    ) {
        let began = Instant::now();
        let mut one = Tally::new(began, 1);
        record(&mut one, began, &quarters);
        let reports = (1..=of).map(|number| {
            let own = quarters.iter().map(|times| {
                let own = times.iter().zip(1..).filter(|(_, at)| at % of + 1 == number);
                own.map(|(time, _)| *time).collect()
            });
            let mut tally = Tally::new(began, 1);
            record(&mut tally, began, &own.collect::<Vec<_>>());
            part(number, of, &tally)
        });
        let whole = merge(reports.collect()).expect("parts of one run");
        let latency = one.histograms().latency(one.stretches(), (0, 0));
        prop_assert_eq!(figures(&whole.latency), figures(&latency));
        prop_assert_eq!(&whole.latency.histogram, &latency.histogram);
        prop_assert_eq!(whole.outcomes.started, one.started);
        prop_assert_eq!(whole.outcomes.ended(), one.started);
        let started = |seconds: &[Second]| seconds.iter().map(|second| second.started).collect::<Vec<_>>();
        let mut expected = started(&one.seconds);
        expected.resize(whole.seconds.len(), 0);
        prop_assert_eq!(started(&whole.seconds), expected);
        let sum: u64 = whole.stretches.iter().map(|stretch| stretch.times.len()).sum();
        prop_assert_eq!(sum, one.started);
    }
}

fn empty_part(number: u64, of: u64) -> Report {
    let began = Instant::now();
    let mut tally = Tally::new(began, 1);
    record(
        &mut tally,
        began,
        &[vec![(1_000, 1); 30], vec![(1_000, 1); 30]],
    );
    part(number, of, &tally)
}

#[test]
fn a_missing_part_is_load_that_was_not_offered() {
    let conditions: Conditions = "max>10s".parse().expect("a condition");
    let mut whole = merge(vec![empty_part(3, 3), empty_part(1, 3)]).expect("parts of one run");
    judge(&mut whole, &conditions);
    assert_eq!(whole.verdict.status, Status::NotOffered);
    assert!(
        whole.verdict.reasons[0].ends_with("missing: 2"),
        "{:?}",
        whole.verdict.reasons
    );
    let all = vec![empty_part(3, 3), empty_part(1, 3), empty_part(2, 3)];
    let mut whole = merge(all).expect("parts of one run");
    judge(&mut whole, &conditions);
    assert_eq!(
        whole.verdict.status,
        Status::Pass,
        "{:?}",
        whole.verdict.reasons
    );
    assert_eq!(whole.outcomes.started, 180);
}

#[test]
fn what_is_no_part_of_the_run_is_refused() {
    let mut other = empty_part(2, 2);
    other.load.model = Model::Open;
    for parts in [
        vec![],
        vec![fixtures::report()],
        vec![empty_part(1, 2), empty_part(2, 3)],
        vec![empty_part(1, 2), empty_part(1, 2)],
        vec![empty_part(1, 2), other],
    ] {
        assert!(merge(parts).is_err());
    }
}

#[test]
fn seconds_stand_where_the_clock_has_them() {
    let mut late = empty_part(2, 2);
    late.started_at = "2026-02-03T04:05:08Z".into();
    let whole = merge(vec![empty_part(1, 2), late]).expect("parts of one run");
    let started: Vec<_> = whole
        .seconds
        .iter()
        .map(|second| (second.at, second.started))
        .collect();
    assert_eq!(started, [(0, 60), (1, 0), (2, 60)]);
}
