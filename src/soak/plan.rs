//! From the command line to what is asked of whom: the target, the names, and each request's
//! choices. Everything random is drawn here, from the seed, so that a run can be replayed.

mod targets;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Zipf};

use super::check::Reference;
use super::part::Part;
use super::population::{ClientKind, Mix};
use crate::escape::Escaped;
use crate::limits::{SOAK_ABORT_BYTES_MAX, SOAK_OPEN_FILES_MAX, SOAK_SOURCES_MAX};
use crate::soak::args::SoakArgs;
pub use targets::{RequestTemplate, TargetProtocol, Targets, TlsTarget};

/// What is asked of whom.
#[derive(Debug)]
pub struct Plan {
    /// The server, as the report names it.
    pub target: String,
    /// Its address.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: TargetProtocol,
    /// How TLS is begun with it, if it is.
    pub tls: Option<TlsTarget>,
    /// What may be asked for.
    pub names: Vec<RequestTemplate>,
    /// Another server, which is asked the same.
    pub versus: Option<Targets>,
    /// The names that a split client may ask for: no beginning of one is a file's name.
    pub split_names: Option<Vec<u32>>,
    /// Which part of the run this is.
    pub part: Part,
    /// Favours the first names; each is as likely as the others without it.
    pub zipf: Option<Zipf<f64>>,
    /// Where every choice comes from.
    pub seed: u64,
    /// Who the clients are.
    pub mix: Mix,
    /// The local addresses that clients bind to in turn; none leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// A slow client's rate, in bytes a second.
    pub slow_rate: u64,
    /// A slow client's receive buffer, in bytes.
    pub slow_buffer: usize,
    /// What a split client waits between pieces.
    pub split_pause: Duration,
    /// How long a request waits for the next byte.
    pub timeout: Duration,
}

/// One request's choices.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Who asks.
    pub kind: ClientKind,
    /// For what.
    pub name: u32,
    /// Which of two servers: 0, or 1 for the one that it is compared with.
    pub side: usize,
    /// Between 0 and 1: where a client that breaks off does so, and by what.
    pub variate: f64,
}

impl Plan {
    /// Understands the command line. Nothing is connected yet.
    /// An error is one line that says what won't do.
    pub fn new(args: &SoakArgs, seed: u64) -> Result<Self, String> {
        let Targets {
            server,
            address,
            protocol,
            tls,
            names,
        } = Targets::new(args)?;
        let versus = Targets::versus(args)?;
        if versus
            .as_ref()
            .is_some_and(|other| other.address == address)
        {
            return Err("--versus: it is the same server".into());
        }
        let zipf = args.zipf.map(|s| Zipf::new(names.len() as f64, s));
        let zipf = zipf.transpose();
        let zipf = zipf.map_err(|error| format!("--zipf: {error}"))?;
        Ok(Self {
            target: server,
            address,
            protocol,
            tls,
            names,
            versus,
            part: args.part.unwrap_or(Part::WHOLE),
            split_names: None,
            zipf,
            seed,
            mix: args.mix.clone(),
            sources: args
                .source
                .iter()
                .flat_map(ipnet::IpNet::hosts)
                .take(SOAK_SOURCES_MAX)
                .collect(),
            slow_rate: args.slow_rate,
            // At most what the kernel takes, an int.
            slow_buffer: args.slow_buffer.min(i32::MAX as u64) as usize,
            split_pause: args.split_pause,
            timeout: args.timeout,
        })
    }

    /// How many servers there are.
    pub fn sides(&self) -> usize {
        1 + usize::from(self.versus.is_some())
    }

    /// Where a request goes.
    pub fn address(&self, side: usize) -> SocketAddr {
        match &self.versus {
            Some(versus) if side == 1 => versus.address,
            _ => self.address,
        }
    }

    /// How TLS is begun with a server, if it is.
    pub fn tls(&self, side: usize) -> Option<&TlsTarget> {
        match &self.versus {
            Some(versus) if side == 1 => versus.tls.as_ref(),
            _ => self.tls.as_ref(),
        }
    }

