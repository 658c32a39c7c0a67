//! The bare protocol: a name comes in, the file's bytes go out. This module decides where a name ends, as
//! clients need not mark its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dot_segments::remove_dot_segments;
use crate::escape::Excerpt;
use crate::file::{LookupError, Notify, OpenFile, TaskResult, ThreadPool};
use crate::limits::{EMPTY_NAME_GAP_SHARE, NAME_BYTES_MAX, NAME_GAP, SPECULATIVE_LOOKUPS_MAX};
use crate::protocol::{Body, Decision, InputState, Protocol, Reply, Request, RequestEnd};
use crate::root::{self, Root};
use crate::telemetry::Reason;

/// Serves a root's files by name.
#[derive(Debug)]
pub struct Bare {
    root: Root,
    /// The silence that ends an unterminated name; with `None` only a line feed and EOF end one.
    name_gap: Option<Duration>,
}

impl Bare {
    /// `name_gap` is `None` for exact names.
    #[must_use]
    pub fn new(root: Root, name_gap: Option<Duration>) -> Self {
        Self { root, name_gap }
    }

    /// Where files are looked up.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where files are looked up.
    pub fn root_mut(&mut self) -> &mut Root {
        &mut self.root
    }

    /// The silence after which an empty line is a name, even where names are exact.
    pub(super) fn empty_name_gap(&self) -> Duration {
        self.name_gap.unwrap_or(NAME_GAP) / EMPTY_NAME_GAP_SHARE
    }

    /// The name has no end yet. If what has come names a file, it is taken for the whole name.
    fn guess(&mut self, request: &Request<'_>, may_become_longer: bool) -> Decision {
        let Some(gap) = self.name_gap else {
            return Decision::NEED_MORE;
        };
        let gap = (!may_become_longer).then_some(gap);
        if request.speculative_lookups >= SPECULATIVE_LOOKUPS_MAX
            || request.bytes.len() > NAME_BYTES_MAX
        {
            return Decision::NeedMore {
                speculative: false,
                gap,
            };
        }
        match self.answer(
            request,
            request.bytes,
            request.bytes.len(),
            RequestEnd::Guess,
        ) {
            // It may be a part of a name. Our own failure will show again when the name is whole.
            Decision::Reply(Reply {
                refused: Some(_), ..
            })
            | Decision::Abort(_) => Decision::NeedMore {
                speculative: true,
                gap,
            },
            decided => decided,
        }
    }

    /// Opens the file that a name names, by the first of its readings that names anything. Returns that
    /// reading, too.
    fn look_up<'n>(
        &mut self,
        name: &'n [u8],
        results: &[TaskResult],
    ) -> (Cow<'n, [u8]>, Result<Arc<OpenFile>, LookupError>) {
        if name.len() > NAME_BYTES_MAX {
            return (
                name.into(),
                Err(LookupError::Refused("the name is too long")),
            );
        }
        first_reading(name, |reading| {
            if self.root.is_hidden(reading) {
                Err(LookupError::Refused(root::HIDDEN))
            } else {
                self.root.find_file(reading, results)
            }
        })
    }

    /// Answers a name that is whole. If it `may_become_longer`, silence doesn't end it: a browser's first
    /// segment must not be taken for a name.
    pub(super) fn respond_or_wait(
        &mut self,
        request: &Request<'_>,
        may_become_longer: bool,
    ) -> Decision {
        let bytes = request.bytes;
        // A CR may stand between the longest name and its line feed.
        let line = &bytes[..bytes.len().min(NAME_BYTES_MAX + 2)];
        if let Some(line_feed) = line.iter().position(|&byte| byte == b'\n') {
            let line = &line[..line_feed];
            let name = line.strip_suffix(b"\r").unwrap_or(line);
            return self.answer(request, name, line_feed + 1, RequestEnd::LineFeed);
        }
        let too_long = match bytes.len() {
            ..=NAME_BYTES_MAX => false,
            len => len > NAME_BYTES_MAX + 1 || !bytes.ends_with(b"\r"),
        };
        match request.input_state {
            _ if too_long => self.answer(request, bytes, bytes.len(), RequestEnd::Guess),
            InputState::Arrived => Decision::NEED_MORE,
            InputState::WouldBlock => self.guess(request, may_become_longer),
            InputState::IdleTimeout => self.answer(request, bytes, bytes.len(), RequestEnd::Guess),
            InputState::Ended => self.answer(request, bytes, bytes.len(), RequestEnd::Eof),
        }
    }

    /// Answers a whole name.
    pub(super) fn answer(
        &mut self,
        request: &Request<'_>,
        name: &[u8],
        used: usize,
        ended_by: RequestEnd,
    ) -> Decision {
        let (tried, found) = self.look_up(name, request.results);
        let (body, refused) = match found {
            Ok(file) => (Body::File(file), None),
            Err(LookupError::Refused(why)) => (Body::empty(), Some(why)),
            Err(LookupError::NoDescriptor) => return Decision::WaitForFd,
            Err(LookupError::WouldBlock | LookupError::OtherMount(_)) => {
                return Decision::Suspend(self.root.open_task(&tried));
            }
            Err(LookupError::Failed(errno)) => {
                log::warn!("\"{}\" can't be opened: {errno}", Excerpt::of_request(name));
                return Decision::Abort(Reason::OpenFailed);
            }
        };
        let target = name[..name.len().min(NAME_BYTES_MAX)].into();
        Decision::Reply(Reply::bare(target, body, refused, used, ended_by))
    }
}

