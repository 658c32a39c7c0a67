//! HTTP/1.1: turns a request into an answer. What a request says and what a head looks like is told by
//! [`crate::http`].

mod answer;
mod pages;
mod representation;

use std::sync::Arc;

use ::http::StatusCode;

use crate::dot_segments::remove_dot_segments;
use crate::escape::Excerpt;
use crate::file::version::stamp_clock;
use crate::file::{Digests, ListError, Lookup, LookupError, OpenFile, TaskResult};
use crate::http::accept;
use crate::http::custom_fields::CustomFields;
use crate::http::date::{Clock, Now};
use crate::http::entity_tag::TagKey;
use crate::http::fields::NO_FIELD;
use crate::http::head::Head;
use crate::http::listing::{ListingStyle, tar};
use crate::http::method::Method;
use crate::http::mime::ContentTypes;
use crate::http::page::Hint;
use crate::http::request::{
    Expectation, Parsed, Request as Message, RequestBody, RequestError, Version, parse,
};
use crate::http::target::{self, Target};
use crate::limits::{
    FORWARDED_FOR_BYTES_MAX, HTTP_BODY_GAP, HTTP_FIELDS_MAX, HTTP_FIELDS_USUAL,
    HTTP_SHORT_BODY_BYTES_MAX, LISTING_RETRY_SECONDS, NAME_BYTES_MAX,
};
use crate::protocol::{Body, Decision, InputState, Reply, Request, RequestEnd};
use crate::root::archive::Archive;
use crate::root::listing::Listings;
use crate::root::{self, Root};
use crate::telemetry::response::HttpLogFields;

use answer::{Answer, moved, no_sniff};

pub use pages::{ErrorPage, Pages};

/// Answers requests for a root's files.
#[derive(Debug)]
pub struct Http {
    types: ContentTypes,
    /// The file that stands for a folder.
    index: Option<Box<[u8]>>,
    /// Whether folders are listed, and the lists under way.
    folders: Option<Listings>,
    /// Answers carry what an access log says of them.
    is_logged: bool,
    /// Proxies are trusted: what they say of their clients is logged.
    has_proxies: bool,
    clock: Clock,
    tags: TagKey,
    /// Of what files' tags are made, if they are made of what files hold.
    digests: Option<Digests>,
    custom_fields: CustomFields,
    pages: Pages,
    /// Files are sent in a coding where one lies beside them.
    is_precompressed: bool,
    tls: TlsPolicy,
}

/// What is asked of clients where certificates are configured.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicy {
    /// Who comes without TLS is sent to it, or away.
    pub is_required: bool,
    /// Strict-Transport-Security (RFC 6797, section 6.1), for those who come by TLS.
    pub hsts: Option<Box<str>>,
}

/// A request that was understood, and what its answer is made of.
#[derive(Clone, Copy)]
struct Asked<'a> {
    message: &'a Message<'a>,
    /// What tasks for it came to.
    results: &'a [TaskResult],
    now: Now,
}

/// The file that stands for a folder, with its name.
enum Index {
    /// There is none.
    None,
    File(Vec<u8>, Arc<OpenFile>),
    Failed(Vec<u8>, LookupError),
}

impl Http {
    /// `index` names the file that stands for a folder; without `folders` none is listed. Entity tags
    /// are made with `tags`.
    #[must_use]
    pub fn new(
        types: ContentTypes,
        index: Option<Box<[u8]>>,
        mut folders: Option<Listings>,
        tags: TagKey,
    ) -> Self {
        if let (Some(folders), Some(index)) = (&mut folders, &index) {
            folders.set_index(index);
        }
        Self {
            types,
            index,
            folders,
            is_logged: false,
            has_proxies: false,
            clock: Clock::default(),
            tags,
            digests: None,
            custom_fields: CustomFields::default(),
            pages: Pages::default(),
            is_precompressed: false,
            tls: TlsPolicy::default(),
        }
    }

    /// Makes files' tags of what they hold.
    pub fn set_digests(&mut self, digests: Option<Digests>) {
        self.digests = digests;
    }

    /// Adds fields to answers.
    pub fn set_custom_fields(&mut self, fields: CustomFields) {
        self.custom_fields = fields;
    }

    /// Has pages stand for others.
    pub fn set_pages(&mut self, pages: Pages) {
        self.pages = pages;
    }