    /// Whether any server is asked by TLS.
    pub fn uses_tls(&self) -> bool {
        (0..self.sides()).any(|side| self.tls(side).is_some())
    }

    /// What a request asks for, as its server is asked.
    pub fn request(&self, choice: Choice) -> &RequestTemplate {
        let names = match &self.versus {
            Some(versus) if choice.side == 1 => &versus.names,
            _ => &self.names,
        };
        &names[choice.name as usize]
    }

    /// The choices of an arrival. Of two servers each two arrivals are a pair that asks both of them for the
    /// same, now the one first and now the other.
    pub fn arrival(&self, number: u64) -> Choice {
        let sides = self.sides() as u64;
        let number = self.part.of_all(number, sides);
        let choice = self.choose(number / sides, None);
        Choice {
            side: (choice.side + number as usize) % self.sides(),
            ..choice
        }
    }

    /// The choices of a client's next request. Of two servers each two clients are a pair, as above.
    pub fn next_of_client(&self, id: u32, number: u64, kind: ClientKind) -> Choice {
        let sides = self.sides() as u64;
        let id = self.part.of_all(id.into(), sides);
        // Each pair has its own sequence, so that a run is replayed client by client.
        let choice = self.choose(((id / sides) << 40) | number, Some(kind));
        Choice {
            side: (id % sides) as usize,
            ..choice
        }
    }

    /// The choices of one request, by its number. A kind that is given already is kept.
    fn choose(&self, number: u64, kind: Option<ClientKind>) -> Choice {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        let at: f64 = rng.random();
        let kind = kind.unwrap_or_else(|| self.mix.at(at));
        let names = self.names.len();
        let name = match &self.zipf {
            // It draws from 1 to the number of names.
            Some(zipf) => (zipf.sample(&mut rng) as usize).clamp(1, names) - 1,
            None => rng.random_range(0..names),
        };
        let name = match (&self.split_names, kind) {
            (Some(fit), ClientKind::Split) => fit[name % fit.len()],
            // Names are fewer than 2^32: each takes memory.
            _ => name as u32,
        };
        Choice {
            kind,
            name,
            variate: rng.random(),
            side: usize::from(rng.random::<bool>()),
        }
    }

    /// Where a client that breaks off does so, in bytes of a body of this length, and whether it
    /// does so by a reset.
    pub fn abort_at(variate: f64, length: Option<u64>) -> (u64, bool) {
        let by_reset = variate < 0.5;
        let point = (variate * 2.0).fract();
        let length = length.unwrap_or(SOAK_ABORT_BYTES_MAX);
        ((point * length as f64) as u64, by_reset)
    }

    /// Finds the file of each name beneath a folder.
    /// An error is one line: a file is missing.
    pub fn references(&self, folder: &Path) -> Result<Vec<Option<Reference>>, String> {
        let are_few = self.names.len() <= SOAK_OPEN_FILES_MAX;
        let find = |name: &RequestTemplate| {
            let path = name.file_in(folder, self.protocol);
            let complain = |error: io::Error| {
                let path = Escaped(path.as_os_str().as_bytes());
                format!("--against: there is nothing to compare with: {path}: {error}")
            };
            let file = File::open(&path).map_err(complain)?;
            let metadata = file.metadata().map_err(complain)?;
            if !metadata.is_file() {
                return Err(complain(io::Error::other("it is no regular file")));
            }
            let open = are_few.then(|| Rc::new(file));
            Ok(Some(Reference::File {
                path,
                length: metadata.len(),
                open,
            }))
        };
        self.names.iter().map(find).collect()
    }

