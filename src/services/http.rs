//! The shared port: HTTP/1.1 where the first line says so, the bare protocol otherwise. This room
//! turns a request into an answer; what a request says and what a head looks like is told by
//! [`crate::http`].

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use ::http::StatusCode;

use crate::escape::Excerpt;
use crate::http::date::{Clock, Now};
use crate::http::head::Head;
use crate::http::mime::ContentTypes;
use crate::http::range::{self, Multipart, Ranges};
use crate::http::request::{
    Guess, Method, Parsed, Problem, Request as Message, RequestBody, Version, may_be_http, parse,
};
use crate::http::target::{self, Target};
use crate::http::validators::{Decision, Validators, evaluate};
use crate::limits::NAME_BYTES_MAX;
use crate::service::{
    Body, Brought, Exchange, Moment, OpenFile, Outcome, Part, Reply, Request, RequestEnd, Service,
    Then, Verdict,
};
use crate::services::bare::Bare;
use crate::services::folders::{Folders, Listed, Look};
use crate::services::root::{self, Found, LookupError, Root};

/// Serves a root's files to clients of either protocol.
#[derive(Debug)]
pub struct Http {
    bare: Bare,
    types: ContentTypes,
    /// The file that stands for a folder.
    index: Option<Box<[u8]>>,
    /// Whether folders are listed, and the lists under way.
    folders: Option<Folders>,
    /// Answers carry what an access log says of them.
    is_logged: bool,
    clock: Clock,
}

/// What is answered, before it is known what becomes of the connection.
struct Answer {
    status: StatusCode,
    head: Head,
    body: Body,
    outcome: Outcome,
}

impl Answer {
    fn new(status: StatusCode, head: Head, body: Body) -> Self {
        let outcome = Outcome::Complete;
        Self {
            status,
            head,
            body,
            outcome,
        }
    }

    fn error(status: StatusCode, why: &'static str, now: Now) -> Self {
        let (head, page) = Head::error(status, now);
        Self {
            outcome: Outcome::Refused(why),
            ..Self::new(status, head, Body::Bytes(page.into()))
        }
    }
}

impl Http {
    /// `index` names the file that stands for a folder; without `folders` none is listed.
    #[must_use]
    pub fn new(
        bare: Bare,
        types: ContentTypes,
        index: Option<Box<[u8]>>,
        folders: Option<Folders>,
    ) -> Self {
        Self {
            bare,
            types,
            index,
            folders,
            is_logged: false,
            clock: Clock::default(),
        }
    }

