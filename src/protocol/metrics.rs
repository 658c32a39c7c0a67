//! The metrics' own port: HTTP/1.1 with two pages, one request a connection.

use std::time::SystemTime;

use ::http::StatusCode;

use crate::http::head::{Head, TEXT};
use crate::http::request::Version;
use crate::limits::{METRICS_HEAD_BYTES_MAX, METRICS_HEADERS_MAX};
use crate::protocol::{Body, Decision, Protocol, Reply, Request, RequestEnd};
use crate::telemetry::exposition::CONTENT_TYPE;

/// Answers `GET /metrics` with a page that is made when it is asked for, and `GET /healthz` by
/// whether the server is stopping.
#[derive(Debug)]
pub struct Metrics<F> {
    render: F,
}

/// What is answered.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: StatusCode, body: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.to_owned(),
        }
    }
}

impl<F: FnMut() -> String> Metrics<F> {
    /// `render` makes the page.
    pub fn new(render: F) -> Self {
        Self { render }
    }

    fn answer(&mut self, method: &str, target: &str, draining: bool) -> Answer {
        let path = target.split('?').next().unwrap_or(target);
        let is_read = matches!(method, "GET" | "HEAD");
        match (is_read, path, draining) {
            (true, "/metrics", _) => Answer {
                content_type: CONTENT_TYPE,
                ..Answer::text(StatusCode::OK, &(self.render)())
            },
            (true, "/healthz", false) => Answer::text(StatusCode::OK, "ok\n"),
            (true, "/healthz", true) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            (_, "/metrics" | "/healthz", _) => {
                Answer::text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n")
            }
            _ => Answer::text(StatusCode::NOT_FOUND, "here are /metrics and /healthz\n"),
        }
    }
}

impl<F: FnMut() -> String> Protocol for Metrics<F> {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let mut fields = [httparse::EMPTY_HEADER; METRICS_HEADERS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        let parsed = head.parse(request.bytes);
        let is_too_long = request.bytes.len() > METRICS_HEAD_BYTES_MAX;
        let (answer, used, ended_by) = match (parsed, head.method, head.path) {
            (Ok(httparse::Status::Complete(used)), Some(method), Some(target)) => {
                let ended_by = match method {
                    "GET" | "HEAD" => RequestEnd::LineFeed,
                    // Its body may follow.
                    _ => RequestEnd::Unread,
                };
                let answer = self.answer(method, target, request.draining);
                (answer, used, ended_by)
            }
            (Ok(_), ..) if !is_too_long => {
                return Decision::NEED_MORE;
            }
            _ => {
                let answer = Answer::text(StatusCode::BAD_REQUEST, "not a request\n");
                (answer, request.bytes.len(), RequestEnd::Unread)
            }
        };
        // To HEAD no body is sent, whatever the status (RFC 9110, section 9.3.2).
        let is_head = request.bytes.starts_with(b"HEAD ");
        let Answer {
            status,
            content_type,
            body,
        } = answer;
        let mut head = Head::new(status, SystemTime::now())
            .content(content_type, body.len() as u64)
            .field("Cache-Control", "no-store");
        if status == StatusCode::METHOD_NOT_ALLOWED {
            head = head.field("Allow", "GET, HEAD");
        }
        let head = head.connection(Version::Http11, false).finish();
        Decision::Reply(Reply {
            target: Box::default(),
            head,
            body: if is_head {
                Body::empty()
            } else {
                Body::Bytes(body.into_bytes().into())
            },
            refused: None,
            used,
            ended_by,
            keep_alive: false,
            status: Some(status),
            http_log: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::InputState;

    /// Head and body, or None while there is none.
    fn ask(bytes: &[u8], draining: bool) -> Option<(String, Vec<u8>)> {
        let mut metrics = Metrics::new(|| "the page".to_owned());
        match metrics.respond(&Request {
            draining,
            ..Request::new(bytes, InputState::Arrived)
        }) {
            Decision::Reply(Reply {
                head,
                body: Body::Bytes(body),
                keep_alive: false,
                ..
            }) => Some((String::from_utf8(head).unwrap(), body.to_vec())),
            Decision::NeedMore { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_request_has_its_answer() {
        let cases: [(&[u8], bool, &str, &[u8]); 9] = [
            (
                b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                false,
                "200",
                b"the page",
            ),
            (
                b"GET /metrics?name=x HTTP/1.0\r\n\r\n",
                true,
                "200",
                b"the page",
            ),
            (b"GET /healthz HTTP/1.1\r\n\r\n", false, "200", b"ok\n"),
            (b"GET /healthz HTTP/1.1\r\n\r\n", true, "503", b"draining\n"),
            (
                b"POST /metrics HTTP/1.1\r\n\r\n",
                false,
                "405",
                b"GET and HEAD only\n",
            ),
            (
                b"GET / HTTP/1.1\r\n\r\n",
                false,
                "404",
                b"here are /metrics and /healthz\n",
            ),
            (
                b"GET /metrics/ HTTP/1.1\r\n\r\n",
                false,
                "404",
                b"here are /metrics and /healthz\n",
            ),
            (b"metrics\r\n", false, "400", b"not a request\n"),
            (b"\x16\x03\x01\x02\x00", false, "400", b"not a request\n"),
        ];
        for (request, draining, status, body) in cases {
            let shown = String::from_utf8_lossy(request).into_owned();
            let (head, answered) = ask(request, draining).unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{shown}: {head}"
            );
            let length = format!("\r\nContent-Length: {}\r\n", body.len());
            assert!(head.contains(&length), "{shown}: {head}");
            assert!(head.ends_with("\r\nConnection: close\r\n\r\n"), "{head}");
            assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), status == "405");
            assert_eq!(answered, body, "{shown}");
        }
    }

    #[test]
    fn head_is_get_without_the_body() {
        for (target, draining) in [
            ("/metrics", false),
            ("/healthz", false),
            ("/healthz", true),
            ("/", false),
        ] {
            let request = |method| format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let (head, body) = ask(request("HEAD").as_bytes(), draining).unwrap();
            let (full, page) = ask(request("GET").as_bytes(), draining).unwrap();
            assert_eq!((body.len(), page.is_empty()), (0, false), "{target}");
            let lines = |head: &str| -> Vec<String> {
                let lines = head.lines().filter(|line| !line.starts_with("Date"));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(lines(&head), lines(&full), "{target}");
        }
    }

    #[test]
    fn a_part_of_a_request_waits_for_the_rest_and_not_for_ever() {
        let mut request = b"GET /metrics HTTP/1.1\r\nLong: ".to_vec();
        assert!(ask(&request, false).is_none());
        request.resize(METRICS_HEAD_BYTES_MAX, b'x');
        assert!(ask(&request, false).is_none());
        request.push(b'x');
        let (head, _) = ask(&request, false).unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    }
}
