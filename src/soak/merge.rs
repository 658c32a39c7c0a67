//! `carafe soak merge`: the parts of one run, which several generators have offered, as one report.

use jiff::Timestamp;

use super::outcome::Class;
use super::report::{Against, ClassCount, Report, Second};
use super::stretches;
use crate::limits::SECONDS_MAX;

/// The parts' report: counts are summed, histograms added, seconds and stretches put beside each other by the
/// clock. The first one's words stand for all.
/// An error is one line: they are no parts of one run.
pub(super) fn merge(mut parts: Vec<Report>) -> Result<Report, String> {
    let of = |report: &Report| report.part.map(|part| part.of);
    let count = parts
        .first()
        .and_then(of)
        .ok_or("merge takes reports of runs with --part")?;
    if parts.iter().any(|part| of(part) != Some(count)) {
        return Err("merge takes parts of one run: these are of several numbers of parts".into());
    }
    if parts
        .iter()
        .any(|part| part.comparison.is_some() || part.load.model != parts[0].load.model)
    {
        return Err("merge takes parts of one run, of one model and without --versus".into());
    }
    parts.sort_by_key(|part| part.part.map(|part| part.number));
    let numbers: Vec<u64> = parts
        .iter()
        .filter_map(|part| part.part)
        .map(|part| part.number)
        .collect();
    if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("part {} is there twice", twice[0]));
    }
    let missing = (1..=count).filter(|number| !numbers.contains(number));
    // The first one to begin is the frame for the others' seconds and stretches; of several the longest.
    let mut order = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        order.push((began(part)?, -part.load.seconds, index));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut whole = parts.remove(order.first().map_or(0, |first| first.2));
    whole.missing_parts = missing.collect();
    let mut silence = (
        whole.latency.longest_silence_us,
        whole.latency.longest_silence_at_us,
    );
    for part in parts {
        silence = silence.max((
            part.latency.longest_silence_us,
            part.latency.longest_silence_at_us,
        ));
        add(&mut whole, part)?;
    }
    whole.part = None;
    whole.outcomes.classes.sort_by_key(|found| {
        let mut all = Class::ALL.iter();
        all.position(|class| class.as_str() == found.class)
    });
    whole.derive(silence);
    Ok(whole)
}

fn add(whole: &mut Report, part: Report) -> Result<(), String> {
    if !whole.histograms.add(&part.histograms) {
        return Err("merge takes parts of one run: their histograms are of another kind".into());
    }
    let later = began(&part)? - began(whole)?;
    stretches::add(&mut whole.stretches, &part.stretches, later);
    add_seconds(&mut whole.seconds, &part.seconds, later.round() as i64);
    if whole.target != part.target {
        whole.target = format!("{}, {}", whole.target, part.target);
    }
    whole.verdict.cut_short |= part.verdict.cut_short;
    let (load, more) = (&mut whole.load, part.load);
    load.clients += more.clients;
    load.clients_max += more.clients_max;
    load.rate_asked = load
        .rate_asked
        .zip(more.rate_asked)
        .map(|(one, other)| one + other);
    load.never_started += more.never_started;
    load.started_late += more.started_late;
    load.body_bytes += more.body_bytes;
    let (outcomes, more) = (&mut whole.outcomes, part.outcomes);
    outcomes.started += more.started;
    outcomes.asked_again += more.asked_again;
    // A name may have come to another part.
    outcomes
        .never_complete
        .retain(|name| more.never_complete.contains(name));
    more.classes
        .into_iter()
        .for_each(|class| add_class(&mut outcomes.classes, class));
    if let (Some(tls), Some(more)) = (&mut whole.tls, part.tls) {
        tls.handshakes += more.handshakes;
        tls.resumed += more.resumed;
        tls.is_insecure |= more.is_insecure;
    }
    let (checked, more) = (&mut whole.verification, part.verification);
    if more.against == Against::Nothing {
        checked.against = Against::Nothing;
    }
    checked.bodies += more.bodies;
    checked.bytes += more.bytes;
    checked.corrupt += more.corrupt;
    checked.short += more.short;
    let (generator, more) = (&mut whole.generator, part.generator);
    generator.cpu_percent = generator.cpu_percent.max(more.cpu_percent);
    generator.rss_max_bytes = generator.rss_max_bytes.max(more.rss_max_bytes);
    whole.server = whole.server.take().or(part.server);
    Ok(())
}

/// When a run's load began, in seconds.
fn began(report: &Report) -> Result<f64, String> {
    let at: Result<Timestamp, _> = report.started_at.parse();
    at.map(|at| at.as_microsecond() as f64 / 1e6)
        .map_err(|error| format!("a report's time won't do: {error}"))
}

fn add_class(classes: &mut Vec<ClassCount>, more: ClassCount) {
    match classes.iter_mut().find(|found| found.class == more.class) {
        Some(found) => {
            found.count += more.count;
            found.sample = found.sample.take().or(more.sample);
        }
        None => classes.push(more),
    }
}

/// Of what isn't a count, each second has the worst part's. Seconds before the whole's first one are in that.
fn add_seconds(seconds: &mut Vec<Second>, more: &[Second], later: i64) {
    let each = seconds.first().map_or(1, |second| second.seconds.max(1));
    for second in more {
        let at = (i64::from(second.at) + later).max(0) as usize / each as usize;
        while seconds.len() <= at.min(SECONDS_MAX) {
            let next = seconds.len() as u32;
            seconds.push(Second::new(next * each, each));
        }
        let sum = &mut seconds[at.min(SECONDS_MAX)];
        sum.add(second);
        sum.clients += second.clients;
    }
}

#[cfg(test)]
mod tests;
