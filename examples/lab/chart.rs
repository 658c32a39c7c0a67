//! A run as a picture: a line for each call, the clients beside the server. As text and as SVG.

use std::fmt::Write as _;

use crate::core::{Core, Rules};
use crate::search::{Found, apply};
use crate::world::{Move, World};

/// Where an arrow on a client's side points.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrow {
    ToServer,
    ToClient,
}

/// A line. Only one of the clients has something in it.
struct Row {
    number: Option<usize>,
    client: Option<usize>,
    client_text: String,
    arrow: Option<Arrow>,
    server_text: String,
    /// A broken rule, or what comes of it.
    is_wrong: bool,
}

pub struct Chart {
    rows: Vec<Row>,
    has_second: bool,
}

impl Chart {
    /// Plays a run once more, and notes what happens.
    pub fn of(rules: Rules, descriptors: u8, found: &Found) -> Self {
        let (mut world, mut core) = (World::new(descriptors), Core::new(rules));
        let mut rows = Vec::new();
        for (index, &mv) in found.moves.iter().enumerate() {
            world.calls = Some(Vec::new());
            apply(mv, &mut world, &mut core);
            let (client, client_text, is_sent) = words(mv, &world);
            let nobodys = client.is_none() && mv != Move::Turn;
            if mv != Move::Turn {
                rows.push(Row {
                    number: Some(index + 1),
                    client,
                    client_text: if nobodys {
                        String::new()
                    } else {
                        client_text.clone()
                    },
                    arrow: is_sent.then_some(Arrow::ToServer),
                    server_text: if nobodys { client_text } else { String::new() },
                    is_wrong: false,
                });
            }
            for (at, call) in world.calls.take().into_iter().flatten().enumerate() {
                rows.push(Row {
                    number: (at == 0).then_some(index + 1),
                    client: call.client,
                    client_text: String::new(),
                    arrow: call.reaches_client.then_some(Arrow::ToClient),
                    server_text: call.text,
                    is_wrong: call.is_mistake,
                });
            }
        }
        let who = ["A", "B"][found.client];
        rows.push(Row {
            number: None,
            client: Some(0),
            client_text: match found.fault.split_once(' ') {
                Some(("hangs:", _)) => format!("✗ client {who} {}", found.fault),
                _ => format!("✗ client {who} is {}", found.fault),
            },
            arrow: None,
            server_text: String::new(),
            is_wrong: true,
        });
        let has_second = rows.iter().any(|row| row.client == Some(1));
        Self { rows, has_second }
    }

