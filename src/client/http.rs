//! One request over HTTP/1.1, redirects followed, and what its failures mean: worth another try or
//! not. The framing of bodies is ureq's, which reports one that ends early.

use std::io;
use std::time::{Duration, SystemTime};

use fluent_uri::Uri;
use http::header::{CONNECTION, IF_RANGE, LOCATION, RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use ureq::{Agent, Body, Timeout};

use super::resume::Validator;
use super::{Failure, retry, url};
use crate::cli::{ClientArgs, Exit};
use crate::escape::{Escaped, EscapedText};
use crate::limits;

/// Why an answer, or the rest of one, didn't come.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It would be the same again.
    Lasting(Failure),
    /// It may be better later: at the server's word, after so long.
    Passing(Failure, Option<Duration>),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Lasting(failure)
    }
}

/// Asks servers, each time on a connection of its own.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    patience: ClientArgs,
}

impl Client {
    pub(super) fn new(patience: ClientArgs) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .proxy(None)
            .user_agent(concat!("carafe/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(patience.connect_timeout))
            .timeout_per_read(Some(patience.timeout))
            .timeout_per_write(Some(patience.timeout))
            .build();
        Self {
            agent: config.into(),
            patience,
        }
    }

    /// Asks for a URL, or for what follows its first bytes if they are still of this version. The
    /// answer's status is not looked at, except for redirects, which are followed.
    ///
    /// # Errors
    /// No connection, no answer in time, one that is no HTTP, or a redirect that leads nowhere.
    pub(super) fn ask(
        &self,
        method: &Method,
        url: &Uri<String>,
        after: Option<(u64, &Validator)>,
    ) -> Result<Response<Body>, Trouble> {
        let mut url = url.clone();
        for _ in 0..=limits::REDIRECTS_MAX {
            let response = self.ask_once(method, &url, after)?;
            let Some(location) = location(&response) else {
                return sound(response);
            };
            url = url::follow(&url, location).map_err(|why| {
                let location = Escaped(location);
                let why = EscapedText(&why).to_string();
                let line = format!("the server redirects to '{location}', which won't do: {why}");
                Failure::new(Exit::Protocol, line)
            })?;
        }
        let max = limits::REDIRECTS_MAX;
        let line = format!("the server redirects more than {max} times");
        Err(Failure::new(Exit::Protocol, line).into())
    }

    fn ask_once(
        &self,
        method: &Method,
        url: &Uri<String>,
        after: Option<(u64, &Validator)>,
    ) -> Result<Response<Body>, Trouble> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(CONNECTION, "close");
        if let Some((bytes, if_range)) =
            after.and_then(|(bytes, validator)| Some((bytes, validator.if_range()?)))
        {
            request = request
                .header(RANGE, format!("bytes={bytes}-"))
                .header(IF_RANGE, if_range);
        }
        let request = request.body(()).map_err(|error| {
            let url = Escaped(url.as_str().as_bytes());
            Failure::usage(format!("'{url}' won't do: {error}"))
        })?;
        self.agent
            .run(request)
            .map_err(|error| self.broken("no answer came", error))
    }

    /// The failure of a body that came so far.
    pub(super) fn cut_off(&self, came: u64, error: io::Error) -> Trouble {
        let what = format!("the download broke off after {came} bytes");
        self.broken(&what, ureq::Error::from(error))
    }

    fn broken(&self, what: &str, error: ureq::Error) -> Trouble {
        let passing = |line| Trouble::Passing(Failure::new(Exit::Network, line), None);
        let text = |error: &dyn std::fmt::Display| EscapedText(&error.to_string()).to_string();
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                let limit = humantime::format_duration(self.patience.connect_timeout);
                passing(format!("cannot connect: nobody answers within {limit}"))
            }
            ureq::Error::Timeout(_) => {
                let limit = humantime::format_duration(self.patience.timeout);
                passing(format!("{what}: nothing moved for {limit}"))
            }
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => passing(
                format!("{what}: the server closed the connection too early"),
            ),
            ureq::Error::Io(error) => passing(format!("{what}: {}", text(&error))),
            ureq::Error::HostNotFound => {
                Failure::new(Exit::Network, "cannot resolve the host").into()
            }
            error @ (ureq::Error::Protocol(_)
            | ureq::Error::LargeResponseHeader(..)
            | ureq::Error::BadUri(_)
            | ureq::Error::Http(_)) => {
                Failure::new(Exit::Protocol, format!("{what}: {}", text(&error))).into()
            }
            // Among others, an end of file within the line of a chunk's size.
            error => passing(format!("{what}: {}", text(&error))),
        }
    }
}

/// Where to ask instead: RFC 9110, 15.4. The other 3xx are for other requests than ours.
fn location(response: &Response<Body>) -> Option<&[u8]> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect);
    location.map(http::HeaderValue::as_bytes)
}

/// A coding that nobody asked for would end up in the file.
fn sound(response: Response<Body>) -> Result<Response<Body>, Trouble> {
    let is_known = |value: &http::HeaderValue| {
        let coding = value.as_bytes().trim_ascii();
        coding.eq_ignore_ascii_case(b"chunked")
    };
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    if codings.all(is_known) {
        return Ok(response);
    }
    let line = "the server uses a Transfer-Encoding that is not chunked";
    Err(Failure::new(Exit::Protocol, line).into())
}

/// The failure of an answer that holds no file. Three of them say that they will pass.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let failure = Failure::new(Exit::NoFile, format!("the server says {status}"));
    match status.as_u16() {
        502..=504 => Trouble::Passing(failure, retry::retry_after(headers, SystemTime::now())),
        _ => Trouble::Lasting(failure),
    }
}
