//! A trace as one HTML page that needs nothing else: its script is its own, and a browser runs no other.

use std::collections::HashMap;
use std::time::Duration;

use maud::{Markup, PreEscaped, html};
use serde::Serialize;
use serde_json::{Value, json};

use super::timeline::{Lane, LaneKind, Look, Timeline, within};
use super::words::Words;
use crate::limits::TRACE_CLIENTS_LISTED;
use crate::random::random;
use crate::telemetry::phases::Phases;
use crate::units::bytes;

/// Renders a trace.
pub(super) fn render(timeline: &Timeline) -> String {
    let nonce = format!("{:032x}", random());
    let policy =
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'");
    let clients = busiest(timeline);
    let page = html! {
        (PreEscaped("<!DOCTYPE html>\n"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy);
                title { "What the loop did: carafe, " (timeline.written_at) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                (head(timeline))
                (picture())
                (shares(timeline, &clients))
                script id="data" type="application/json" { (PreEscaped(data(timeline))) }
                script nonce=(nonce) { (PreEscaped(include_str!("page.js"))) }
            }
        }
    };
    page.into_string()
}

fn head(timeline: &Timeline) -> Markup {
    let seconds = (timeline.until - timeline.from).as_secs_f64();
    let clients = of_clients(timeline).count();
    html! {
        header {
            h1 { "What the loop did, and why" }
            p class="soft" {
                (format!("{seconds:.3}")) " s until " (format!("{:.0}", timeline.written_at)) ", "
                (clients) @if clients == 1 { " client" } @else { " clients" } "."
                @if timeline.is_cut { " What happened before has gone: the memory for it is bounded." }
            }
        }
    }
}

fn picture() -> Markup {
    html! {
        form id="tools" {
            input id="client" type="search" placeholder="client or name" aria-label="Show only clients or names with this";
            label { "steps from " input id="slow" type="number" min="0" value="0" inputmode="numeric"; " µs" }
            span class="buttons" {
                button type="button" id="in" title="Zoom in (+)" { "+" }
                button type="button" id="out" title="Zoom out (−)" { "−" }
                button type="button" id="all" title="Show all (0)" { "all" }
                button type="button" id="slowest" title="The slowest step, then the next" { "slowest" }
                button type="button" id="print" { "print" }
            }
        }
        div id="frame" { div id="room" { canvas id="lanes" tabindex="0" aria-label="Lanes over time" {} } }
        section id="about" aria-live="polite" {
            p class="soft hint" { "Point at a step, or tap it. Drag to move; + and − zoom, or two fingers, or Ctrl and the wheel." }
        }
        ul id="legend" {
            @for (look, class, words) in Look::ALL {
                @if look != Look::Other { li { i class=(class) {} (words) } }
            }
            li { i class="curve" {} "bytes sent so far" }
        }
        noscript { p { "The lanes are drawn by the page's own script, which is switched off." } }
    }
}

fn of_clients(timeline: &Timeline) -> impl Iterator<Item = &Lane> {
    let lanes = timeline.lanes.iter();
    lanes.filter(|lane| lane.kind == LaneKind::Client && !lane.items.is_empty())
}

/// Those that were sent most, first.
fn busiest(timeline: &Timeline) -> Vec<&Lane> {
    let mut clients: Vec<_> = of_clients(timeline).collect();
    clients.sort_by_key(|lane| std::cmp::Reverse(lane.totals.moved));
    clients.truncate(TRACE_CLIENTS_LISTED);
    clients
}