    /// Leaves to split clients only names no beginning of which is a file in the folder: by the
    /// bare protocol such a beginning, arriving alone, is served.
    /// An error is one line: no name is left.
    pub fn keep_split_names_apart(&mut self, folder: &Path) -> Result<(), String> {
        let begins_with_a_file = |name: &RequestTemplate| {
            (1..name.shown.len()).any(|end| {
                let beginning = std::ffi::OsStr::from_bytes(&name.shown[..end]);
                let path = folder.join(beginning.to_string_lossy().trim_start_matches('/'));
                fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
            })
        };
        let fit: Vec<u32> = (0..self.names.len() as u32)
            .filter(|&index| !begins_with_a_file(&self.names[index as usize]))
            .collect();
        if fit.is_empty() {
            return Err(
                "--mix: split clients can't be checked: every name begins with another \
                        file's name, which the server may serve"
                    .into(),
            );
        }
        self.split_names = Some(fit);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::limits::NAME_BYTES_MAX;
    use clap::Parser as _;

    fn plan(words: &str) -> Result<Plan, String> {
        let words = ["carafe", "soak"].into_iter().chain(words.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Soak(args) => Plan::new(&args, args.seed.unwrap_or(1)),
            other => unreachable!("{other:?}"),
        }
    }

    fn shown(plan: &Plan) -> Vec<String> {
        let names = plan.names.iter();
        names
            .map(|name| String::from_utf8_lossy(&name.shown).into_owned())
            .collect()
    }

    fn bytes(words: &str) -> String {
        let plan = plan(words).expect("a plan");
        String::from_utf8_lossy(&plan.names[0].bytes).into_owned()
    }

    #[test]
    fn names_and_urls_become_requests() {
        assert_eq!(bytes("127.0.0.1:1 a"), "a\n");
        assert_eq!(bytes("127.0.0.1:1 a --unterminated"), "a");
        let url = "http://127.0.0.1:1/a%20b?c";
        let head = "GET /a%20b?c HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: carafe-soak\r\n";
        assert_eq!(bytes(url), format!("{head}\r\n"));
        let closing = format!("{head}Connection: close\r\n\r\n");
        assert_eq!(bytes(&format!("{url} --no-keep-alive")), closing);
        let whole = plan("http://127.0.0.1 http://127.0.0.1/b").expect("a plan");
        assert_eq!(shown(&whole), ["/", "/b"]);
        assert_eq!(whole.address.port(), 80);
        assert_eq!(whole.target, "http://127.0.0.1");
        assert_eq!(
            plan("[::1]:7 a").expect("a plan").address.to_string(),
            "[::1]:7"
        );
        for zone in ["%25lo", "%lo"] {
            let local = plan(&format!("http://[fe80::1{zone}]:7/a")).expect("a plan");
            let bytes = String::from_utf8_lossy(&local.names[0].bytes);
            assert!(bytes.contains("\r\nHost: [fe80::1]:7\r\n"), "{bytes}");
        }
        let address = |url: &str| plan(url).expect("a plan").address.to_string();
        assert_eq!(address("http://[::1]:7/a"), "[::1]:7");
        assert_eq!(address("http://[::1]/a"), "[::1]:80");
        assert_eq!(address("http://127.0.0.1:/a"), "127.0.0.1:80");
    }

    #[test]
    fn names_of_a_file_are_taken_once_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list");
        fs::write(&list, "a\r\n\nb\na\nc/d").expect("written");
        let from = format!("--names-from {}", list.display());
        let bare = plan(&format!("127.0.0.1:1 first {from}")).expect("a plan");
        assert_eq!(shown(&bare), ["first", "a", "b", "c/d"]);
        let http = plan(&format!("http://127.0.0.1:1 {from}")).expect("a plan");
        assert_eq!(shown(&http), ["/a", "/b", "/c/d"]);
        fs::write(&list, "a b").expect("written");
        let error = plan(&format!("http://127.0.0.1:1 {from}")).expect_err("a space");
        assert!(error.contains("no space"), "{error}");
    }