/// What the first reading of a name leads to that names anything, or else the last one; and that
/// reading, without dot segments. A name is read as it stands, and then up to its first TAB: there a
/// Gopher client's selector ends, in front of search terms or of a word of Gopher+ (RFC 1436, 2).
pub(super) fn first_reading<T>(
    name: &[u8],
    mut find: impl FnMut(&[u8]) -> Result<T, LookupError>,
) -> (Cow<'_, [u8]>, Result<T, LookupError>) {
    let whole = remove_dot_segments(name);
    let found = find(&whole);
    match (&found, name.iter().position(|&byte| byte == b'\t')) {
        (Err(LookupError::Refused(why)), Some(tab)) if *why != root::NOT_REGULAR => {
            let selector = remove_dot_segments(&name[..tab]);
            let found = find(&selector);
            (selector, found)
        }
        _ => (whole, found),
    }
}

impl Protocol for Bare {
    fn reopen(&mut self, pool: &ThreadPool, notify: Notify) {
        self.root.reopen(pool, move || notify());
    }

    fn reopened(&mut self) {
        self.root.reopened();
    }

    fn release_idle(&mut self, now: Instant) -> Option<Instant> {
        self.root.release_idle(now)
    }

    fn respond(&mut self, request: &Request<'_>) -> Decision {
        self.root.begin(request.now, request.is_new);
        self.respond_or_wait(request, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GAP: Duration = Duration::from_secs(1);

    fn bare(files: &[&str]) -> (tempfile::TempDir, Bare) {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), b"content").unwrap();
        }
        let root = Root::open(folder.path(), false).unwrap();
        (folder, Bare::new(root, Some(GAP)))
    }

    /// The verdict in a word.
    fn judge(bare: &mut Bare, bytes: &[u8], input_state: InputState) -> &'static str {
        match bare.respond(&Request::new(bytes, input_state)) {
            Decision::Reply(Reply { refused: None, .. }) => "served",
            Decision::Reply(_) => "refused",
            Decision::NeedMore { gap: None, .. } => "waits",
            Decision::NeedMore { gap: Some(_), .. } => "waits for the gap",
            other => panic!("{other:?}"),
        }
    }

    /// A path of so many bytes, none of its components longer than a file name may be.
    fn path_of(bytes: usize) -> String {
        let mut path = "x".repeat(bytes);
        for at in (200..bytes).step_by(200) {
            path.replace_range(at..=at, "/");
        }
        path
    }

    #[test]
    fn the_longest_name_has_1024_bytes_whatever_ends_it() {
        let (_folder, mut bare) = bare(&[&path_of(1023), &path_of(1024)]);
        for (len, expected) in [(1023, "served"), (1024, "served"), (1025, "refused")] {
            let name = path_of(len);
            for end in ["\n", "\r\n"] {
                let line = format!("{name}{end}");
                assert_eq!(
                    judge(&mut bare, line.as_bytes(), InputState::Arrived),
                    expected
                );
            }
            for input_state in [InputState::Ended, InputState::IdleTimeout] {
                assert_eq!(
                    judge(&mut bare, name.as_bytes(), input_state),
                    expected,
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn a_name_too_long_is_refused_as_soon_as_that_is_sure() {
        let (_folder, mut bare) = bare(&[]);
        let name = "x".repeat(1024);
        let mut verdict = |end: &str| {
            judge(
                &mut bare,
                format!("{name}{end}").as_bytes(),
                InputState::WouldBlock,
            )
        };
        assert_eq!(verdict(""), "waits for the gap");
        assert_eq!(verdict("\r"), "waits for the gap", "a line feed may follow");
        assert_eq!(verdict("x"), "refused");
        assert_eq!(verdict("\rx"), "refused");
        assert_eq!(verdict("\r\r\n"), "refused", "one CR is dropped, not two");
    }

    #[test]
    fn only_one_cr_is_dropped_and_only_before_a_line_feed() {
        let (_folder, mut bare) = bare(&["a", "b\r"]);
        assert_eq!(judge(&mut bare, b"a\r\n", InputState::Arrived), "served");
        assert_eq!(judge(&mut bare, b"a\r", InputState::Ended), "refused");
        assert_eq!(judge(&mut bare, b"b\r\r\n", InputState::Arrived), "served");
        assert_eq!(judge(&mut bare, b"b\r\n", InputState::Arrived), "refused");
    }

    #[test]
    fn guesses_run_out_and_then_the_gap_counts() {
        let (_folder, mut bare) = bare(&["name"]);
        let mut guess = |speculative_lookups| {
            let bytes = b"name";
            match bare.respond(&Request {
                speculative_lookups,
                ..Request::new(bytes, InputState::WouldBlock)
            }) {
                Decision::Reply(_) => true,
                Decision::NeedMore {
                    speculative: false,
                    gap: Some(GAP),
                } => false,
                other => panic!("{other:?}"),
            }
        };
        assert!(guess(SPECULATIVE_LOOKUPS_MAX - 1));
        assert!(!guess(SPECULATIVE_LOOKUPS_MAX));
        assert_eq!(judge(&mut bare, b"name", InputState::IdleTimeout), "served");
    }
}
