//! A download over HTTP: continued where an earlier one stopped if the file is still the same, and
//! tried again when something broke.

use std::ops::ControlFlow;

use http::{HeaderMap, Method, StatusCode};

use super::backoff::{Backoff, FetchError};
use super::http_client::{HttpClient, HttpResponse, Wanted, holds_whole, refusal};
use super::resume::{self, Continuation, Record};
use super::transfer::{Completion, Download};
use super::url::{FolderUrl, HttpUrl};
use crate::failure::{Exit, Failure};

/// Fetches a URL, as often as it takes and may, unless the same is here.
///
/// # Errors
/// The last try's.
pub(super) fn fetch(download: &mut Download<'_>, url: &HttpUrl) -> Result<Completion, Failure> {
    let bounds = download.spec.bounds.as_deref();
    let client = HttpClient::new(download.session, download.time_limits, bounds);
    if let Some(existing) = download.output.existing() {
        // If it can't be told, the download says why.
        let head = client.ask(&Method::HEAD, url, Wanted::Whole);
        if head
            .is_ok_and(|head| head.status == StatusCode::OK && existing.is_same_by(&head.headers))
        {
            return Ok(Completion::Same);
        }
    }
    let record = download.output.resume(&url.identity())?;
    download.tell_notes();
    let args = download.session.args;
    let mut backoff = Backoff::new(args.retries, args.retry_delay);
    let mut fetch = HttpDownload {
        client,
        download,
        url,
        record,
    };
    let mut most_bytes = fetch.download.output.bytes();
    fetch.download.resumed_bytes = most_bytes;
    loop {
        let (failure, retry_after) = match fetch.attempt() {
            Ok(completion) => return Ok(completion),
            Err(FetchError::Permanent(failure)) => return Err(failure),
            Err(FetchError::Transient(failure, retry_after)) => (failure, retry_after),
        };
        if fetch.is_stuck() {
            return Err(failure);
        }
        // Bytes that came for the second time are no progress.
        let bytes = fetch.download.output.bytes();
        if bytes > most_bytes {
            most_bytes = bytes;
            backoff.reset();
        }
        let left = fetch.download.time_limits.left();
        let note = |line: &str| fetch.download.note(line);
        backoff.rest(failure, retry_after, left, note)?;
    }
}

/// One URL's download.
struct HttpDownload<'a, 'b> {
    client: HttpClient<'b>,
    download: &'a mut Download<'b>,
    url: &'a HttpUrl,
    /// The version that the output's bytes are of, if it is known well enough to continue them.
    record: Option<Record>,
}

impl HttpDownload<'_, '_> {
    /// Asks for what is missing until the file is whole.
    fn attempt(&mut self) -> Result<Completion, FetchError> {
        loop {
            let from = self.download.output.bytes();
            let Some(record) = self.record.clone().filter(|_| from > 0) else {
                return self.request_whole();
            };
            let rest = Wanted::After(from, record.validator());
            let response = self.client.ask(&Method::GET, self.url, rest)?;
            let headers = &response.headers;
            match response.status {
                StatusCode::PARTIAL_CONTENT => {
                    let Some(part) = record.continued_by(headers, from) else {
                        return self.restart("the server sends another part than it was asked for");
                    };
                    self.set_modified(&response.headers);
                    if let Some(completion) = self.receive_part(response, from, part)? {
                        return Ok(completion);
                    }
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    let is_length = resume::unsatisfied_length(headers) == Some(from);
                    if is_length && self.is_unchanged(&record, from)? {
                        return Ok(Completion::Whole(from));
                    }
                    return self.restart("the server has no such part");
                }
                status if holds_whole(status) => {
                    self.discard("the file has changed, or the server can't continue it");
                    return self.receive_whole(response);
                }
                status => return Err(refusal(status, headers)),
            }
        }
    }

    fn restart(&mut self, reason: &str) -> Result<Completion, FetchError> {
        self.discard(reason);
        self.request_whole()
    }

    /// The bytes that are here can't be continued.
    fn discard(&mut self, reason: &str) {
        self.record = None;
        self.download.resumed_bytes = 0;
        self.download
            .note(&format!("{reason}; starting again from zero"));
    }

