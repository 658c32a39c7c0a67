//! Records, put in lanes: one for each loop, one for each connection with its states between the steps, one
//! for each thread beside the loops.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::record::{Awaited, Call, Record, Ring, What};
use super::words::{self, Words};
use crate::escape::Excerpt;
use crate::reactor::event::{Action, Event};
use crate::telemetry::Stage;
use crate::telemetry::access_log::LOCAL_CLIENT;
use crate::telemetry::phases::Phases;

/// A trace as it is shown.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// The time of day at `until`.
    pub(super) written_at: Timestamp,
    /// What happened earlier has gone: the memory for it is bounded.
    pub(super) is_cut: bool,
    pub(super) lanes: Vec<Lane>,
}

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKind {
    Loop,
    Client,
    Thread,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) kind: LaneKind,
    pub(super) name: String,
    /// In the order in which they began, an outer one before those in it.
    pub(super) items: Vec<Item>,
    pub(super) totals: Totals,
    /// What was asked for.
    pub(super) asked: Vec<AskedFor>,
    /// Since when it is in this state, and whether it has been stepped at all.
    state: Option<(Instant, Look)>,
    last_attempt: Option<Record>,
}

/// What a client has asked for.
#[derive(Debug)]
pub(super) struct AskedFor {
    pub(super) at: Instant,
    pub(super) name: Box<str>,
    /// Where the time of its reply went, once that is over.
    pub(super) phases: Option<Phases>,
}

/// What is told of a client at a glance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) in_steps: Duration,
    pub(super) queued: Duration,
    pub(super) disk: Duration,
    pub(super) sending: Duration,
    pub(super) moved: u64,
}

/// Something on a lane.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) look: Look,
    pub(super) words: Words,
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// Of a system call: the bytes that were asked for, and those moved, or minus the errno.
    pub(super) call: Option<(u64, i64)>,
    /// The lane of the client that it was for, if that isn't this one.
    pub(super) client: Option<usize>,
}

/// What it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Waiting,
    Reading,
    Idle,
    Sending,
    Queued,
    Disk,
    Descriptor,
    Closing,
    Step,
    Deadline,
    Source,
    Receive,
    Send,
    Blocked,
    File,
    Other,
    End,
    Cut,
}

impl Look {
    /// All, in their order, as classes of the page, and what the legend says of the states.
    pub(super) const ALL: [(Self, &'static str, &'static str); 18] = [
        (Self::Waiting, "waiting", "the loop sleeps"),
        (Self::Reading, "reading", "waits for a request"),
        (Self::Idle, "idle", "kept alive, says nothing"),
        (
            Self::Sending,
            "sending",
            "waits for its client to take bytes",
        ),
        (
            Self::Queued,
            "queued",
            "has used its budget, waits for its turn",
        ),
        (Self::Disk, "disk", "waits for a disk"),
        (Self::Descriptor, "descriptor", "waits for a descriptor"),
        (
            Self::Closing,
            "closing",
            "all sent, waits for the client's FIN",
        ),
        (Self::Step, "step", "the loop works for it"),
        (Self::Deadline, "deadline", "a deadline has passed"),
        (Self::Source, "source", "signals, other threads"),
        (Self::Receive, "receive", "received"),
        (Self::Send, "send", "sent"),
        (Self::Blocked, "blocked", "would block"),
        (Self::File, "file", "a call on a file"),
        (Self::Other, "other", "another call"),
        (Self::End, "end", "closed"),
        (Self::Cut, "cut", "reset"),
    ];
}

impl Timeline {
    /// What happened in the `last` time until then.
    pub(super) fn new(rings: &[Ring], until: Instant, last: Duration) -> Self {
        let first = rings.iter().flat_map(|ring| &ring.records);
        let first = first.map(|record| record.began).min();
        let mut building = Building {
            from: until.checked_sub(last).max(first).unwrap_or(until),
            lanes: Vec::new(),
            clients: HashMap::new(),
        };
        let is_loop = |ring: &&Ring| {
            ring.records
                .iter()
                .any(|record| matches!(record.what, What::Waited | What::Step { .. }))
        };
        let loops = rings.iter().filter(is_loop).count();
        for ring in rings.iter().filter(is_loop) {
            building.add_loop(ring, loops > 1);
        }
        for ring in rings.iter().filter(|ring| !is_loop(ring)) {
            building.add_thread(ring);
        }
        building.end(until);
        building.name(rings);
        Self {
            from: building.from,
            until,
            written_at: Timestamp::now(),
            is_cut: rings.iter().any(|ring| ring.is_full),
            lanes: building.lanes,
        }
    }
}

struct Building {
    from: Instant,
    lanes: Vec<Lane>,
    /// The lanes of connections.
    clients: HashMap<u64, usize>,
}

impl Building {
    fn lane(&mut self, kind: LaneKind, name: String) -> usize {
        self.lanes.push(Lane {
            kind,
            name,
            items: Vec::new(),
            totals: Totals::default(),
            asked: Vec::new(),
            state: None,
            last_attempt: None,
        });
        self.lanes.len() - 1
    }