    #[test]
    fn what_wont_do_is_told_in_one_line() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for (words, says) in [
            ("127.0.0.1:1", "no name"),
            ("127.0.0.1 a", "TARGET"),
            ("127.0.0.1:1 a --no-keep-alive", "--no-keep-alive"),
            ("127.0.0.1:1 http://127.0.0.1:1/a", "don't mix"),
            ("http://127.0.0.1:1/a b", "http[s]://HOST:PORT/PATH"),
            ("http://127.0.0.1:1/a http://127.0.0.1:2/a", "one server"),
            ("http://user@127.0.0.1:1/a", "http[s]://HOST:PORT/PATH"),
            ("http://127.0.0.1:1/a https://127.0.0.1:1/a", "one server"),
            ("http://127.0.0.1:1/a --tls", "--tls is for"),
            ("127.0.0.1:1 a --no-resumption", "--no-resumption is for"),
            ("http://127.0.0.1:65536/a", "1 to 65535"),
            ("http://[::1]:70000/a", "1 to 65535"),
            ("http://127.0.0.1:1/a --unterminated", "--unterminated"),
            (&format!("127.0.0.1:1 {long}"), "1 to"),
        ] {
            let error = plan(words).expect_err(words);
            assert!(error.contains(says), "{words}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn choices_are_the_seeds() {
        let words = "127.0.0.1:1 a b c d e f g h --mix fast=50%,abort=50%";
        let choices = |seed: &str| -> Vec<_> {
            let plan = plan(&format!("{words} --seed {seed}")).expect("a plan");
            let choices = (0..200).map(|number| plan.choose(number, None));
            choices
                .map(|choice| (choice.kind, choice.name, choice.variate.to_bits()))
                .collect()
        };
        assert_eq!(choices("7"), choices("7"));
        assert_ne!(choices("7"), choices("8"));
        let plan = plan(words).expect("a plan");
        assert_eq!(
            plan.choose(3, Some(ClientKind::Idle)).kind,
            ClientKind::Idle
        );
        assert_eq!(
            plan.choose(3, Some(ClientKind::Idle)).name,
            plan.choose(3, None).name
        );
    }

    #[test]
    fn zipf_prefers_the_first() {
        let counts = |flag: &str| {
            let plan = plan(&format!("127.0.0.1:1 a b c d {flag}")).expect("a plan");
            let mut counts = [0; 4];
            for number in 0..4_000 {
                counts[plan.choose(number, None).name as usize] += 1;
            }
            counts
        };
        let even = counts("--seed 1");
        assert!(
            even.iter().all(|count| (900..1_100).contains(count)),
            "{even:?}"
        );
        let zipf = counts("--zipf --seed 1");
        assert!(zipf.is_sorted_by(|a, b| a > b), "{zipf:?}");
        // By the law 1/1 + 1/2 + 1/3 + 1/4 = 25/12: 48 % and 12 %.
        assert!((1_820..2_020).contains(&zipf[0]), "{zipf:?}");
        assert!((400..560).contains(&zipf[3]), "{zipf:?}");
    }

    #[test]
    fn split_clients_ask_for_no_name_that_begins_with_a_files() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "ab", "b1", "c"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        let mut both = plan("127.0.0.1:1 ab b1 c").expect("a plan");
        both.keep_split_names_apart(folder.path()).expect("two fit");
        assert_eq!(both.split_names, Some(vec![1, 2]));
        for number in 0..100 {
            assert_ne!(both.choose(number, Some(ClientKind::Split)).name, 0);
        }
        let others = (0..100).map(|number| both.choose(number, Some(ClientKind::Fast)).name);
        assert_eq!(others.min(), Some(0));
        let mut none = plan("127.0.0.1:1 ab").expect("a plan");
        let error = none
            .keep_split_names_apart(folder.path())
            .expect_err("none");
        assert!(error.contains("split"), "{error}");
    }

    #[test]
    fn an_abort_is_within_the_body() {
        for variate in [0.0, 0.1, 0.499, 0.5, 0.999] {
            let (at, by_reset) = Plan::abort_at(variate, Some(1000));
            assert!(at < 1000, "{variate}");
            assert_eq!(by_reset, variate < 0.5);
        }
        assert_eq!(Plan::abort_at(0.7, Some(0)).0, 0);
    }
}