    fn request_whole(&mut self) -> Result<Completion, FetchError> {
        let method = &Method::GET;
        let (url, response) = self.client.ask_anywhere(method, self.url, Wanted::Whole)?;
        // Some lists have no slash behind folders; their servers redirect to it.
        if self.download.spec.bounds.is_some() && FolderUrl::of(&url).is_some() {
            return Ok(Completion::Folder);
        }
        self.receive_whole(response)
    }

    fn receive_whole(&mut self, response: HttpResponse) -> Result<Completion, FetchError> {
        let headers = &response.headers;
        match response.status {
            status if holds_whole(status) => {}
            StatusCode::PARTIAL_CONTENT => {
                let line = "the server sends a part when it was asked for the whole";
                return Err(Failure::new(Exit::Protocol, line).into());
            }
            status => return Err(refusal(status, headers)),
        }
        // A proxy that changes a body may leave the validators of what it was, and not change the next.
        let is_as_stored = response.status == StatusCode::OK;
        let record = Record::of(&self.url.identity(), headers).filter(|_| is_as_stored);
        let length = resume::content_length(headers);
        self.set_modified(&response.headers);
        self.download.output.begin(record.as_ref())?;
        self.download.tell_notes();
        self.record = record;
        self.download.bar.begin(0, length);
        if self.receive(response, u64::MAX)?.is_break() {
            return Ok(Completion::ReaderClosed);
        }
        Ok(Completion::Whole(self.download.output.bytes()))
    }

    /// Appends what is missing, or a part of it: then there is more to ask for.
    fn receive_part(
        &mut self,
        response: HttpResponse,
        from: u64,
        part: Continuation,
    ) -> Result<Option<Completion>, FetchError> {
        self.download.bar.begin(from, part.total);
        if self.receive(response, part.end)?.is_break() {
            return Ok(Some(Completion::ReaderClosed));
        }
        let bytes = self.download.output.bytes();
        if bytes < part.end {
            let line = format!("the download broke off after {bytes} bytes: the part was shorter");
            return Err(FetchError::Transient(
                Failure::new(Exit::Network, line),
                None,
            ));
        }
        Ok((part.total == Some(bytes)).then_some(Completion::Whole(bytes)))
    }

    /// Writes a body, up to where the file may end. `Break` says that whoever reads our output has
    /// closed it.
    fn receive(
        &mut self,
        mut response: HttpResponse,
        end: u64,
    ) -> Result<ControlFlow<()>, FetchError> {
        let output = &mut self.download.output;
        loop {
            match response.body.next() {
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Ok(Some(bytes)) if bytes.len() as u64 > end - output.bytes() => {
                    // Nobody can tell whose these bytes are, nor those before them.
                    output.forbid_resuming()?;
                    let line = "the server sends more than the part it announced";
                    return Err(Failure::new(Exit::Protocol, line).into());
                }
                Ok(Some(bytes)) => {
                    if output.write(bytes)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.download.bar.reach(output.bytes());
                }
                Err(error) => {
                    let what = format!("the download broke off after {} bytes", output.bytes());
                    return Err(error.into_fetch_error(&what));
                }
            }
        }
    }

    /// Whether the server still has the version of which every byte is here.
    fn is_unchanged(&mut self, record: &Record, bytes: u64) -> Result<bool, FetchError> {
        let response = self.client.ask(&Method::HEAD, self.url, Wanted::Whole)?;
        self.set_modified(&response.headers);
        let is_ok = response.status == StatusCode::OK;
        Ok(is_ok && record.is_whole_by(&response.headers, bytes))
    }

    /// The time of a mirror's file must tell later which version it is.
    fn set_modified(&mut self, headers: &HeaderMap) {
        let modified = match self.download.spec.bounds {
            Some(_) => resume::settled_modified(headers),
            None => resume::last_modified(headers),
        };
        self.download.output.set_modified(modified);
    }

    /// Whether another try would send again what can't be taken back.
    fn is_stuck(&self) -> bool {
        self.record.is_none() && self.download.output.is_irrevocable()
    }
}
