//! `carafe soak --find`: what is asked of a real server, and what its report says. That it finds what is true is a
//! unit test's, with servers whose capacity is known.

use std::fs;

use crate::common::{Carafe, pattern, root_with};
use crate::soaking::{soak_words, word};

/// No rate that is asked is too much for this server and this condition, which is a fact and has no interval.
#[test]
fn a_search_ends_with_a_rate_and_an_interval() {
    let root = root_with(&[("body", &pattern(7, 1_000))]);
    let carafe = Carafe::serve(root.path(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let [page, junit, summary] = ["page", "junit", "summary"].map(|name| folder.path().join(name));
    let soaked = soak_words(&format!(
        "http://{}/body --rate 20..80 --find max<9s -z 400ms --fail-if errors>0 --report {} --junit {} --summary {}",
        carafe.addr(),
        word(&page),
        word(&junit),
        word(&summary)
    ));
    if !soaked.at("search.not_offered").is_null() {
        // The machine was busy three times in a row.
        soaked.assert_not_offered();
        return;
    }
    let steps = soaked.at("search.steps").as_array().unwrap();
    let phases: Vec<_> = steps
        .iter()
        .filter(|step| step["is_offered"] == true)
        .map(|step| {
            (
                step["phase"].as_str().unwrap(),
                step["rate"].as_f64().unwrap(),
            )
        })
        .collect();
    let climb = [("climb", 20.0), ("climb", 40.0), ("climb", 80.0)];
    assert_eq!(phases[..3], climb, "{soaked:#?}");
    assert!(phases[3..].iter().all(|step| *step == ("hold", 80.0)));
    assert_eq!(soaked.at("search.condition"), "max<9s,errors<=0");
    assert_eq!(soaked.at("search.capacity.value"), 80.0);
    assert!(soaked.at("search.capacity.high").is_null());
    assert_eq!(soaked.threshold("capacity<=20/s"), "held");
    soaked.assert_pass();
    let told = "the highest rate that holds: 80.00/s (99 %: 80.00 or more)";
    assert!(soaked.stdout.contains(told), "{}", soaked.stdout);
    for (file, says) in [
        (&page, "Steps of the search"),
        (&junit, "capacity&lt;=20/s"),
        (&summary, "the highest rate that holds"),
    ] {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_server_that_is_too_slow_for_the_lowest_rate_fails() {
    let root = root_with(&[("body", &pattern(7, 1_000))]);
    let carafe = Carafe::serve(root.path(), &[]);
    // Nothing takes less than no time.
    let soaked = soak_words(&format!(
        "http://{}/body --rate 20..80 --find max<=0us -z 400ms",
        carafe.addr()
    ));
    soaked.assert_fail();
    assert_eq!(soaked.threshold("capacity<=20/s"), "failed");
    let steps = soaked.at("search.steps").as_array().unwrap();
    assert!(steps.len() >= 2, "{steps:#?}");
    assert!(soaked.at("search.held").is_null());
}

#[test]
fn what_no_search_can_be_for_is_refused() {
    for bad in [
        "--find p99<20ms",
        "--find p99<20ms --rate 100",
        "--rate 10..100",
        "--rate 100..10 --find p99<20ms",
        "--rate 10..100 --find p99.diff<1%",
        "--rate 10..100 --find capacity>1/s",
        "--rate 10..100 --find cpu<50%",
        "--rate 10..100 --find p99<20ms -n 5",
        "--rate 10..100 --find nothing<1",
        "--fail-if capacity<10/s",
    ] {
        soak_words(&format!("127.0.0.1:1 body {bad}")).complaint();
    }
}
