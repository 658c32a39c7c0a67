//! `carafe say`: sends a text and prints the reply.

use std::io::{self, ErrorKind, Read as _, Write as _};

use encoding_rs::Encoding;

use super::connection::{self, Connection, TimeLimits};
use super::prompt;
use crate::download::args::SayArgs;
use crate::escape::{Escaped, EscapedText};
use crate::failure::{Exit, Failure, tell};
use crate::limits;

/// Sends the text, asking for what is missing, and prints the reply as one line.
#[must_use]
pub fn run(args: &SayArgs) -> Exit {
    match say(args) {
        Ok(()) => Exit::Done,
        Err(failure) => failure.report(),
    }
}

fn say(args: &SayArgs) -> Result<(), Failure> {
    let server = match &args.server {
        Some(server) => server.clone(),
        None => prompt::server()?,
    };
    let text = match &args.text {
        Some(text) => text.clone(),
        None => ask_for_text(args.encoding)?,
    };
    let request = encode(&text, args.encoding)?;
    let mut connection = Connection::open(&server, &TimeLimits::starting_now(args.client))?;
    connection
        .write_all(&request)
        .map_err(|error| connection::broken("the text could not be sent", &error))?;
    let mut reply = Vec::new();
    let end = connection
        .take(limits::REPLY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut reply);
    let received = reply.len();
    if received > 0 {
        print(&reply, args.encoding)?;
    }
    match end {
        Err(error) => {
            let what = format!("the reply broke off after {received} bytes");
            Err(connection::broken(&what, &error))
        }
        Ok(0) => Err(Failure::new(
            Exit::Failed,
            "the server closed without a reply",
        )),
        Ok(_) => Ok(()),
    }
}

/// A text that is typed.
fn ask_for_text(encoding: &'static Encoding) -> Result<String, Failure> {
    let line = prompt::line_of_at_most("text: ", limits::TYPED_TEXT_BYTES_MAX)?;
    let line = line.ok_or_else(|| too_long(encoding, None))?;
    String::from_utf8(line).map_err(|_| Failure::usage("text: it is not UTF-8"))
}

/// A server of the tutorial's kind takes no more: what is cut off in silence was not said.
fn too_long(encoding: &'static Encoding, bytes: Option<usize>) -> Failure {
    let (max, name) = (limits::TEXT_BYTES_MAX, encoding.name());
    let has = bytes.map_or("more".to_owned(), |bytes| bytes.to_string());
    let line = format!("text: it takes at most {max} bytes in {name}, and this one has {has}");
    Failure::usage(line)
}

/// Encodes the text as a whole or not at all.
fn encode(text: &str, encoding: &'static Encoding) -> Result<Vec<u8>, Failure> {
    if text.is_empty() {
        return Err(Failure::usage("text: there is nothing to say"));
    }
    let (bytes, _, replaced) = encoding.encode(text);
    if !replaced {
        return match bytes.len() {
            0..=limits::TEXT_BYTES_MAX => Ok(bytes.into_owned()),
            count => Err(too_long(encoding, Some(count))),
        };
    }
    let mut utf8 = [0; 4];
    let unencodable = text
        .chars()
        .find(|c| encoding.encode(c.encode_utf8(&mut [0; 4])).2)
        .expect("a character was replaced");
    Err(Failure::usage(format!(
        "text: {} can't write '{}' (U+{:04X})",
        encoding.name(),
        Escaped(unencodable.encode_utf8(&mut utf8).as_bytes()),
        u32::from(unencodable),
    )))
}

/// Prints the reply up to its limit. Whoever closed our output has had enough.
fn print(reply: &[u8], encoding: &'static Encoding) -> Result<(), Failure> {
    let max = limits::REPLY_BYTES_MAX;
    if reply.len() > max {
        tell(&format!(
            "the reply is longer than {max} bytes; the rest is left out"
        ));
    }
    let (text, _) = encoding.decode_without_bom_handling(&reply[..reply.len().min(max)]);
    let line = format!("{}\n", EscapedText(&text));
    match io::stdout().write_all(line.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format!("cannot write the reply: {error}"),
        )),
        _ => Ok(()),
    }
}