    fn client(&mut self, conn: u64) -> usize {
        if let Some(&lane) = self.clients.get(&conn) {
            return lane;
        }
        let lane = self.lane(LaneKind::Client, format!("client {}", conn as u32));
        self.clients.insert(conn, lane);
        lane
    }

    fn add_loop(&mut self, ring: &Ring, is_one_of_several: bool) {
        let name = match &*ring.thread {
            "main" if is_one_of_several => "loop-0".to_owned(),
            "main" => "the loop".to_owned(),
            name => name.to_owned(),
        };
        let own = self.lane(LaneKind::Loop, name);
        // Calls of the reap come before the end that they belong to.
        let mut reaped = Vec::new();
        for record in &ring.records {
            if let What::Accepted(peer) = record.what {
                let peer_lane = self.client(record.conn);
                self.lanes[peer_lane].name =
                    peer.map_or_else(|| LOCAL_CLIENT.to_owned(), |peer| peer.to_string());
                self.lanes[peer_lane].state = Some((record.began, Look::Reading));
            }
            if record.ended < self.from {
                continue;
            }
            match record.what {
                What::Call {
                    call: Call::CloseSocket | Call::Reset,
                    ..
                } => reaped.push(*record),
                What::Call { call, .. } if record.conn == 0 || call.is_of_listener() => {
                    self.add_call(own, record);
                }
                What::Call { .. } => {
                    let lane = self.client(record.conn);
                    self.add_call(lane, record);
                }
                What::Step { .. } => self.add_step(own, record),
                What::Ended(reason) => {
                    let lane = self.client(record.conn);
                    for call in reaped.drain(..) {
                        self.add_call(lane, &call);
                    }
                    self.add_end(lane, record, words::of_end(reason));
                }
                What::Waited => self.add(own, record, Look::Waiting, words::of_wait()),
                What::Source(_) => self.add(own, record, Look::Source, words::of_source()),
                What::Accepted(_) | What::Task(_) => {}
            }
        }
    }

    fn add_thread(&mut self, ring: &Ring) {
        let name = match &*ring.thread {
            "disk" => "a disk thread",
            "watch" => "watches what is kept",
            name => name,
        };
        let own = self.lane(LaneKind::Thread, name.to_owned());
        for record in &ring.records {
            if record.ended < self.from {
                continue;
            }
            match record.what {
                What::Task(kind) => self.add(own, record, Look::Disk, words::of_task(kind)),
                What::Call { .. } => self.add_call(own, record),
                _ => continue,
            }
            if let Some(&client) = self.clients.get(&record.conn)
                && let Some(item) = self.lanes[own].items.last_mut()
            {
                item.client = Some(client);
            }
        }
    }

    fn add(&mut self, lane: usize, record: &Record, look: Look, words: Words) {
        self.lanes[lane].items.push(Item {
            began: record.began,
            ended: record.ended,
            look,
            words,
            sent: 0,
            call: None,
            client: None,
        });
    }

    fn add_call(&mut self, lane: usize, record: &Record) {
        let What::Call {
            call,
            asked,
            result,
        } = record.what
        else {
            return;
        };
        let blocked = result == -i64::from(libc::EAGAIN);
        let look = match call {
            _ if blocked => Look::Blocked,
            Call::Receive => Look::Receive,
            _ if call.is_sending() => Look::Send,
            Call::Open
            | Call::Stat
            | Call::StatEntry
            | Call::StatFs
            | Call::ReadNowait
            | Call::Read
            | Call::CloseFile => Look::File,
            _ => Look::Other,
        };
        self.add(lane, record, look, words::of_call(call, asked, result));
        let lane = &mut self.lanes[lane];
        if call.is_attempt() {
            lane.last_attempt = Some(*record);
        }
        let sent = if call.is_sending() {
            u64::try_from(result).unwrap_or(0)
        } else {
            0
        };
        lane.totals.moved += sent;
        if let Some(item) = lane.items.last_mut() {
            item.sent = sent;
            item.call = Some((asked, result));
        }
    }

    /// A step, on the lane of its client and on that of the loop.
    fn add_step(&mut self, own: usize, record: &Record) {
        let client = self.client(record.conn);
        let What::Step {
            event,
            action,
            stages,
            awaited,
            moved,
        } = record.what
        else {
            return;
        };
        self.lanes[client].end_state(record.began);
        let last = self.lanes[client]
            .last_attempt
            .filter(|call| call.began >= record.began);
        let words = words::of_step((event, action), stages, awaited, moved, last.as_ref());
        let look = if event == Event::Deadline {
            Look::Deadline
        } else {
            Look::Step
        };
        self.add(client, record, look, words.clone());
        self.add(own, record, look, words);
        if let Some(item) = self.lanes[own].items.last_mut() {
            item.client = Some(client);
        }
        let lane = &mut self.lanes[client];
        lane.totals.in_steps += record.took();
        lane.state = Some(record.ended).zip(look_after(action, stages[1], awaited));
    }

    fn add_end(&mut self, lane: usize, record: &Record, words: Words) {
        let is_cut =
            matches!(record.what, What::Ended(reason) if reason.of_connection() != "closed");
        self.lanes[lane].end_state(record.began);
        self.lanes[lane].state = None;
        self.add(
            lane,
            record,
            if is_cut { Look::Cut } else { Look::End },
            words,
        );
    }