    /// Sends files in a coding that the client takes, where such a file lies beside them.
    pub fn set_precompressed(&mut self, is_precompressed: bool) {
        self.is_precompressed = is_precompressed;
    }

    /// What is asked of clients beside a request.
    pub fn set_tls(&mut self, policy: TlsPolicy) {
        self.tls = policy;
    }

    /// Whether the request is to come by TLS, and has not.
    pub(super) fn must_come_by_tls(&self, request: &Request<'_>) -> bool {
        self.tls.is_required && !request.is_encrypted
    }

    /// Whether answers carry what an access log says of them.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.is_logged = is_logged;
    }

    /// Whether answers carry what proxies say of their clients; they must be logged then.
    pub fn set_proxies(&mut self, has_proxies: bool) {
        self.has_proxies = has_proxies;
    }

    /// The lists of folders, if there are any.
    pub(super) fn listings(&mut self) -> Option<&mut Listings> {
        self.folders.as_mut()
    }

    /// Where clients find this server, as Gopher menus say it. Without it, that is where they have.
    pub fn set_address(&mut self, host: String, port: u16) {
        if let Some(folders) = &mut self.folders {
            folders.set_address(host, port);
        }
    }

    /// What lists call the root.
    pub fn set_top(&mut self, name: &[u8]) {
        if let Some(folders) = &mut self.folders {
            folders.set_top(name);
        }
    }

    /// A request with a head.
    pub(super) fn message(&mut self, root: &mut Root, request: &Request<'_>) -> Decision {
        let now = self.clock.at(stamp_clock());
        let (mut usual, mut all) = ([NO_FIELD; HTTP_FIELDS_USUAL], Vec::new());
        let mut parsed = parse(request.bytes, &mut usual);
        if matches!(parsed, Parsed::Bad(RequestError::HeadTooLarge)) {
            all.resize(HTTP_FIELDS_MAX, NO_FIELD);
            parsed = parse(request.bytes, &mut all);
        }
        let (used, message) = match &parsed {
            Parsed::Partial => return Decision::NEED_MORE,
            Parsed::Bad(error) => return self.refuse(request, *error, now),
            Parsed::Whole { used, request } => (*used, request),
        };
        if must_wait_for_body(request, used, message) {
            return Decision::NeedMore {
                speculative: false,
                gap: Some(HTTP_BODY_GAP),
            };
        }
        let asked = Asked {
            message,
            results: request.results,
            now,
        };
        let answer = match message.error() {
            Some(error) => Ok(Answer::error(error.status(), why(error), now)),
            None if self.must_come_by_tls(request) => Ok(to_https(message, now)),
            None => self.answer(root, asked),
        };
        match answer.and_then(|answer| self.in_place(root, answer, asked)) {
            Ok(answer) => self.reply(request, message, used, answer),
            Err(verdict) => verdict,
        }
    }

    /// For whom a request is, as proxies say it one behind the other.
    fn forwarded_for(&self, message: &Message<'_>) -> Option<Box<[u8]>> {
        let fields = || message.fields.all("x-forwarded-for");
        if !self.has_proxies || fields().next().is_none() {
            return None;
        }
        let all = fields().collect::<Vec<_>>().join(&b',');
        let kept = all.len().saturating_sub(FORWARDED_FOR_BYTES_MAX);
        Some(all[kept..].into())
    }

    /// An answer to what is no request. Where the next one would begin isn't known.
    fn refuse(&self, request: &Request<'_>, error: RequestError, now: Now) -> Decision {
        let answer = Answer::error(error.status(), why(error), now).readable(
            || false,
            b"",
            None,
            &self.custom_fields,
        );
        let bytes = request.bytes.trim_ascii_start();
        let line = bytes.split(|&byte| byte == b'\n').next();
        let line = line.unwrap_or_default().trim_ascii_end();
        let head = answer.head.fields(self.custom_fields.of_all());
        let head = head.fields(self.custom_fields.of_origin(|| None));
        let head = head.connection(Version::Http11, false).finish();
        Decision::Reply(Reply {
            target: truncate_for_log(line),
            head,
            // Whatever else it is, to HEAD no body is sent (RFC 9110, section 9.3.2).
            body: if line.starts_with(b"HEAD ") {
                Body::empty()
            } else {
                answer.body
            },
            refused: answer.refused,
            used: request.bytes.len(),
            ended_by: RequestEnd::Unread,
            keep_alive: false,
            status: Some(answer.status),
            http_log: self.is_logged.then(Box::default),
        })
    }

    fn reply(
        &self,
        request: &Request<'_>,
        message: &Message<'_>,
        used: usize,
        answer: Answer,
    ) -> Decision {
        // A short body is skipped. Where a longer one ends nobody will see: the connection does.
        let (used, has_body) = match short_body_end(used, message) {
            Some(end) if end <= request.bytes.len() => (end, false),
            _ => (used, message.body != RequestBody::None),
        };
        let is_last = request.draining || request.is_crowded;
        let keep_alive = message.keep_alive && !has_body && !is_last;
        let accepts_html = || message.fields.all("accept").any(accept::names_html);
        let answer = answer.readable(
            accepts_html,
            message.target.path(),
            self.index.as_deref(),
            &self.custom_fields,
        );
        let head = if answer.has_custom_fields {
            answer.head
        } else {
            answer.head.fields(self.custom_fields.of_all())
        };
        let origin = || message.fields.first("origin");
        let head = head.fields(self.custom_fields.of_origin(origin));
        let hsts = self.tls.hsts.as_deref().filter(|_| request.is_encrypted);
        let head = match hsts {
            Some(hsts) => head.field("Strict-Transport-Security", hsts),
            None => head,
        };
        let head = head.connection(message.version, keep_alive).finish();
        let field = |name| message.fields.first(name).map(truncate_for_log);
        Decision::Reply(Reply {
            target: truncate_for_log(message.line),
            head,
            body: match message.method {
                Method::Head => Body::empty(),
                _ => answer.body,
            },
            refused: answer.refused,
            used,
            ended_by: if has_body {
                RequestEnd::Unread
            } else {
                RequestEnd::LineFeed
            },
            keep_alive,
            status: Some(answer.status),
            http_log: self.is_logged.then(|| {
                Box::new(HttpLogFields {
                    referer: field("referer"),
                    agent: field("user-agent"),
                    forwarded_for: self.forwarded_for(message),
                })
            }),
        })
    }

    /// The answer to a request that can be read; the error is a verdict of another kind.
    fn answer(&mut self, root: &mut Root, asked: Asked<'_>) -> Result<Answer, Decision> {
        if asked.message.method == Method::Options {
            let mut head = Head::new(StatusCode::NO_CONTENT, asked.now).allow();
            if asked.message.fields.has("access-control-request-method") {
                head = head.fields(self.custom_fields.of_preflight());
            }
            return Ok(Answer::new(StatusCode::NO_CONTENT, head, Body::empty()));
        }
        let Target::Resource { path, query } = asked.message.target else {
            return Ok(Answer::error(StatusCode::BAD_REQUEST, "no path", asked.now));
        };
        let Some(name) = target::decode(path) else {
            return Ok(Answer::error(
                StatusCode::BAD_REQUEST,
                "not a path",
                asked.now,
            ));
        };
        // Where relative references lead from, to whoever asks.
        let base = || remove_dot_segments(path);
        let found = root.find_or_root(&name.bytes, asked.results);
        if self.pages.clean_urls
            && let Some(answer) = self.clean(root, &found, &name, (&base(), query), asked)?
        {
            return Ok(answer);
        }
        match found {
            Ok(Lookup::File(file)) => self.file(root, &file, &name.bytes, asked),
            Ok(Lookup::Directory(_)) if name.is_folder => {
                self.folder(root, &name, (&base(), query), asked)
            }
            // What would not be shown isn't told.
            Ok(Lookup::Directory(_)) => {
                let folder = [&name.bytes, &b"/"[..]].concat();
                match self.index(root, &folder, asked) {
                    Index::Failed(index, error) => {
                        return Self::failed(root, error, &index, asked.now);
                    }
                    Index::None if self.folders.is_none() => {
                        return Ok(Answer::error(StatusCode::NOT_FOUND, "a folder", asked.now));
                    }
                    Index::File(..) | Index::None => {}
                }
                Ok(moved(
                    target::folder_location(&base(), &name, query),
                    asked.now,
                ))
            }
            Err(error) => Self::failed(root, error, &name.bytes, asked.now),
        }
    }

    fn folder(
        &mut self,
        root: &mut Root,
        folder: &target::Name<'_>,
        (path, query): (&[u8], Option<&[u8]>),
        asked: Asked<'_>,
    ) -> Result<Answer, Decision> {
        let name = &*folder.bytes;
        match self.index(root, name, asked) {
            Index::File(index, file) => return self.file(root, &file, &index, asked),
            Index::Failed(index, error) => return Self::failed(root, error, &index, asked.now),
            Index::None => {}
        }
        let Some(folders) = &mut self.folders else {
            let answer = Answer::error(StatusCode::NOT_FOUND, "a folder", asked.now);
            let hint = match path {
                b"/" => Hint::NoFirstPage,
                _ => Hint::None,
            };
            return Ok(Answer {
                hint: Some(hint),
                ..answer
            });
        };
        if !target::is_plain(path, folder) {
            return Ok(moved(
                target::folder_location(path, folder, query),
                asked.now,
            ));
        }
        let style = ListingStyle::new(query, asked.message.fields.all("accept"));
        let format = style.format.clone();
        let as_tar = tar::is_asked_for(query);
        let listed = if as_tar {
            folders.plan(root, name, asked.results)
        } else {
            folders.list(root, name, style, asked.results)
        };
        match listed.map_err(Decision::Suspend)? {
            Ok(plan) if as_tar => Ok(self.archive(Archive::new(root, name, plan), asked)),
            Ok(list) => {
                let status = StatusCode::OK;
                let head = Head::new(status, asked.now)
                    .content(format.content_type(), list.bytes().len() as u64);
                let head = no_sniff(head, &self.custom_fields).field("Vary", "Accept");
                Ok(Answer::new(status, head, Body::List(list)))
            }
            Err(ListError::TooMany) => {
                let why = "a folder with too many entries for a tar";
                let answer = Answer::error(StatusCode::FORBIDDEN, why, asked.now);
                Ok(Answer {
                    hint: Some(Hint::TooManyForTar),
                    ..answer
                })
            }
            Err(ListError::NoMemory) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let answer = Answer::error(status, "no memory for a list", asked.now);
                let retry = LISTING_RETRY_SECONDS.to_string();
                Ok(answer.with_field("Retry-After", &retry))
            }
            Err(ListError::Failed(error)) => Self::failed(root, error, name, asked.now),
        }
    }

    /// The index of a folder whose name ends in a slash. One that is there and can't be served is
    /// answered like any such file; a list in its place would show what it was to cover.
    fn index(&self, root: &mut Root, folder: &[u8], asked: Asked<'_>) -> Index {
        let Some(index) = &self.index else {
            return Index::None;
        };
        let name = [folder, index].concat();
        match root.find(&name, asked.results) {
            Ok(Lookup::File(file)) => Index::File(name, file),
            Ok(Lookup::Directory(_)) | Err(LookupError::Refused(root::NO_SUCH_FILE)) => Index::None,
            Err(error) => Index::Failed(name, error),
        }
    }

    /// What a path without an extension brings, or where one with it leads.
    fn clean(
        &self,
        root: &mut Root,
        found: &Result<Lookup, LookupError>,
        name: &target::Name<'_>,
        (path, query): (&[u8], Option<&[u8]>),
        asked: Asked<'_>,
    ) -> Result<Option<Answer>, Decision> {
        let is_plain = target::is_plain(path, name);
        let index = self.index.as_deref();
        match found {
            Ok(Lookup::File(_)) if is_plain => {
                let Some(short) = pages::without_extension(&name.bytes, index) else {
                    return Ok(None);
                };
                // What would lead to another file keeps its address.
                if !short.ends_with(b"/") && Self::page(root, short, asked)?.is_some() {
                    return Ok(None);
                }
                let location = target::location_beside(short, query);
                Ok(Some(moved(&location, asked.now)))
            }
            Ok(Lookup::Directory(_)) | Err(LookupError::Refused(_)) if !name.is_folder => {
                let page = [&name.bytes, pages::EXTENSION].concat();
                let Some(file) = Self::page(root, &page, asked)? else {
                    return Ok(None);
                };
                if is_plain && pages::is_index(&page, index) {
                    return Ok(Some(moved(target::location_beside(b"/", query), asked.now)));
                }
                self.file(root, &file, &page, asked).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The answer that is given in the place of one that brings no file.
    fn in_place(
        &self,
        root: &mut Root,
        mut answer: Answer,
        asked: Asked<'_>,
    ) -> Result<Answer, Decision> {
        if answer.hint.is_none() {
            return Ok(answer);
        }
        let spa = self.pages.spa.as_deref();
        let spa = spa.filter(|_| answer.status == StatusCode::NOT_FOUND);
        if let Some(spa) = spa {
            if accept::is_navigation(&asked.message.fields)
                && let Some(file) = Self::page(root, spa, asked)?
            {
                let answer = self.file(root, &file, spa, asked)?;
                return Ok(answer.with_field("Vary", pages::SPA_VARIES_BY));
            }
            answer = answer.with_field("Vary", pages::SPA_VARIES_BY);
        }
        let Some(name) = self.pages.of_error(answer.status) else {
            return Ok(answer);
        };
        let Some(file) = Self::page(root, name, asked)? else {
            return Ok(answer);
        };
        Ok(Answer {
            head: answer.head.content(&self.types.of(name), file.length()),
            body: Body::File(file),
            hint: None,
            ..answer
        })
    }

    /// A file that is to stand for something else, if there is one now.
    fn page(
        root: &mut Root,
        name: &[u8],
        asked: Asked<'_>,
    ) -> Result<Option<Arc<OpenFile>>, Decision> {
        match root.find(name, asked.results) {
            Ok(Lookup::File(file)) => Ok(Some(file)),
            Ok(Lookup::Directory(_)) | Err(LookupError::Refused(_)) => Ok(None),
            Err(error) => Self::failed(root, error, name, asked.now).map(|_| None),
        }
    }

    /// To the client all refusals are the same: there is no such file.
    fn failed(root: &Root, error: LookupError, name: &[u8], now: Now) -> Result<Answer, Decision> {
        match error {
            LookupError::Refused(why) => Ok(Answer::error(StatusCode::NOT_FOUND, why, now)),
            LookupError::NoDescriptor => Err(Decision::WaitForFd),
            LookupError::WouldBlock | LookupError::OtherMount(_) => {
                Err(Decision::Suspend(root.open_task(name)))
            }
            LookupError::Failed(errno) => {
                log::warn!("\"{}\" can't be opened: {errno}", Excerpt::of_request(name));
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Ok(Answer::error(status, "open failed", now))
            }
        }
    }
}

/// Where a body ends that is worth waiting for: it is short, its length is known, and the client sends
/// it without being asked to (RFC 9110, section 10.1.1).
fn short_body_end(used: usize, message: &Message<'_>) -> Option<usize> {
    match (message.body, message.expectation) {
        (RequestBody::Length(length @ ..=HTTP_SHORT_BODY_BYTES_MAX), Expectation::None) => {
            Some(used + length as usize) // It is short.
        }
        _ => None,
    }
}

/// Whether the rest of a short body may still come.
fn must_wait_for_body(request: &Request<'_>, used: usize, message: &Message<'_>) -> bool {
    let end = short_body_end(used, message);
    let is_missing = end.is_some_and(|end| request.bytes.len() < end);
    is_missing
        && !matches!(
            request.input_state,
            InputState::IdleTimeout | InputState::Ended
        )
}

/// The same is found by TLS, on this very port, if the client says by what name it has come.
fn to_https(message: &Message<'_>, now: Now) -> Answer {
    let (Some(host), Target::Resource { path, query }) = (message.host, message.target) else {
        return Answer::error(StatusCode::FORBIDDEN, WITHOUT_TLS, now);
    };
    let query = query.map(|query| [b"?", query].concat());
    let location = [b"https://", host, path, &query.unwrap_or_default()].concat();
    moved(location, now)
}

/// Why one is refused that comes without TLS, where that is required.
pub(super) const WITHOUT_TLS: &str = "a client without TLS";

fn why(error: RequestError) -> &'static str {
    match error {
        RequestError::MethodNotAllowed | RequestError::MethodUnknown => {
            "a method that is not served"
        }
        RequestError::Expectation => "an unknown expectation",
        _ => "not a request",
    }
}

/// What a log line shows of bytes from a client.
fn truncate_for_log(bytes: &[u8]) -> Box<[u8]> {
    bytes[..bytes.len().min(NAME_BYTES_MAX)].into()
}
