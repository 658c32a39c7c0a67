//! The charts as one HTML page that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Line, Shown, Side, Wire};

/// Renders charts.
pub(super) fn render(charts: &[Shown]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Nine notes on TCP sockets" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { "Nine notes on TCP sockets" }
                @for shown in charts { (chart(shown)) }
            }
        }
    };
    page.into_string()
}

fn chart(shown: &Shown) -> Markup {
    let note = shown.note;
    html! {
        section {
            h2 { (shown.number) ". " (note.says[0]) }
            p lang="zh" { (note.says[1]) }
            table {
                thead { tr { th { "client" } th {} th { "server" } } }
                tbody { @for line in &shown.lines { (rows(line)) } }
            }
            p { @for line in note.because { (line) " " } }
            p class="soft" { "Read on: " code { "man " (note.man) } ", " code { (note.here.0) } " in " code { (note.here.1) } }
        }
    }
}

fn rows(line: &Line) -> Markup {
    let (by, call, result, wire, answer) = match line {
        Line::Heading(text) => {
            return html! { tr { th colspan="3" class="heading" { (text) } } };
        }
        Line::Call {
            by,
            call,
            result,
            wire,
            answer,
        } => (*by, call, result, wire, answer),
    };
    let row = |text: Markup, wire: &Option<Wire>| {
        html! {
            tr {
                td { @if by == Side::Client { (text) } }
                (arrow(wire.as_ref()))
                td { @if by == Side::Server { (text) } }
            }
        }
    };
    let result = html! { " = " code { (result) } };
    match answer {
        Some(_) => html! { (row(html! { code { (call) } }, wire)) (row(result, answer)) },
        None => row(html! { code { (call) } (result) }, wire),
    }
}

/// A line with a head, by the page's style; read aloud it says where it goes.
fn arrow(wire: Option<&Wire>) -> Markup {
    let Some(wire) = wire else {
        return html! { td {} };
    };
    let (class, goes) = match (wire.to, wire.is_lost) {
        (Side::Server, false) => ("wire right", "to the server"),
        (Side::Server, true) => ("wire right lost", "to nobody"),
        (Side::Client, _) => ("wire left", "to the client"),
    };
    html! { td class=(class) aria-label={ (wire.label) " " (goes) } { span { (wire.label) } } }
}
