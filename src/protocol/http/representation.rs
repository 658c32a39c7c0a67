//! What is sent of something that was found: all of it or parts, in a coding or as it is, or that a
//! client has it already (RFC 9110, sections 8.8, 13 and 14).

use std::borrow::Cow;
use std::sync::Arc;

use ::http::StatusCode;

use super::answer::{self, Answer};
use super::{Asked, Http};
use crate::file::{LookupError, OpenFile, Pieces};
use crate::http::coding::{self, Coding};
use crate::http::date::Now;
use crate::http::disposition::disposition;
use crate::http::entity_tag::TagKey;
use crate::http::head::Head;
use crate::http::listing::tar;
use crate::http::method::Method;
use crate::http::range::{self, Multipart, Ranges};
use crate::http::request::Request as Message;
use crate::http::validators::{Evaluation, Validators, evaluate};
use crate::protocol::{Body, Decision, Part};
use crate::random::random;
use crate::root::Root;
use crate::root::archive::Archive;

/// What is known of something that may be sent in parts.
#[derive(Clone, Copy)]
struct Described<'a> {
    validators: &'a Validators,
    content_type: &'a str,
    /// In bytes.
    length: u64,
    coding: Option<Coding>,
}

/// What every answer with a file says whose form depends on what the client takes (RFC 9110, section
/// 12.5.5).
const VARY_BY_CODING: &[u8] = b"Vary: Accept-Encoding\r\n";

impl Http {
    /// A file, in the coding that the client takes best.
    pub(super) fn file(
        &self,
        root: &mut Root,
        file: &Arc<OpenFile>,
        name: &[u8],
        asked: Asked<'_>,
    ) -> Result<Answer, Decision> {
        if !self.is_precompressed {
            return Ok(self.representation(file, name, None, asked));
        }
        let accepted = coding::accepted(&asked.message.fields);
        for coding in accepted.codings {
            match root.find_sibling(name, file, coding, asked.results) {
                Ok(Some(sibling)) => {
                    return Ok(self.representation(&sibling, name, Some(coding), asked));
                }
                // The file itself has a descriptor, and does as well.
                Ok(None) | Err(LookupError::NoDescriptor) => {}
                Err(error) => {
                    let sibling = [name, coding.suffix()].concat();
                    Self::failed(root, error, &sibling, asked.now)?;
                }
            }
        }
        if accepted.identity {
            return Ok(self.representation(file, name, None, asked));
        }
        let why = "not in a coding that is accepted";
        Ok(self.error_of_file(StatusCode::NOT_ACCEPTABLE, why, asked.now))
    }

    /// An error that depends on what would have been sent.
    fn error_of_file(&self, status: StatusCode, why: &'static str, now: Now) -> Answer {
        let answer = Answer::error(status, why, now);
        if self.is_precompressed {
            return Answer {
                head: answer.head.fields(VARY_BY_CODING),
                ..answer
            };
        }
        answer
    }

    /// What is sent of a file that is known by this name: itself, or, in a coding, its sibling.
    fn representation(
        &self,
        file: &Arc<OpenFile>,
        name: &[u8],
        coding: Option<Coding>,
        asked: Asked<'_>,
    ) -> Answer {
        let Asked { message, now, .. } = asked;
        let is_plain = !message.fields.has_condition_or_range();
        let variant = coding.map_or(0, |coding| 1 + coding as u8);
        if is_plain && let Some(fields) = file.header_fields(name, variant) {
            return answer::whole(file, fields, now);
        }
        let mut validators = Validators::new(&file.facts(), &self.tags, now.time);
        if let Some(digests) = &self.digests {
            let digest = digests.of(file);
            let tag = digest.map(|digest| TagKey::of_content(&digest, coding));
            validators = validators.with_tag(tag);
        }
        let length = file.length();
        let content_type = self.types.of(name);
        let mut others = self.custom_fields.of_file(name);
        if self.is_precompressed {
            others.to_mut().extend_from_slice(VARY_BY_CODING);
        }
        let whole = Described {
            validators: &validators,
            content_type: &content_type,
            length,
            coding,
        };
        let body = |parts: Vec<Part>| Body::Parts(Arc::clone(file), parts.into());
        if let Some(answer) = self.of_a_part(&whole, &mut others, body, asked) {
            return answer;
        }
        let fields = Head::fields_of(&validators, &content_type, length, &others);
        let answer = answer::whole(file, &fields, now);
        if is_plain && validators.are_final() {
            file.keep_header_fields(name, variant, &fields);
        }
        answer
    }