    /// What goes on.
    fn end(&mut self, until: Instant) {
        for lane in &mut self.lanes {
            lane.end_state(until);
            lane.items
                .sort_by_key(|item| (item.began, std::cmp::Reverse(item.ended)));
        }
        // Who had left before is not shown.
        for lane in self
            .lanes
            .iter_mut()
            .filter(|lane| lane.kind == LaneKind::Client)
        {
            lane.items.retain(|item| item.ended >= self.from);
        }
    }

    fn name(&mut self, rings: &[Ring]) {
        for ring in rings {
            let mut names = ring.names.iter().copied();
            for asked in &ring.asked {
                let name: Vec<u8> = names.by_ref().take(asked.name_bytes).collect();
                if let Some(&lane) = self.clients.get(&asked.conn) {
                    let known = &mut self.lanes[lane].asked;
                    let one = AskedFor {
                        at: asked.at,
                        name: Excerpt::of_request(&name).to_string().into(),
                        phases: asked.phases,
                    };
                    // A reply is noted when it begins, and when it is over.
                    known.pop_if(|last| (last.at, &last.name) == (one.at, &one.name));
                    known.push(one);
                }
            }
        }
    }
}

impl Lane {
    /// The state in which it has waited until now.
    fn end_state(&mut self, until: Instant) {
        let Some((since, look)) = self.state.take() else {
            return;
        };
        let ended = until.max(since);
        let took = ended - since;
        match look {
            Look::Queued => self.totals.queued += took,
            Look::Disk | Look::Descriptor => self.totals.disk += took,
            Look::Sending => self.totals.sending += took,
            _ => {}
        }
        let words = Look::ALL[look as usize].2;
        self.items.push(Item {
            began: since,
            ended,
            look,
            words: Words {
                name: words,
                title: words.to_owned(),
                rule: state_rule(look),
                man: if look == Look::Disk {
                    "preadv2(2)"
                } else {
                    "epoll(7)"
                },
                function: "Conn::step",
            },
            sent: 0,
            call: None,
            client: None,
        });
    }
}

/// When it began and how long it took of what the trace shows.
pub(super) fn within(item: &Item, timeline: &Timeline) -> (Duration, Duration) {
    let began = item.began.max(timeline.from);
    let ended = item.ended.min(timeline.until).max(began);
    (began - timeline.from, ended - began)
}

fn look_after(action: Action, stage: Stage, awaited: Awaited) -> Option<Look> {
    match (action, awaited) {
        (Action::Close(_) | Action::Reset(_), _) => None,
        (Action::Yield, _) => Some(Look::Queued),
        (Action::Suspend, Awaited::Descriptor) => Some(Look::Descriptor),
        (Action::Suspend, _) => Some(Look::Disk),
        (Action::Wait, _) => Some(match stage {
            Stage::Reading => Look::Reading,
            Stage::Idle => Look::Idle,
            Stage::Sending => Look::Sending,
            Stage::Closing => Look::Closing,
        }),
    }
}

fn state_rule(look: Look) -> &'static str {
    match look {
        Look::Queued => {
            "Others have their turn first: the run queue goes round, a budget's worth each."
        }
        Look::Sending => {
            "The send buffer is full. Its client and the network set the pace, and the loop does other things."
        }
        Look::Disk => "A disk thread waits for the disk, and the loop does other things.",
        Look::Descriptor => {
            "Every descriptor for files is taken; the first in the line gets the next."
        }
        Look::Closing => {
            "A close with unread input would be a reset that overtakes the last bytes."
        }
        _ => "Nothing costs less than a connection that waits: no thread, no buffer, no call.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::event::Readiness;

    /// What is asked of the kernel after an attempt isn't why the step waits.
    #[test]
    fn a_step_waits_for_what_its_last_attempt_found() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let record = |began, what| Record {
            began: at(began),
            ended: at(began + 1),
            conn: 7,
            what,
        };
        let call = |call, result| What::Call {
            call,
            asked: 9,
            result,
        };
        let step = What::Step {
            event: Event::Ready(Readiness::default()),
            action: Action::Wait,
            stages: [Stage::Sending; 2],
            awaited: Awaited::Nothing,
            moved: 5,
        };
        let records = [
            record(1, What::Accepted(None)),
            record(11, call(Call::SendFile, -i64::from(libc::EAGAIN))),
            record(12, call(Call::AskTcpInfo, 0)),
            record(10, step),
        ];
        let ring = Ring {
            records: records.into(),
            ..Ring::default()
        };
        let timeline = Timeline::new(&[ring], at(100), Duration::from_secs(1));
        let items = timeline.lanes.iter().flat_map(|lane| &lane.items);
        let rules: Vec<_> = items
            .filter(|item| item.look == Look::Step)
            .map(|item| &item.words.rule)
            .collect();
        assert!(!rules.is_empty());
        for rule in rules {
            assert!(rule.contains("until there is room"), "{rule}");
        }
    }
}