/// Who got what, and what each waited for.
fn shares(timeline: &Timeline, clients: &[&Lane]) -> Markup {
    let all: u64 = of_clients(timeline).map(|lane| lane.totals.moved).sum();
    let most = clients.first().map_or(0, |lane| lane.totals.moved);
    let longest = clients
        .iter()
        .map(|lane| time(lane))
        .max()
        .unwrap_or_default();
    html! {
        section id="shares" {
            h2 { "Who got what, and waited for what" }
            table {
                thead { tr { th { "client" } th { "sent" } th { "its time" } } }
                tbody {
                    @for lane in clients {
                        tr {
                            th {
                                (lane.name)
                                @if let Some(asked) = lane.asked.last() {
                                    p class="soft" { (asked.name) }
                                    @if let Some(phases) = &asked.phases { p class="soft" { "its reply: " (spent(phases)) } }
                                }
                            }
                            td {
                                (bytes(lane.totals.moved)) ", " (format!("{:.0} %", share(lane.totals.moved as f64, all as f64)))
                                (bar(&[("send", share(lane.totals.moved as f64, most as f64))]))
                            }
                            td {
                                (parts(lane))
                                (bar(&times(lane).map(|(look, time)| (look, share(time.as_secs_f64(), longest.as_secs_f64())))))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The parts of a client's time, by the looks of their states.
fn times(lane: &Lane) -> [(&'static str, Duration); 4] {
    let totals = &lane.totals;
    [
        ("step", totals.in_steps),
        ("queued", totals.queued),
        ("disk", totals.disk),
        ("sending", totals.sending),
    ]
}

fn time(lane: &Lane) -> Duration {
    times(lane).iter().map(|&(_, time)| time).sum()
}

fn parts(lane: &Lane) -> String {
    let words = ["worked on", "its turn", "a disk", "its client"];
    let parts = words
        .iter()
        .zip(times(lane))
        .filter(|(_, (_, time))| !time.is_zero());
    let parts: Vec<_> = parts
        .map(|(word, (_, time))| format!("{word} {}", duration(time)))
        .collect();
    parts.join(", ")
}

/// Where the time of a reply went.
fn spent(phases: &Phases) -> String {
    let spent = phases
        .spent()
        .map(|(phase, time)| format!("{} {}", phase.as_str(), duration(time)));
    spent.collect::<Vec<_>>().join(", ")
}

/// A bar of parts that are so many percent wide.
fn bar(parts: &[(&str, f64)]) -> Markup {
    html! {
        div class="bar" {
            @for (class, percent) in parts {
                i class=(class) style=(format!("width:{percent:.2}%")) {}
            }
        }
    }
}

/// In percent.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 {
        0.0
    } else {
        part * 100.0 / whole
    }
}

fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    match nanos {
        0..1_000_000 => format!("{:.0} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

/// What the script draws. JSON in a script element ends at the next `</script`, so no `<` is left in it.
fn data(timeline: &Timeline) -> String {
    let mut known = Interned::default();
    let lanes: Vec<_> = timeline
        .lanes
        .iter()
        .map(|lane| lane_data(lane, timeline, &mut known))
        .collect();
    let looks: Vec<_> = Look::ALL.iter().map(|(_, class, _)| *class).collect();
    let data = json!({
        "span": nanos(timeline.until - timeline.from),
        "looks": looks,
        "lanes": lanes,
        "words": known.words,
    });
    data.to_string().replace('<', "\\u003c")
}

#[derive(Default)]
struct Interned {
    words: Vec<Value>,
    indices: HashMap<Words, usize>,
}

impl Interned {
    fn index(&mut self, words: &Words) -> usize {
        if let Some(&index) = self.indices.get(words) {
            return index;
        }
        let Words {
            title,
            rule,
            man,
            function,
            name: _,
        } = words;
        self.words.push(json!([title, rule, man, function]));
        self.indices.insert(words.clone(), self.words.len() - 1);
        self.words.len() - 1
    }
}

/// As the script counts.
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Serialize)]
struct LaneData<'a> {
    kind: &'static str,
    name: &'a str,
    asked: Vec<(i64, &'a str)>,
    /// Six numbers each: when it began, how long it took, its look, its words, what it sent, and the lane of
    /// its client, or -1.
    items: Vec<i64>,
}

fn lane_data(lane: &Lane, timeline: &Timeline, known: &mut Interned) -> Value {
    let asked = lane.asked.iter();
    let asked = asked
        .map(|asked| {
            let at = asked.at.saturating_duration_since(timeline.from);
            (nanos(at), &*asked.name)
        })
        .collect();
    let mut items = Vec::with_capacity(6 * lane.items.len());
    for item in &lane.items {
        let (began, took) = within(item, timeline);
        let client = item.client.map_or(-1, |lane| lane as i64);
        let numbers = [
            nanos(began),
            nanos(took),
            item.look as i64,
            known.index(&item.words) as i64,
            item.sent as i64,
            client,
        ];
        items.extend(numbers);
    }
    let kind = match lane.kind {
        LaneKind::Loop => "loop",
        LaneKind::Client => "client",
        LaneKind::Thread => "thread",
    };
    json!(LaneData {
        kind,
        name: &lane.name,
        asked,
        items
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::reactor::event::{Action, Event};
    use crate::telemetry::Stage;
    use crate::trace::record::Awaited;
    use crate::trace::record::{Asked, Call, Record, Ring, What};

    #[test]
    fn names_from_peers_cannot_leave_their_place() {
        const NAME: &str = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&'";
        let at = Instant::now();
        let record = |what| Record {
            began: at,
            ended: at,
            conn: 7,
            what,
        };
        let ring = Ring {
            thread: "main".into(),
            records: [
                record(What::Accepted(None)),
                record(What::Call {
                    call: Call::Send,
                    asked: 5,
                    result: 5,
                }),
                record(What::Step {
                    event: Event::Start,
                    action: Action::Wait,
                    stages: [Stage::Reading, Stage::Sending],
                    awaited: Awaited::Nothing,
                    moved: 5,
                }),
            ]
            .into(),
            asked: [Asked {
                conn: 7,
                at,
                name_bytes: NAME.len(),
                phases: None,
            }]
            .into(),
            names: NAME.bytes().collect(),
            is_full: false,
        };
        let until = at + Duration::from_millis(1);
        let page = render(&Timeline::new(&[ring], until, Duration::from_secs(1)));
        assert!(!page.contains("<img"), "{page}");
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script").count(), 2);
        // Where a browser reads it, it is what it was.
        let data = page.split_once("application/json\">").unwrap().1;
        let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        let lanes = data["lanes"].as_array().unwrap();
        assert!(lanes.iter().any(|lane| lane["asked"][0][1] == NAME));
    }
}
