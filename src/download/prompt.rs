//! Questions on stderr, answers from stdin, one line each: from a terminal or a pipe.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::net::Ipv6Addr;

use crate::escape::Escaped;
use crate::failure::Failure;
use crate::flags::ServerAddress;
use crate::limits;

/// Asks for a server's address and port.
///
/// # Errors
/// A usage failure: no answer, or one that will not do.
pub(super) fn server() -> Result<ServerAddress, Failure> {
    let host = answer("server ip: ", "a host name or an IP address", host)?;
    let port = answer("server port: ", "a port, 1 to 65535", |text| {
        text.parse().ok().filter(|&port| port != 0)
    })?;
    Ok(ServerAddress { host, port })
}

/// Asks for one line and returns its bytes, without the LF or CRLF that ends it.
///
/// # Errors
/// A usage failure: end of file, an unreadable stdin or a line that is too long.
pub(super) fn line(question: &str) -> Result<Vec<u8>, Failure> {
    let max = limits::ANSWER_BYTES_MAX;
    let line = line_of_at_most(question, max)?;
    line.ok_or_else(|| {
        let line = format!("{question}the answer has more than {max} bytes");
        Failure::usage(line)
    })
}

/// As [`line`]; `None` for a line of so many bytes or more.
///
/// # Errors
/// A usage failure: end of file or an unreadable stdin.
pub(super) fn line_of_at_most(question: &str, max: u64) -> Result<Option<Vec<u8>>, Failure> {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(question.as_bytes());
    let mut line = Vec::new();
    let read = io::stdin().lock().take(max).read_until(b'\n', &mut line);
    let ended = line.pop_if(|byte| *byte == b'\n').is_some();
    // Only a terminal that echoed the answer's LF has its cursor on a new line.
    if !(ended && io::stdin().is_terminal()) {
        let _ = stderr.write_all(b"\n");
    }
    let complaint = match read {
        Err(error) => format!("cannot read the answer: {error}"),
        Ok(0) => "no answer: end of file".to_owned(),
        Ok(count) if count as u64 == max => return Ok(None),
        Ok(_) => {
            if ended {
                line.pop_if(|byte| *byte == b'\r');
            }
            return Ok(Some(line));
        }
    };
    Err(Failure::usage(format!("{question}{complaint}")))
}

/// Asks for something that `parse` understands; blanks around it do not count.
fn answer<T>(question: &str, takes: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    let line = line(question)?;
    std::str::from_utf8(&line)
        .ok()
        .and_then(|text| parse(text.trim()))
        .ok_or_else(|| {
            let line = Escaped(&line);
            Failure::usage(format!("{question}'{line}' won't do: it takes {takes}"))
        })
}

/// A host as the command line takes it, except that an IPv6 address needs no brackets here.
fn host(text: &str) -> Option<String> {
    let unscoped = text.split('%').next().unwrap_or(text);
    let with_port = match unscoped.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{text}]:1"),
        Err(_) => format!("{text}:1"),
    };
    with_port
        .parse()
        .ok()
        .map(|server: ServerAddress| server.host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_brackets() {
        for (text, expected) in [
            ("localhost", Some("localhost")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("fe80::1%lo", Some("fe80::1%lo")),
            ("", None),
            ("h:80", None),
            ("http://h", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}
