//! What a file's content is, judged by its name (RFC 9110, section 8.3).

use std::collections::HashMap;
use std::str::FromStr;

use mime_guess::mime::{self, Mime};

use super::fields::is_token;

/// What nothing is known about. Browsers save it.
const UNKNOWN: &str = "application/octet-stream";

/// Types that are better than what the table of [`mime_guess`] has, or that it lacks: what registries,
/// nginx and Debian agree on, by extension.
const BETTER: &[(&str, &str)] = &[
    ("3mf", "model/3mf"),
    ("bat", "text/plain"),
    ("br", "application/x-brotli"),
    ("cjs", "text/javascript"),
    ("crate", "application/gzip"),
    ("deb", "application/vnd.debian.binary-package"),
    ("diff", "text/x-diff"),
    ("dmg", "application/x-apple-diskimage"),
    ("dsc", "text/plain"),
    ("gem", "application/x-tar"),
    ("go", "text/plain"),
    ("iso", "application/x-iso9660-image"),
    ("jsonc", "application/json"),
    ("jsonl", "application/jsonl"),
    ("lock", "text/plain"),
    ("lz4", "application/x-lz4"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("md5", "text/plain"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("obj", "model/obj"),
    ("patch", "text/x-diff"),
    ("php", "text/plain"),
    ("ply", "model/ply"),
    ("ps1", "text/plain"),
    ("rpm", "application/x-rpm"),
    ("rs", "text/plain"),
    ("sh", "text/x-sh"),
    ("sha1", "text/plain"),
    ("sha256", "text/plain"),
    ("sha512", "text/plain"),
    ("srt", "text/plain"),
    ("stl", "model/stl"),
    ("tbz", "application/x-bzip2"),
    ("tbz2", "application/x-bzip2"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("tsx", "text/plain"),
    ("txz", "application/x-xz"),
    ("tzst", "application/zstd"),
    ("udeb", "application/vnd.debian.binary-package"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard"),
    ("whl", "application/zip"),
    ("woff", "font/woff"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// Names without an extension that are text wherever they are found, up to a hyphen.
const TEXTS: &[&str] = &[
    "AUTHORS",
    "CHANGELOG",
    "CHANGES",
    "CONTRIBUTING",
    "COPYING",
    "COPYRIGHT",
    "Dockerfile",
    "INSTALL",
    "InRelease",
    "LICENCE",
    "LICENSE",
    "MD5SUMS",
    "Makefile",
    "NEWS",
    "NOTICE",
    "Packages",
    "README",
    "Release",
    "SHA1SUMS",
    "SHA256SUMS",
    "SHA512SUMS",
    "TODO",
];

/// The extension that stands for all that nothing is known about.
const ANY: &str = "*";

/// Extensions to types: those that are commonly known, and those that the operator set.
#[derive(Clone, Debug, Default)]
pub struct ContentTypes {
    overrides: HashMap<String, String>,
}

impl ContentTypes {
    /// Of two overrides for one extension the later counts.
    #[must_use]
    pub fn new(overrides: impl IntoIterator<Item = Override>) -> Self {
        let pairs = overrides
            .into_iter()
            .map(|one| (one.extension, one.content_type));
        Self {
            overrides: pairs.collect(),
        }
    }

    /// The Content-Type of a file by its name, or the path to it. The longest extension that was
    /// set counts, else the last one; a dot in front begins none.
    #[must_use]
    pub fn of(&self, name: &[u8]) -> String {
        let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let dots = name
            .iter()
            .enumerate()
            .skip(1)
            .filter(|&(_, &byte)| byte == b'.');
        let mut last = None;
        for (dot, _) in dots {
            let Ok(extension) = std::str::from_utf8(&name[dot + 1..]) else {
                continue;
            };
            let extension = extension.to_lowercase();
            if let Some(content_type) = self.overrides.get(&extension) {
                return content_type.clone();
            }
            last = Some(extension);
        }
        let known = match &last {
            Some(extension) => known(extension),
            None if is_text(name) => Some(mime::TEXT_PLAIN),
            None => None,
        };
        let unknown = || self.overrides.get(ANY).map_or(UNKNOWN, String::as_str);
        known.map_or_else(|| unknown().to_owned(), |known| with_charset(&known))
    }
}

/// The type of an extension in lower case.
fn known(extension: &str) -> Option<Mime> {
    let better = BETTER.iter().find(|(better, _)| *better == extension);
    match better {
        Some((_, content_type)) => content_type.parse().ok(),
        None => mime_guess::from_ext(extension).first(),
    }
}

/// Whether a name without an extension is one of those that are text.
fn is_text(name: &[u8]) -> bool {
    let stem = name.split(|&byte| byte == b'-').next().unwrap_or_default();
    TEXTS.iter().any(|text| text.as_bytes() == stem)
}

/// Text is said to be UTF-8 unless the type says something else. Scripts count as text, whichever
/// of their types they go by (RFC 9239).
fn with_charset(content_type: &Mime) -> String {
    let is_text = content_type.type_() == mime::TEXT || content_type.subtype() == mime::JAVASCRIPT;
    if is_text && content_type.get_param(mime::CHARSET).is_none() {
        format!("{content_type}; charset=utf-8")
    } else {
        content_type.to_string()
    }
}

/// `EXT=TYPE`, as `--mime` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// In lower case, without the dot in front.
    extension: String,
    content_type: String,
}

impl Override {
    /// The type of all files of which nothing else is known, as `--default-type` takes it.
    ///
    /// # Errors
    /// It is none.
    pub fn of_unknown(content_type: &str) -> Result<Self, &'static str> {
        let content_type = content_type.parse::<Mime>().ok().filter(is_valid);
        let content_type = content_type.ok_or("takes a media type such as text/plain")?;
        Ok(Self {
            extension: ANY.to_owned(),
            content_type: with_charset(&content_type),
        })
    }
}

impl FromStr for Override {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (extension, content_type) = text
            .split_once('=')
            .ok_or("takes EXT=TYPE, as in log=text/plain")?;
        let extension = extension.strip_prefix('.').unwrap_or(extension);
        let is_bad = |c: char| c == '/' || c.is_control() || c.is_whitespace();
        if extension.is_empty() || extension.starts_with('.') || extension.contains(is_bad) {
            return Err(
                "takes EXT=TYPE with an extension such as log, or * for files of unknown type",
            );
        }
        let of_unknown = Self::of_unknown(content_type)
            .map_err(|_| "takes EXT=TYPE with a media type such as text/plain")?;
        Ok(Self {
            extension: extension.to_lowercase(),
            ..of_unknown
        })
    }
}

/// Whether a parsed type is one (RFC 9110, section 8.3.1), and no range of types.
fn is_valid(content_type: &Mime) -> bool {
    let names = [content_type.type_(), content_type.subtype()];
    let names = names.iter().map(|name| name.as_str());
    let is_line = content_type
        .as_ref()
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~'));
    is_line
        && names
            .into_iter()
            .all(|name| name != "*" && is_token(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let types = ContentTypes::default();
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.HTML", "text/html; charset=utf-8"),
            ("a/b.c/d.txt", "text/plain; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.rpm", "application/x-rpm"),
            ("a.ts", "video/mp2t"),
            ("a.STL", "model/stl"),
            ("a.m4a", "audio/mp4"),
            ("a.deb", "application/vnd.debian.binary-package"),
            ("a.tar.zst", "application/zstd"),
            ("a.tgz", "application/gzip"),
            ("a.jsonl", "application/jsonl"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.patch", "text/x-diff; charset=utf-8"),
            ("SHA256SUMS", "text/plain; charset=utf-8"),
            ("d/LICENSE-MIT", "text/plain; charset=utf-8"),
            ("README.md", "text/markdown; charset=utf-8"),
            ("READMEs", UNKNOWN),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.pdf", "application/pdf"),
            ("a.wasm", "application/wasm"),
            ("a.mp4", "video/mp4"),
            ("a.tar.gz", "application/gzip"),
            ("a.txt.unheardof", UNKNOWN),
            ("接.txt", "text/plain; charset=utf-8"),
            ("README", "text/plain; charset=utf-8"),
            ("a.", UNKNOWN),
            ("a.html/b", UNKNOWN),
            (".html", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(types.of(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(types.of(b"\xff.txt"), "text/plain; charset=utf-8");
        assert_eq!(types.of(b"a.\xff"), UNKNOWN);
    }

    #[test]
    fn overrides() {
        let types = [
            "log=text/x-log",
            "TXT=text/plain;charset=gbk",
            "tar.gz=a/b",
            ".x=c/d",
            "x=e/f",
        ]
        .map(|text| text.parse::<Override>().unwrap());
        let types = ContentTypes::new(types);
        for (name, expected) in [
            ("a.log", "text/x-log; charset=utf-8"),
            ("a.LOG", "text/x-log; charset=utf-8"),
            ("a.txt", "text/plain;charset=gbk"),
            ("a.b.tar.gz", "a/b"),
            ("a.gz", "application/gzip"),
            ("a.x", "e/f"),
            ("a.css", "text/css; charset=utf-8"),
        ] {
            assert_eq!(types.of(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn all_types_of_the_table_are_types() {
        for (extension, content_type) in BETTER {
            let parsed = content_type.parse::<Mime>().unwrap();
            assert!(is_valid(&parsed), "{extension}");
            let guessed = mime_guess::from_ext(extension).first_raw();
            assert_ne!(guessed, Some(*content_type), "{extension} needs no line");
        }
        assert!(BETTER.is_sorted() && TEXTS.is_sorted());
    }

    #[test]
    fn the_type_of_all_others() {
        let types = ["*=text/plain", "log=text/x-log"].map(|text| text.parse().unwrap());
        let types = ContentTypes::new(types);
        for (name, expected) in [
            ("a.unheardof", "text/plain; charset=utf-8"),
            ("unheardof", "text/plain; charset=utf-8"),
            (".html", "text/plain; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.log", "text/x-log; charset=utf-8"),
        ] {
            assert_eq!(types.of(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_override() {
        for text in [
            "",
            "log",
            "=text/plain",
            ".=text/plain",
            "..x=text/plain",
            "a/b=text/plain",
            "a b=text/plain",
            "log=",
            "log=text",
            "log=text/",
            "log=/plain",
            "log=*/*",
            "log=text/*",
            "log=text/plain\r\nX: y",
            "log=text/plain; x=\"\u{e9}\"",
            "log=te xt/plain",
            "log=text/plain; charset",
        ] {
            assert!(text.parse::<Override>().is_err(), "{text:?}");
        }
    }
}