    /// At most 80 columns.
    pub fn text(&self) -> String {
        let second = if self.has_second { "client B" } else { "" };
        let mut text = format!("    {:<22}  {:<32}  {second}", "client A", "server");
        text.truncate(text.trim_end().len());
        text.push('\n');
        for row in &self.rows {
            let number = row
                .number
                .map(|number| number.to_string())
                .unwrap_or_default();
            let side = |index| {
                if row.client == Some(index) {
                    (row.client_text.as_str(), row.arrow)
                } else {
                    ("", None)
                }
            };
            let (first, second) = (side(0), side(1));
            let left = match first {
                (text, Some(Arrow::ToServer)) => pad(&format!("{text} "), '─', 21) + "▶",
                (text, Some(Arrow::ToClient)) => format!("◀{}", pad(text, '─', 21)),
                (text, None) => pad(text, ' ', 22),
            };
            let right = match second {
                (text, Some(Arrow::ToServer)) => format!("◀── {text}"),
                (_, Some(Arrow::ToClient)) => "──▶".to_owned(),
                (text, None) => text.to_owned(),
            };
            let line = format!(
                "{number:>2}  {left}  {}  {right}",
                pad(&row.server_text, ' ', 32)
            );
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// The same, drawn.
    pub fn svg(&self) -> String {
        const LINE: usize = 22;
        let (first, server) = (156, 240);
        let second = server + 280;
        let width = if self.has_second {
            second + 110
        } else {
            second
        };
        let height = (self.rows.len() + 2) * LINE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             font-family=\"ui-monospace, monospace\" font-size=\"13\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        let mut line = |text: String| svg += &(text + "\n");
        let lanes = [
            (first, "client A"),
            (server, "server"),
            (second, "client B"),
        ];
        for (x, title) in lanes.into_iter().take(if self.has_second { 3 } else { 2 }) {
            line(format!(
                "<path d=\"M{x} {LINE}V{}\" stroke=\"#bbb\"/><text x=\"{x}\" y=\"16\" text-anchor=\"middle\" \
                 font-weight=\"bold\">{title}</text>",
                height - LINE
            ));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let y = (index + 2) * LINE - 4;
            let colour = if row.is_wrong { "#c00" } else { "#222" };
            if let Some(number) = row.number {
                if index > 0 {
                    let y = y - 16;
                    line(format!("<path d=\"M0 {y}H{width}\" stroke=\"#eee\"/>"));
                }
                line(format!(
                    "<text x=\"4\" y=\"{y}\" fill=\"#888\">{number}</text>"
                ));
            }
            let is_first = row.client == Some(0);
            let lane = if is_first { first } else { second };
            if let Some(arrow) = row.arrow {
                // To the second client it passes the text.
                let text = if is_first {
                    0
                } else {
                    row.server_text.chars().count() * 8
                };
                line(arrow_line(arrow, lane, server + text, y - 4));
            }
            // Beside its lane, away from the server's.
            let (x, anchor) = if is_first && row.is_wrong {
                (20, "start")
            } else if is_first {
                (lane - 8, "end")
            } else {
                (lane + 8, "start")
            };
            if !row.client_text.is_empty() {
                line(text_at(x, y, anchor, colour, &row.client_text));
            }
            if !row.server_text.is_empty() {
                line(text_at(server + 8, y, "start", colour, &row.server_text));
            }
        }
        svg + "</svg>\n"
    }
}

fn pad(text: &str, with: char, width: usize) -> String {
    let mut padded = text.to_owned();
    for _ in text.chars().count()..width {
        padded.push(with);
    }
    padded
}

fn text_at(x: usize, y: usize, anchor: &str, colour: &str, text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            letter => escaped.push(letter),
        }
    }
    let mut line = String::new();
    let _ = write!(
        line,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"4\" \
         paint-order=\"stroke\">{escaped}</text>"
    );
    line
}

/// Between a client's lane and the server's.
fn arrow_line(arrow: Arrow, client: usize, server: usize, y: usize) -> String {
    let (from, to) = match arrow {
        Arrow::ToServer => (client, server),
        Arrow::ToClient => (server, client),
    };
    let back = if from < to { to - 8 } else { to + 8 };
    let (above, below) = (y - 4, y + 4);
    format!(
        "<path d=\"M{from} {y}H{to}M{back} {above}L{to} {y}L{back} {below}\" fill=\"none\" stroke=\"#06c\"/>"
    )
}

/// Whose move it was, in words, and whether something goes to the server.
fn words(mv: Move, world: &World) -> (Option<usize>, String, bool) {
    let (client, text, is_sent) = match mv {
        Move::Turn => (None, "turn", false),
        Move::Tick => (None, "· half of the deadline passes ·", false),
        Move::Truncate => (None, "· the file is cut to a block ·", false),
        Move::Connect(index) => (Some(index), "connects", true),
        Move::Say(index) => (Some(index), world.said(index), true),
        Move::Junk(index) => (Some(index), "sends a \"j\"", true),
        Move::HalfClose(index) => (Some(index), "FIN", true),
        Move::Leave(index) => (Some(index), "is gone", true),
        Move::ReadAlways(index) => (Some(index), "reads all at once", false),
        Move::Read(index) => return (Some(index), world.has_read(index), false),
    };
    (client, text.to_owned(), is_sent)
}
