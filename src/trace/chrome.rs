//! A trace in Chrome's Trace Event Format, which Perfetto and chrome://tracing open: complete events ("X")
//! with times in microseconds, and metadata ("M") that names processes and threads.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::timeline::{Item, Lane, LaneKind, Look, Timeline, within};

/// The processes that lanes are shown under.
const LOOPS: u32 = 1;
const CLIENTS: u32 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    display_time_unit: &'static str,
    trace_events: Vec<Value>,
    other_data: Value,
}

/// Renders a trace.
pub(super) fn render(timeline: &Timeline) -> io::Result<String> {
    let mut events = vec![
        named("process_name", LOOPS, 0, "carafe"),
        named("process_name", CLIENTS, 0, "clients"),
    ];
    for (index, lane) in timeline.lanes.iter().enumerate() {
        // Thread numbers begin with one.
        let (process, thread) = (process_of(lane), index as u32 + 1);
        events.push(named("thread_name", process, thread, &lane.name));
        for item in &lane.items {
            events.push(event(item, timeline, process, thread));
        }
        for asked in &lane.asked {
            events.push(json!({
                "ph": "i", "s": "t", "name": asked.name, "cat": "asked",
                "ts": micros(asked.at.saturating_duration_since(timeline.from)), "pid": process, "tid": thread,
                "args": { "phasesInSeconds": asked.phases },
            }));
        }
    }
    Ok(serde_json::to_string(&Trace {
        display_time_unit: "ns",
        trace_events: events,
        other_data: json!({
            "writtenAt": timeline.written_at.to_string(),
            "olderIsMissing": timeline.is_cut,
        }),
    })?)
}

fn process_of(lane: &Lane) -> u32 {
    match lane.kind {
        LaneKind::Client => CLIENTS,
        LaneKind::Loop | LaneKind::Thread => LOOPS,
    }
}

fn named(what: &str, process: u32, thread: u32, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

fn event(item: &Item, timeline: &Timeline, process: u32, thread: u32) -> Value {
    let (began, took) = within(item, timeline);
    let words = &item.words;
    let mut args = json!({
        "what": words.title, "why": words.rule, "man": words.man, "function": words.function,
    });
    if let Some((asked, result)) = item.call {
        args["asked"] = asked.into();
        args["result"] = result.into();
    }
    if let Some(client) = item.client {
        args["client"] = timeline.lanes[client].name.as_str().into();
    }
    json!({
        "ph": "X", "name": words.name, "cat": Look::ALL[item.look as usize].1,
        "ts": micros(began), "dur": micros(took), "pid": process, "tid": thread, "args": args,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}
