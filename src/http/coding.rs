//! Content codings, in which a file may lie beside itself, and which of them a client takes (RFC 9110,
//! sections 8.4.1 and 12.5.3).

use std::cmp::Reverse;

use super::accept;
use super::fields::Fields;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All, those first that are shorter as a rule.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// What a file's name has behind it if the file is in this coding.
    #[must_use]
    pub fn suffix(self) -> &'static [u8] {
        match self {
            Self::Brotli => b".br",
            Self::Zstd => b".zst",
            Self::Gzip => b".gz",
        }
    }

    /// The line that tells a client of it.
    #[must_use]
    pub fn field(self) -> &'static [u8] {
        match self {
            Self::Brotli => b"Content-Encoding: br\r\n",
            Self::Zstd => b"Content-Encoding: zstd\r\n",
            Self::Gzip => b"Content-Encoding: gzip\r\n",
        }
    }

    /// By its name (the last of these is old, and means the same as gzip).
    fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () => None,
        }
    }
}

/// What a client takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Codings that it would rather have than none, the best first.
    pub codings: Vec<Coding>,
    /// Whether it takes what is in no coding.
    pub identity: bool,
}

/// What the Accept-Encoding fields of a request say. Who says nothing gets no coding, though any would
/// do; who names some would rather have one of them, unless no coding is named with a greater weight.
#[must_use]
pub fn accepted(fields: &Fields<'_>) -> Accepted {
    let mut weights = Coding::ALL.map(|coding| (coding, None));
    let (mut identity, mut any) = (None, None);
    for (name, weight) in fields.all("accept-encoding").flat_map(accept::members) {
        if name == b"*" {
            any = Some(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity = Some(weight);
        } else if let Some(named) = Coding::named(name) {
            let mut weights = weights.iter_mut();
            if let Some((_, place)) = weights.find(|(coding, _)| *coding == named) {
                *place = Some(weight);
            }
        }
    }
    let weights = weights.map(|(coding, weight)| (coding, weight.or(any).unwrap_or(0)));
    let least = identity.unwrap_or(0).max(1);
    let mut better: Vec<_> = weights
        .into_iter()
        .filter(|&(_, weight)| weight >= least)
        .collect();
    better.sort_by_key(|&(_, weight)| Reverse(weight));
    Accepted {
        codings: better.into_iter().map(|(coding, _)| coding).collect(),
        identity: identity.or(any) != Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Gzip, Zstd};

    #[test]
    fn who_gets_what() {
        let none: &[Coding] = &[];
        for (field, codings, identity) in [
            ("", none, true),
            ("identity", none, true),
            ("deflate, compress", none, true),
            ("gzip", &[Gzip], true),
            ("GZip", &[Gzip], true),
            ("x-gzip", &[Gzip], true),
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip], true),
            ("gzip;q=1.0, br;q=0.5", &[Gzip, Brotli], true),
            ("gzip;q=0.001", &[Gzip], true),
            ("gzip;q=0", none, true),
            ("gzip;q=0, br", &[Brotli], true),
            ("gzip ; Q=0.3 ,zstd;q=0.2", &[Gzip, Zstd], true),
            ("gzip;q=2", none, true),
            ("*", &[Brotli, Zstd, Gzip], true),
            ("*;q=0.5, gzip", &[Gzip, Brotli, Zstd], true),
            ("*;q=0", none, false),
            ("*;q=0, gzip", &[Gzip], false),
            ("*;q=0, identity", none, true),
            ("*;q=0, identity;q=0.1, gzip;q=0.1", &[Gzip], true),
            ("identity;q=0", none, false),
            ("identity;q=0, gzip;q=0.1", &[Gzip], false),
            ("identity, gzip;q=0.9", none, true),
            ("identity;q=0.5, gzip;q=0.9, br;q=0.4", &[Gzip], true),
            // What browsers ask for films by.
            ("identity;q=1, *;q=0", none, true),
        ] {
            let fields = Fields::from_iter([("Accept-Encoding", field.as_bytes())]);
            let expected = Accepted {
                codings: codings.into(),
                identity,
            };
            assert_eq!(accepted(&fields), expected, "{field:?}");
        }
        let lines = [
            ("accept-encoding", &b"gzip;q=0.5"[..]),
            ("Accept-Encoding", b"br"),
        ];
        assert_eq!(accepted(&Fields::from_iter(lines)).codings, [Brotli, Gzip]);
        let nothing = accepted(&Fields::default());
        assert_eq!((nothing.codings.len(), nothing.identity), (0, true));
    }
}
