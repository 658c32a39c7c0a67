//! The message pair's server: what one drained read holds is the text; it is printed and thanked.

use std::rc::Rc;
use std::time::Duration;

use encoding_rs::Encoding;

use crate::escape::EscapedText;
use crate::limits::{NAME_BYTES_MAX, SPECULATIVE_LOOKUPS_MAX, TEXT_BYTES_MAX};
use crate::protocol::{Body, Decision, InputState, Protocol, Reply, Request, RequestEnd};
use crate::telemetry::log_writer::LineWriter;

/// Prints each client's text and answers `thank you !`.
#[derive(Debug)]
pub struct Thanks {
    encoding: &'static Encoding,
    reply: Rc<[u8]>,
    /// How long half a character waits for its other half.
    gap: Duration,
    /// How many more texts are accepted.
    texts_left: u64,
    output: LineWriter,
}

impl Thanks {
    /// Texts in `encoding` are printed to `output`, one a line; only the first one if `once`.
    #[must_use]
    pub fn new(encoding: &'static Encoding, gap: Duration, once: bool, output: LineWriter) -> Self {
        let (reply, _, _) = encoding.encode("thank you !");
        Self {
            encoding,
            reply: reply.into_owned().into(),
            gap,
            texts_left: if once { 1 } else { u64::MAX },
            output,
        }
    }

    /// Takes a text and thanks for it, if it is one of those wanted.
    fn thank(&mut self, text: &str) -> (Body, Option<&'static str>) {
        match self.texts_left.checked_sub(1) {
            Some(left) => {
                self.texts_left = left;
                self.output.print(&format_args!("{}", EscapedText(text)));
                (Body::Bytes(Rc::clone(&self.reply)), None)
            }
            None => (Body::empty(), Some("one text was asked for")),
        }
    }
}

impl Protocol for Thanks {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let used = request.bytes.len().min(TEXT_BYTES_MAX);
        let may_grow = used < TEXT_BYTES_MAX;
        let waits = |speculative, gap| Decision::NeedMore { speculative, gap };
        match request.input_state {
            InputState::Arrived if may_grow => return waits(false, None),
            // Decoding a text that is still incomplete costs as much as decoding the whole.
            InputState::WouldBlock
                if may_grow && request.speculative_lookups >= SPECULATIVE_LOOKUPS_MAX =>
            {
                return waits(false, Some(self.gap));
            }
            _ => {}
        }
        let (text, is_cut) = decode(self.encoding, &request.bytes[..used]);
        if request.input_state == InputState::WouldBlock && is_cut && may_grow {
            return waits(true, Some(self.gap));
        }
        let ended_by = match request.input_state {
            InputState::Ended => RequestEnd::Eof,
            _ => RequestEnd::Guess,
        };
        let (body, refused) = self.thank(&text);
        let target = text.as_bytes()[..text.floor_char_boundary(NAME_BYTES_MAX)].into();
        Decision::Reply(Reply::bare(target, body, refused, used, ended_by))
    }
}

/// Decodes with replacement characters, and says whether the text ends within a character.
fn decode(encoding: &'static Encoding, bytes: &[u8]) -> (String, bool) {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    // Enough for every character, and for the replacement of one that is incomplete.
    let capacity = decoder
        .max_utf8_buffer_length(bytes.len())
        .unwrap_or(4 * TEXT_BYTES_MAX);
    let mut text = String::with_capacity(capacity);
    let _ = decoder.decode_to_string(bytes, &mut text, false);
    let (_, _, is_cut) = decoder.decode_to_string(b"", &mut text, true);
    (text, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::GBK;

    fn judge(bytes: &[u8], input_state: InputState) -> Decision {
        let output = LineWriter::new(std::io::sink()).unwrap();
        let request = Request::new(bytes, input_state);
        Thanks::new(GBK, Duration::from_secs(1), false, output).respond(&request)
    }

    #[test]
    fn a_drained_read_is_a_text() {
        let (bytes, _, _) = GBK.encode("你好");
        let Decision::Reply(reply) = judge(&bytes, InputState::WouldBlock) else {
            panic!("a reply")
        };
        assert_eq!(&*reply.target, "你好".as_bytes());
        let Body::Bytes(body) = reply.body else {
            panic!("bytes")
        };
        assert_eq!(&*body, b"thank you !");
    }

    #[test]
    fn half_a_character_waits_and_is_replaced_at_last() {
        let (bytes, _, _) = GBK.encode("你好");
        let cut = &bytes[..3];
        let waits = Some(Duration::from_secs(1));
        assert!(
            matches!(judge(cut, InputState::WouldBlock), Decision::NeedMore { gap, .. } if gap == waits)
        );
        for input_state in [InputState::IdleTimeout, InputState::Ended] {
            let Decision::Reply(reply) = judge(cut, input_state) else {
                panic!("a reply")
            };
            assert_eq!(&*reply.target, "你\u{fffd}".as_bytes());
        }
    }

    #[test]
    fn a_text_has_a_limit() {
        let long = vec![b'a'; TEXT_BYTES_MAX + 5];
        let Decision::Reply(reply) = judge(&long, InputState::Arrived) else {
            panic!("a reply")
        };
        assert_eq!(reply.used, TEXT_BYTES_MAX);
    }

    #[test]
    fn looks_at_a_cut_text_run_out_and_then_the_gap_counts() {
        let output = LineWriter::new(std::io::sink()).unwrap();
        let mut thanks = Thanks::new(GBK, Duration::from_secs(1), false, output);
        let mut judge = |bytes, speculative_lookups| {
            thanks.respond(&Request {
                speculative_lookups,
                ..Request::new(bytes, InputState::WouldBlock)
            })
        };
        assert!(matches!(
            judge(b"\xc4", 0),
            Decision::NeedMore {
                speculative: true,
                ..
            }
        ));
        assert!(matches!(
            judge(b"whole", SPECULATIVE_LOOKUPS_MAX - 1),
            Decision::Reply(_)
        ));
        let Decision::NeedMore {
            speculative: false,
            gap,
        } = judge(b"whole", SPECULATIVE_LOOKUPS_MAX)
        else {
            panic!("it waits")
        };
        assert_eq!(gap, Some(Duration::from_secs(1)));
    }

    #[test]
    fn once_takes_one_text() {
        let output = LineWriter::new(std::io::sink()).unwrap();
        let mut thanks = Thanks::new(GBK, Duration::from_secs(1), true, output);
        let request = Request::new(b"hi", InputState::WouldBlock);
        let refusals = [(); 2].map(|()| match thanks.respond(&request) {
            Decision::Reply(reply) => reply.refused,
            other => panic!("{other:?}"),
        });
        assert_eq!(refusals[0], None);
        assert!(refusals[1].is_some());
    }

    #[test]
    fn what_is_no_gbk_is_replaced() {
        let Decision::Reply(reply) = judge(b"a\xff\xffb", InputState::WouldBlock) else {
            panic!("reply")
        };
        assert_eq!(&*reply.target, "a\u{fffd}\u{fffd}b".as_bytes());
    }
}