    /// Whether answers carry what an access log says of them.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.is_logged = is_logged;
    }

    /// Where files are looked up.
    pub fn root_mut(&mut self) -> &mut Root {
        self.bare.root_mut()
    }

    /// Where clients find this server, for Gopher menus.
    pub fn set_address(&mut self, host: String, port: u16) {
        if let Some(folders) = &mut self.folders {
            folders.set_address(host, port);
        }
    }

    /// A folder's menu for a Gopher client, where the bare protocol alone would refuse it.
    fn name(&mut self, request: &Request<'_>) -> Verdict {
        let reply = match self.bare.judge(request) {
            Verdict::Reply(
                reply @ Reply {
                    outcome: Outcome::Refused(root::NOT_REGULAR | root::EMPTY_NAME),
                    ..
                },
            ) => reply,
            verdict => return verdict,
        };
        let Some(folders) = &mut self.folders else {
            return Verdict::Reply(reply);
        };
        let name = &reply.subject;
        let folder = match folder(&mut self.bare, name, request.brought) {
            Ok(folder) => folder,
            Err(LookupError::Cold) => return Verdict::Errand(self.bare.root().errand(name)),
            Err(_) => return Verdict::Reply(reply),
        };
        match folders.menu(self.bare.root(), name, folder, request.brought) {
            Listed::Whole { bytes, .. } => Verdict::Reply(Reply {
                body: Body::Bytes(bytes),
                outcome: Outcome::Complete,
                ..reply
            }),
            Listed::GoesOn => Verdict::Busy,
            Listed::Cold(errand) => Verdict::Errand(errand),
            Listed::Failed(LookupError::NoDescriptor) => Verdict::Later,
            Listed::Failed(_) => Verdict::Reply(reply),
        }
    }

    /// HTTP/0.9: a method, a path, and the file's bytes.
    fn simple(&mut self, request: &Request<'_>, path: &[u8]) -> Verdict {
        let Some(name) = target::decode(path) else {
            return self.bare.judge(request);
        };
        let end = request.bytes.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(request.bytes.len(), |end| end + 1);
        self.bare
            .answer(request, &name.bytes, used, RequestEnd::LineFeed)
    }

    /// A request with a head.
    fn message(&mut self, request: &Request<'_>) -> Verdict {
        let now = self.clock.at(SystemTime::now());
        match parse(request.bytes) {
            Parsed::Partial => Verdict::NeedMore {
                guessed: false,
                quiet: None,
            },
            Parsed::Bad(problem) => self.refuse(request, problem, now),
            Parsed::Whole {
                used,
                request: message,
            } => {
                let answer = match message.problem() {
                    Some(problem) => Ok(Answer::error(problem.status(), why(problem), now)),
                    None => self.answer(&message, request.brought, now),
                };
                match answer {
                    Ok(answer) => self.reply(request, &message, used, answer),
                    Err(verdict) => verdict,
                }
            }
        }
    }

    /// An answer to what is no request. Where the next one would begin isn't known.
    fn refuse(&self, request: &Request<'_>, problem: Problem, now: Now) -> Verdict {
        let answer = Answer::error(problem.status(), why(problem), now);
        let bytes = request.bytes.trim_ascii_start();
        let line = bytes.split(|&byte| byte == b'\n').next();
        let line = line.unwrap_or_default().trim_ascii_end();
        let head = answer.head.connection(Version::Http11, false).finish();
        Verdict::Reply(Reply {
            subject: cut(line),
            head,
            // Whatever else it is, to HEAD no body is sent (RFC 9110, section 9.3.2).
            body: match line.starts_with(b"HEAD ") {
                true => Body::empty(),
                false => answer.body,
            },
            outcome: answer.outcome,
            used: request.bytes.len(),
            ended_by: RequestEnd::Unread,
            then: Then::Close,
            status: Some(answer.status),
            exchange: self.is_logged.then(|| {
                Box::new(Exchange {
                    line: cut(line),
                    ..Exchange::default()
                })
            }),
        })
    }

    fn reply(
        &self,
        request: &Request<'_>,
        message: &Message<'_>,
        used: usize,
        answer: Answer,
    ) -> Verdict {
        // A body that nobody wants isn't read: the connection ends.
        let has_body = message.body != RequestBody::None;
        let is_last = request.draining || request.is_crowded;
        let keep_alive = message.keep_alive && !has_body && !is_last;
        let head = answer.head.connection(message.version, keep_alive).finish();
        let field = |name| message.fields.first(name).map(cut);
        Verdict::Reply(Reply {
            subject: cut(message.line),
            head,
            body: match message.method {
                Method::Head => Body::empty(),
                _ => answer.body,
            },
            outcome: answer.outcome,
            used,
            ended_by: match has_body {
                true => RequestEnd::Unread,
                false => RequestEnd::LineFeed,
            },
            then: match keep_alive {
                true => Then::ReadOn,
                false => Then::Close,
            },
            status: Some(answer.status),
            exchange: self.is_logged.then(|| {
                Box::new(Exchange {
                    line: cut(message.line),
                    referer: field("referer"),
                    agent: field("user-agent"),
                })
            }),
        })
    }

    /// The answer to a request that can be read; the error is a verdict of another kind.
    fn answer(
        &mut self,
        message: &Message<'_>,
        brought: &[Brought],
        now: Now,
    ) -> Result<Answer, Verdict> {
        if message.method == Method::Options {
            let head = Head::new(StatusCode::NO_CONTENT, now).allow();
            return Ok(Answer::new(StatusCode::NO_CONTENT, head, Body::empty()));
        }
        let Target::Resource { path, query } = message.target else {
            return Ok(Answer::error(StatusCode::BAD_REQUEST, "no path", now));
        };
        let Some(name) = target::decode(path) else {
            return Ok(Answer::error(StatusCode::BAD_REQUEST, "not a path", now));
        };
        match self.bare.root_mut().find_or_top(&name.bytes, brought) {
            Ok(Found::File(file)) => Ok(self.file(&file, &name.bytes, message, now)),
            Ok(Found::Folder(folder)) if name.is_folder => {
                self.folder(folder, &name.bytes, query, message, brought, now)
            }
            Ok(Found::Folder(_)) => {
                let location = target::folder_location(&name.bytes, query);
                let status = StatusCode::MOVED_PERMANENTLY;
                let (head, page) = Head::error(status, now);
                let body = Body::Bytes(page.into());
                Ok(Answer::new(status, head.location(&location), body))
            }
            Err(error) => self.failed(error, &name.bytes, now),
        }
    }

    fn folder(
        &mut self,
        folder: OwnedFd,
        name: &[u8],
        query: Option<&[u8]>,
        message: &Message<'_>,
        brought: &[Brought],
        now: Now,
    ) -> Result<Answer, Verdict> {
        if let Some(index) = &self.index {
            let index = [name, index].concat();
            match self.bare.root_mut().find(&index, brought) {
                Ok(Found::File(file)) => return Ok(self.file(&file, &index, message, now)),
                Ok(Found::Folder(_)) | Err(LookupError::Refused(_)) => {}
                Err(error) => return self.failed(error, &index, now),
            }
        }
        let Some(folders) = &mut self.folders else {
            return Ok(Answer::error(StatusCode::NOT_FOUND, "a folder", now));
        };
        let look = Look::new(query, message.fields.all("accept"));
        match folders.list(self.bare.root(), name, folder, look, brought) {
            Listed::Whole {
                bytes,
                content_type,
            } => {
                let status = StatusCode::OK;
                let head = Head::new(status, now)
                    .content(content_type, bytes.len() as u64)
                    .field("Vary", "Accept");
                Ok(Answer::new(status, head, Body::Bytes(bytes)))
            }
            Listed::GoesOn => Err(Verdict::Busy),
            Listed::Cold(errand) => Err(Verdict::Errand(errand)),
            Listed::Failed(error) => self.failed(error, name, now),
        }
    }

    /// To the client all refusals are the same: there is no such file.
    fn failed(&self, error: LookupError, name: &[u8], now: Now) -> Result<Answer, Verdict> {
        match error {
            LookupError::Refused(why) => Ok(Answer::error(StatusCode::NOT_FOUND, why, now)),
            LookupError::NoDescriptor => Err(Verdict::Later),
            LookupError::Cold | LookupError::Elsewhere(_) => {
                Err(Verdict::Errand(self.bare.root().errand(name)))
            }
            LookupError::Failed(errno) => {
                log::warn!("\"{}\" can't be opened: {errno}", Excerpt::of_request(name));
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Ok(Answer::error(status, "open failed", now))
            }
        }
    }

    fn file(&self, file: &Rc<OpenFile>, name: &[u8], message: &Message<'_>, now: Now) -> Answer {
        let is_plain = !message.fields.has_condition_or_range();
        let kept = file.fields().filter(|_| is_plain);
        if let Some(fields) = kept.and_then(OnceCell::get) {
            return whole(file, fields, now);
        }
        let validators = Validators::new(file.version(), now.time);
        let length = file.length();
        let content_type = self.types.of(name);
        let wants_range = match evaluate(message.method, &message.fields, &validators) {
            Decision::NotModified => {
                let status = StatusCode::NOT_MODIFIED;
                let head = Head::new(status, now).validators(&validators);
                return Answer::new(status, head, Body::empty());
            }
            Decision::PreconditionFailed => {
                let status = StatusCode::PRECONDITION_FAILED;
                return Answer::error(status, "a condition does not hold", now);
            }
            Decision::Proceed { range } => range && message.method == Method::Get,
        };
        let range = message.fields.only("range").filter(|_| wants_range);
        let partial = |content_type: &str, length| {
            Head::new(StatusCode::PARTIAL_CONTENT, now)
                .validators(&validators)
                .accept_ranges()
                .content(content_type, length)
        };
        match range.map_or(Ranges::Whole, |range| range::parse(range, length)) {
            Ranges::Whole => {
                let fields = Head::fields_of(&validators, &content_type, length);
                let answer = whole(file, &fields, now);
                if let Some(kept) = kept.filter(|_| validators.is_strong()) {
                    // It was empty a moment ago.
                    let _ = kept.set(fields);
                }
                answer
            }
            Ranges::One(range) => {
                let part_length = range.end - range.start;
                let part = part_of(file, range.start, part_length);
                let head = partial(&content_type, part_length).content_range(&range, length);
                let body = Body::Parts([part].into());
                Answer::new(StatusCode::PARTIAL_CONTENT, head, body)
            }
            Ranges::Many(ranges) => {
                let nonce = rand::random();
                let multipart = Multipart::new(&ranges, length, &content_type, nonce);
                let parts = multipart.parts.into_iter().map(|part| match part {
                    range::Part::Bytes(bytes) => Part::Bytes(bytes.into()),
                    range::Part::File { offset, length } => part_of(file, offset, length),
                });
                let body = Body::Parts(parts.collect());
                let head = partial(&multipart.content_type, multipart.length);
                Answer::new(StatusCode::PARTIAL_CONTENT, head, body)
            }
            Ranges::Unsatisfiable => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let answer = Answer::error(status, "no such range", now);
                Answer {
                    head: answer.head.unsatisfied_range(length),
                    ..answer
                }
            }
        }
    }
}

