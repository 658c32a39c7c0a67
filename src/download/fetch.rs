//! A download over HTTP: continued where an earlier one stopped if the file is still the same, and
//! tried again when something broke.

use std::thread;
use std::time::Duration;

use http::{Method, StatusCode};

use super::Failure;
use super::http::{Client, Response, refusal};
use super::resume::{self, Record, Rest};
use super::retry::{Retries, Trouble};
use super::transfer::{Came, Download};
use super::url::HttpUrl;
use crate::failure::Exit;
use crate::units;

/// Fetches a URL, as often as it takes and may.
///
/// # Errors
/// The last try's.
pub(super) fn fetch(download: &mut Download<'_>, url: &HttpUrl) -> Result<Came, Failure> {
    let held = download.target.earlier(&url.identity())?;
    download.tell_notes();
    let mut retries = Retries::new(
        download.session.args.retries,
        download.session.args.retry_delay,
    );
    let mut fetch = Fetch {
        client: Client::new(download.patience),
        download,
        url,
        held,
    };
    let mut most_bytes = fetch.download.target.bytes();
    fetch.download.resumed_bytes = most_bytes;
    loop {
        let (failure, asked) = match fetch.attempt() {
            Ok(came) => return Ok(came),
            Err(Trouble::Lasting(failure)) => return Err(failure),
            Err(Trouble::Passing(failure, asked)) => (failure, asked),
        };
        if fetch.is_stuck() {
            return Err(failure);
        }
        // Bytes that came for the second time are no progress.
        let bytes = fetch.download.target.bytes();
        if bytes > most_bytes {
            most_bytes = bytes;
            retries.begin_anew();
        }
        let left = fetch.download.patience.left();
        let is_in_time = |rest: &Duration| left.is_none_or(|left| *rest < left);
        let Some(rest) = retries.next(asked).filter(is_in_time) else {
            return Err(failure);
        };
        let (line, (nth, count)) = (failure.line, retries.position());
        let rest_text = units::duration(rest);
        let note = format!("{line}; trying again in {rest_text} ({nth} of {count})");
        fetch.download.note(&note);
        thread::sleep(rest);
    }
}

/// One URL's download.
struct Fetch<'a, 'b> {
    client: Client,
    download: &'a mut Download<'b>,
    url: &'a HttpUrl,
    /// Of what version the target's bytes are, if that is known well enough to continue them.
    held: Option<Record>,
}

impl Fetch<'_, '_> {
    /// Asks for what is missing until the file is whole.
    fn attempt(&mut self) -> Result<Came, Trouble> {
        loop {
            let from = self.download.target.bytes();
            let Some(record) = self.held.clone().filter(|_| from > 0) else {
                return self.fresh();
            };
            let after = Some((from, record.validator()));
            let response = self.client.ask(&Method::GET, self.url, after)?;
            let headers = &response.headers;
            match response.status {
                StatusCode::PARTIAL_CONTENT => {
                    let Some(rest) = record.continued_by(headers, from) else {
                        return self.afresh("the server sends another part than it was asked for");
                    };
                    self.download
                        .target
                        .set_modified(resume::last_modified(headers));
                    if let Some(came) = self.append(response, from, rest)? {
                        return Ok(came);
                    }
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    let is_length = resume::unsatisfied_length(headers) == Some(from);
                    if is_length && self.is_unchanged(&record, from)? {
                        return Ok(Came::Whole(from));
                    }
                    return self.afresh("the server has no such part");
                }
                StatusCode::OK => {
                    self.lose("the file has changed, or the server can't continue it");
                    return self.whole(response);
                }
                status => return Err(refusal(status, headers)),
            }
        }
    }

    fn afresh(&mut self, why: &str) -> Result<Came, Trouble> {
        self.lose(why);
        self.fresh()
    }

    /// What is here of the file is of no use.
    fn lose(&mut self, why: &str) {
        self.held = None;
        self.download.resumed_bytes = 0;
        self.download
            .note(&format!("{why}; starting again from zero"));
    }

    fn fresh(&mut self) -> Result<Came, Trouble> {
        let response = self.client.ask(&Method::GET, self.url, None)?;
        self.whole(response)
    }

    fn whole(&mut self, response: Response) -> Result<Came, Trouble> {
        let headers = &response.headers;
        match response.status {
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT => {
                let line = "the server sends a part when it was asked for the whole";
                return Err(Failure::new(Exit::Protocol, line).into());
            }
            status => return Err(refusal(status, headers)),
        }
        let record = Record::of(&self.url.identity(), headers);
        let length = resume::content_length(headers);
        self.download
            .target
            .set_modified(resume::last_modified(headers));
        self.download.target.begin(record.as_ref())?;
        self.download.tell_notes();
        self.held = record;
        self.download.progress.begin(0, length);
        if self.receive(response, u64::MAX)? {
            return Ok(Came::Enough);
        }
        Ok(Came::Whole(self.download.target.bytes()))
    }

    /// Adds the rest, or a part of it: then there is more to ask for.
    fn append(
        &mut self,
        response: Response,
        from: u64,
        rest: Rest,
    ) -> Result<Option<Came>, Trouble> {
        self.download.progress.begin(from, rest.total);
        if self.receive(response, rest.end)? {
            return Ok(Some(Came::Enough));
        }
        let came = self.download.target.bytes();
        if came < rest.end {
            let line = format!("the download broke off after {came} bytes: the part was shorter");
            return Err(Trouble::Passing(Failure::new(Exit::Network, line), None));
        }
        Ok((rest.total == Some(came)).then_some(Came::Whole(came)))
    }

    /// Writes what comes, up to where the file may end; whether the reader of our output has had
    /// enough of it.
    fn receive(&mut self, mut response: Response, end: u64) -> Result<bool, Trouble> {
        let target = &mut self.download.target;
        loop {
            match response.body.next() {
                Ok(None) => return Ok(false),
                Ok(Some(bytes)) if bytes.len() as u64 > end - target.bytes() => {
                    // Whose bytes these are, and those before them, nobody can tell.
                    target.forget()?;
                    let line = "the server sends more than the part it announced";
                    return Err(Failure::new(Exit::Protocol, line).into());
                }
                Ok(Some(bytes)) => {
                    if target.write(bytes)?.is_break() {
                        return Ok(true);
                    }
                    self.download.progress.reach(target.bytes());
                }
                Err(fault) => {
                    let bytes = target.bytes();
                    return Err(
                        fault.trouble(&format!("the download broke off after {bytes} bytes"))
                    );
                }
            }
        }
    }

    /// Whether the server still has the version of which every byte is here.
    fn is_unchanged(&mut self, record: &Record, bytes: u64) -> Result<bool, Trouble> {
        let response = self.client.ask(&Method::HEAD, self.url, None)?;
        let modified = resume::last_modified(&response.headers);
        self.download.target.set_modified(modified);
        let is_ok = response.status == StatusCode::OK;
        Ok(is_ok && record.is_whole_by(&response.headers, bytes))
    }

    /// Whether another try would send again what can't be taken back.
    fn is_stuck(&self) -> bool {
        self.held.is_none() && self.download.target.is_past_recall()
    }
}