    /// The answer with parts of something, or with none of it, as conditions and ranges ask for. `None`: all
    /// of it is to be sent. `others` are more fields of any such answer.
    fn of_a_part(
        &self,
        whole: &Described<'_>,
        others: &mut Cow<'_, [u8]>,
        body: impl Fn(Vec<Part>) -> Body,
        asked: Asked<'_>,
    ) -> Option<Answer> {
        let Asked { message, now, .. } = asked;
        let Described {
            validators,
            content_type,
            length,
            coding,
        } = *whole;
        let ranges = match evaluate(message.method, &message.fields, validators) {
            Evaluation::NotModified => {
                let status = StatusCode::NOT_MODIFIED;
                let head = Head::new(status, now).validators(validators);
                return Some(Answer::of_file(status, head.fields(others), Body::empty()));
            }
            Evaluation::PreconditionFailed => {
                let status = StatusCode::PRECONDITION_FAILED;
                return Some(self.error_of_file(status, "a condition does not hold", now));
            }
            Evaluation::Proceed { range: true } if message.method == Method::Get => {
                ranges_of(message, length, coding)
            }
            Evaluation::Proceed { .. } => Ranges::Whole,
        };
        if let Some(coding) = coding {
            others.to_mut().extend_from_slice(coding.field());
        }
        let partial = |content_type: &str, length| {
            Head::new(StatusCode::PARTIAL_CONTENT, now)
                .validators(validators)
                .accept_ranges()
                .content(content_type, length)
                .fields(others)
        };
        match ranges {
            Ranges::Whole => None,
            Ranges::One(range) => {
                let part_length = range.end - range.start;
                let head = partial(content_type, part_length).content_range(&range, length);
                let body = body(vec![(Box::default(), range)]);
                Some(Answer::of_file(StatusCode::PARTIAL_CONTENT, head, body))
            }
            Ranges::Many(ranges) => {
                let nonce = random();
                let multipart = Multipart::new(&ranges, length, content_type, nonce);
                let head = partial(&multipart.content_type, multipart.length);
                let body = body(multipart.parts);
                Some(Answer::of_file(StatusCode::PARTIAL_CONTENT, head, body))
            }
            Ranges::Unsatisfiable => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let answer = self.error_of_file(status, "no such range", now);
                Some(Answer {
                    head: answer.head.unsatisfied_range(length),
                    ..answer
                })
            }
        }
    }

    /// A folder in one piece.
    pub(super) fn archive(&self, archive: Archive, asked: Asked<'_>) -> Answer {
        let tag = archive.digest();
        let tag = tag.map(|digest| self.tags.tag_of_digest(digest));
        let validators = Validators::of_tag(tag, asked.now.time);
        let length = archive.length();
        let disposition = disposition(&[archive.name(), b".tar"].concat());
        let others = [self.custom_fields.of_all(), disposition.as_bytes()].concat();
        let archive: Arc<dyn Pieces> = Arc::new(archive);
        let body = |parts: Vec<Part>| Body::Pieces(Arc::clone(&archive), parts.into());
        let whole = Described {
            validators: &validators,
            content_type: tar::CONTENT_TYPE,
            length,
            coding: None,
        };
        match self.of_a_part(&whole, &mut Cow::from(&others), body, asked) {
            Some(answer) => answer,
            None => {
                let fields = Head::fields_of(&validators, tar::CONTENT_TYPE, length, &others);
                let head = Head::new(StatusCode::OK, asked.now).fields(&fields);
                Answer::of_file(
                    StatusCode::OK,
                    head,
                    body(vec![(Box::default(), 0..length)]),
                )
            }
        }
    }
}

/// Which parts of so many bytes are asked for.
fn ranges_of(message: &Message<'_>, length: u64, coding: Option<Coding>) -> Ranges {
    let range = message.fields.only("range");
    match range.map_or(Ranges::Whole, |range| range::parse(range, length)) {
        // Nobody could tell whether each of the parts is in the coding, or the body around them.
        Ranges::Many(_) if coding.is_some() => Ranges::Whole,
        ranges => ranges,
    }
}