impl Service for Http {
    fn reopen(&mut self) {
        self.bare.reopen();
    }

    fn rest(&mut self, now: Instant) -> Option<Instant> {
        self.bare.rest(now)
    }

    fn judge(&mut self, request: &Request<'_>) -> Verdict {
        if request.is_later {
            return self.message(request);
        }
        if request.bytes.starts_with(TLS_HANDSHAKE) {
            return refuse_tls(request);
        }
        match may_be_http(request.bytes) {
            Guess::Http => self.message(request),
            Guess::Simple(path) => self.simple(request, path),
            // It may be long before its line ends, longer than a name.
            Guess::Maybe { whole_method: true } if request.moment != Moment::Ended => {
                Verdict::NeedMore {
                    guessed: false,
                    quiet: None,
                }
            }
            Guess::Empty if !matches!(request.moment, Moment::Quiet | Moment::Ended) => {
                Verdict::NeedMore {
                    guessed: false,
                    quiet: Some(self.bare.empty_name_gap()),
                }
            }
            Guess::Name | Guess::Maybe { .. } | Guess::Empty => self.name(request),
        }
    }
}

/// How a TLS record of a handshake begins: its type, and the major version that all have (RFC 8446,
/// section 5.1). No name that begins so is served: a browser that was given `https://` would wait
/// until the name is taken to be whole, and its log line would be noise.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// Whoever says hello in TLS sees the end at once, and the log says why.
fn refuse_tls(request: &Request<'_>) -> Verdict {
    Verdict::Reply(Reply::bare(
        Box::default(),
        Body::empty(),
        Outcome::Refused("a TLS client"),
        request.bytes.len(),
        RequestEnd::Unread,
    ))
}

/// An answer with all of a file.
fn whole(file: &Rc<OpenFile>, fields: &[u8], now: Now) -> Answer {
    let status = StatusCode::OK;
    let head = Head::new(status, now).fields(fields);
    Answer::new(status, head, Body::File(Rc::clone(file)))
}

fn part_of(file: &Rc<OpenFile>, start: u64, length: u64) -> Part {
    Part::File {
        file: Rc::clone(file),
        start,
        length,
    }
}

/// The folder of a name that the bare protocol refused, if it is one.
fn folder(bare: &mut Bare, name: &[u8], brought: &[Brought]) -> Result<OwnedFd, LookupError> {
    match bare.root_mut().find_or_top(name, brought)? {
        Found::Folder(folder) => Ok(folder),
        Found::File(_) => Err(LookupError::Refused("not a folder")),
    }
}

fn why(problem: Problem) -> &'static str {
    match problem {
        Problem::MethodNotAllowed | Problem::MethodUnknown => "a method that is not served",
        Problem::Expectation => "an unknown expectation",
        _ => "not a request",
    }
}

/// What a log line shows of bytes from a client.
fn cut(bytes: &[u8]) -> Box<[u8]> {
    bytes[..bytes.len().min(NAME_BYTES_MAX)].into()
}
