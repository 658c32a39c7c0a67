//! Header fields that the operator adds to answers. They are checked and written once, when the server
//! starts; an answer copies their bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::str::FromStr;

use fluent_uri::UriRef;
use globset::{Glob, GlobSet};

use super::fields::{is_in_value, is_token, trim};
use super::request::ALLOW;
use crate::limits::CORS_PREFLIGHT_SECONDS;

/// A field to add, as `--header` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomField {
    name: String,
    /// With its end.
    line: String,
}

/// Fields that no operator may add, in small letters: those of one connection (RFC 9110, section
/// 7.6.1), and those that this server writes by what it sends.
const RESERVED: &[&str] = &[
    "accept-ranges",
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-connection",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that say for how long an answer holds (RFC 9111, section 5). Of an error that would hold the
/// error, too.
const FRESHNESS: [&str; 2] = [CACHE_CONTROL, "Expires"];

const CACHE_CONTROL: &str = "Cache-Control";

impl CustomField {
    fn new(name: &str, value: &str) -> Result<Self, &'static str> {
        if !is_token(name.as_bytes()) {
            return Err("takes 'NAME: VALUE' with a name such as X-Frame-Options");
        }
        if RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            return Err(
                "takes no field that is a connection's own, or that carafe writes by itself",
            );
        }
        if !value.bytes().all(is_in_value) {
            return Err("takes a value of one line, without control characters");
        }
        Ok(Self::written(name, value))
    }

    /// Of what needs no check.
    fn written(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            line: format!("{name}: {value}\r\n"),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn tells_freshness(&self) -> bool {
        FRESHNESS.iter().any(|name| self.is(name))
    }
}

impl FromStr for CustomField {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once(':')
            .ok_or("takes 'NAME: VALUE', as in 'X-Frame-Options: DENY'")?;
        Self::new(name, value.trim_matches([' ', '\t']))
    }
}

/// A field of the files whose names match, as `--header-for` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    glob: Glob,
    field: CustomField,
}

impl FieldRule {
    /// `GLOB=VALUE`, as `--cache-control` takes it.
    ///
    /// # Errors
    /// The text says what it takes.
    pub fn cache_control(text: &str) -> Result<Self, String> {
        let (glob, value) = text
            .split_once('=')
            .filter(|(_, value)| !trim(value.as_bytes()).is_empty())
            .ok_or("takes GLOB=VALUE, as in 'assets/*=max-age=31536000, immutable'")?;
        let value = value.trim_matches([' ', '\t']);
        Ok(Self {
            glob: parse_glob(glob)?,
            field: CustomField::new(CACHE_CONTROL, value)?,
        })
    }
}

impl FromStr for FieldRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (glob, field) = text
            .split_once('=')
            .ok_or("takes GLOB='NAME: VALUE', as in '*.pdf=Content-Disposition: attachment'")?;
        Ok(Self {
            glob: parse_glob(glob)?,
            field: field.parse()?,
        })
    }
}

/// A pattern for paths beneath the root, where `*` stands for slashes, too. A slash in front means
/// nothing.
fn parse_glob(text: &str) -> Result<Glob, String> {
    let pattern = text.trim_start_matches('/');
    if pattern.is_empty() {
        return Err("takes a GLOB in front of the =, such as *.js or assets/*".into());
    }
    Glob::new(pattern).map_err(|error| format!("takes a GLOB such as *.js: {}", error.kind()))
}

/// Who may read answers from the pages of other sites, as `--cors` takes it: `*`, or an origin.
/// `null` is none: any page can have one within it that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(String);

impl FromStr for AllowedOrigin {
    type Err = &'static str;

    /// Browsers compare bytes, so an origin must be written as they write it: in small letters, without
    /// the port that its scheme has anyway (the HTML standard, "serialization of an origin").
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_origin = || {
            let uri = UriRef::parse(text).ok()?;
            let (scheme, authority) = (uri.scheme()?.as_str(), uri.authority()?);
            let has_usual_port = matches!(
                (scheme, authority.port().map(|port| port.as_str())),
                ("http", Some("80")) | ("https", Some("443")) | (_, Some(""))
            );
            let is_bare = uri.path().as_str().is_empty() && !text.contains(['?', '#', '@']);
            let is_small = !text.contains(|c: char| c.is_ascii_uppercase());
            (is_bare && is_small && !has_usual_port && !authority.host().is_empty()).then_some(())
        };
        if text != ALL && is_origin().is_none() {
            return Err(
                "takes an origin as browsers write it, such as https://app.example:8443, or *",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

const VARY_BY_ORIGIN: &str = "Vary: Origin\r\n";

/// All sites.
const ALL: &str = "*";

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

impl AllowedOrigin {
    /// Whether it lets in everybody.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0 == ALL
    }
}

/// What answers say to pages of other sites: who may read them, and that they may read all fields (the Fetch
/// standard, "HTTP responses"). One origin is told to all, so that answers don't depend on requests.
fn fields_of(origins: &[AllowedOrigin]) -> Vec<CustomField> {
    let mut fields = Vec::new();
    if let [origin] = origins {
        fields.push(CustomField::written(ALLOW_ORIGIN, &origin.0));
    }
    if !origins.is_empty() {
        fields.push(CustomField::written("Access-Control-Expose-Headers", ALL));
    }
    fields
}

/// Everything that the operator adds.
#[derive(Debug, Default)]
pub struct CustomFields {
    of_all: Vec<CustomField>,
    /// The lines of `of_all`.
    lines: String,
    globs: GlobSet,
    /// One for each of the globs, in their order.
    of_files: Vec<CustomField>,
    /// Of several sites, each origin with the lines of answers to its pages; empty if none is told apart.
    of_origins: Vec<(AllowedOrigin, String)>,
    /// What the answer to a browser says that asks before it asks (the Fetch standard, "CORS-preflight
    /// request"); empty if no other site is let in.
    preflight: String,
}

impl CustomFields {
    /// `fields` go with every answer, but for those that say how long it holds; these go with all
    /// files. Of several rules for one file and one name, the last one counts; it replaces what goes
    /// with every answer.
    ///
    /// # Errors
    /// All globs together are too large.
    pub fn new(
        fields: Vec<CustomField>,
        rules: Vec<FieldRule>,
        origins: &[AllowedOrigin],
    ) -> Result<Self, globset::Error> {
        let (fresh, mut of_all): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(CustomField::tells_freshness);
        let own = fields_of(origins).into_iter();
        let own: Vec<_> = own
            .filter(|own| !of_all.iter().any(|field| field.is(&own.name)))
            .collect();
        of_all.extend(own);
        let is_told = of_all.iter().any(|field| field.is(ALLOW_ORIGIN));
        let told_apart = origins.iter().filter(|_| !is_told).map(|origin| {
            let line = format!("{ALLOW_ORIGIN}: {}\r\n{VARY_BY_ORIGIN}", origin.0);
            (origin.clone(), line)
        });
        let of_origins = told_apart.collect();
        let any = Glob::new("*")?;
        let fresh = fresh.into_iter().map(|field| (any.clone(), field));
        let rules = rules.into_iter().map(|rule| (rule.glob, rule.field));
        let (globs, of_files): (Vec<_>, Vec<_>) = fresh.chain(rules).unzip();
        let preflight = if origins.is_empty() {
            String::new()
        } else {
            format!(
                "Access-Control-Allow-Methods: {ALLOW}\r\n\
                 Access-Control-Allow-Headers: *, Authorization\r\n\
                 Access-Control-Max-Age: {CORS_PREFLIGHT_SECONDS}\r\n"
            )
        };
        Ok(Self {
            lines: of_all.iter().map(|field| &*field.line).collect(),
            of_all,
            globs: GlobSet::new(globs)?,
            of_files,
            of_origins,
            preflight,
        })
    }

    /// How many bytes an answer has of them at most.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        let of_files = self.of_files.iter().map(|field| field.line.len());
        let of_origins = self.of_origins.iter().map(|(_, lines)| lines.len());
        let of_origin = of_origins.max().unwrap_or_default();
        self.lines.len() + of_origin + self.preflight.len() + of_files.sum::<usize>()
    }

    /// The lines of an answer that is no file's.
    #[must_use]
    pub fn of_all(&self) -> &[u8] {
        self.lines.as_bytes()
    }

    /// Whether every answer has a field of this name.
    #[must_use]
    pub fn have(&self, name: &str) -> bool {
        self.of_all.iter().any(|field| field.is(name))
    }

    /// The lines of an answer with a file, which is known by its name.
    #[must_use]
    pub fn of_file(&self, name: &[u8]) -> Cow<'_, [u8]> {
        if self.of_files.is_empty() {
            return self.of_all().into();
        }
        // Doubled slashes name the same file.
        let components = name.split(|&byte| byte == b'/');
        let components: Vec<_> = components.filter(|part| !part.is_empty()).collect();
        let path = components.join(&b'/');
        let mut fields: Vec<&CustomField> = self.of_all.iter().collect();
        for index in self.globs.matches(Path::new(OsStr::from_bytes(&path))) {
            let field = &self.of_files[index];
            fields.retain(|other| !other.is(&field.name));
            fields.push(field);
        }
        let lines: String = fields.iter().map(|field| &*field.line).collect();
        lines.into_bytes().into()
    }

    /// The lines of an answer that depend on the site whose page asks; none where it doesn't matter. Whoever
    /// keeps an answer must know that it does (RFC 9110, section 12.5.5).
    #[must_use]
    pub fn of_origin<'a>(&self, origin: impl FnOnce() -> Option<&'a [u8]>) -> &[u8] {
        if self.of_origins.is_empty() {
            return b"";
        }
        let origin = origin().unwrap_or_default();
        let mut origins = self.of_origins.iter();
        let lines = origins.find(|(allowed, _)| allowed.0.as_bytes() == origin);
        lines.map_or(VARY_BY_ORIGIN, |(_, lines)| lines).as_bytes()
    }

    /// The lines of the answer to a preflight.
    #[must_use]
    pub fn of_preflight(&self) -> &[u8] {
        self.preflight.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(fields: &[&str], rules: &[&str], origins: &[&str]) -> CustomFields {
        let fields = fields.iter().map(|text| text.parse().unwrap()).collect();
        let rules = rules.iter().map(|text| text.parse().unwrap()).collect();
        let origins: Vec<_> = origins.iter().map(|text| text.parse().unwrap()).collect();
        CustomFields::new(fields, rules, &origins).unwrap()
    }

    fn of_file(fields: &CustomFields, name: &str) -> String {
        String::from_utf8(fields.of_file(name.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn a_field_is_one_line_of_its_own() {
        for (text, expected) in [
            ("X-A: b", "X-A: b\r\n"),
            ("X-A:b", "X-A: b\r\n"),
            ("X-A: \t b c\t", "X-A: b c\r\n"),
            ("X-A:", "X-A: \r\n"),
            ("Link: <a:b>", "Link: <a:b>\r\n"),
            ("X-A: 接", "X-A: 接\r\n"),
        ] {
            assert_eq!(text.parse::<CustomField>().unwrap().line, expected);
        }
        for bad in [
            "",
            "X-A",
            ": b",
            "X A: b",
            " X-A: b",
            "X-A : b",
            "X-é: b",
            "X-A: b\r\nX-B: c",
            "X-A: b\nc",
            "X-A: \rb",
            "X-A: \0",
            "X-A: \u{7f}",
            "X-A\n: b",
        ] {
            assert!(bad.parse::<CustomField>().is_err(), "{bad:?}");
        }
        for name in RESERVED {
            let upper = name.to_ascii_uppercase();
            for name in [*name, &upper] {
                let error = format!("{name}: x").parse::<CustomField>().unwrap_err();
                assert!(error.contains("by itself"), "{name}: {error}");
            }
        }
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn rules_go_by_names() {
        let rules = [
            "*.js=X-Kind: script",
            "/assets/*=X-Kind: asset",
            "*/deep/?.js=x-kind: deep",
            "index.html=X-Page: first",
            "{a,b}.txt=X-Page: either",
        ];
        let fields = custom(&[], &rules, &[]);
        for (name, expected) in [
            ("/a.js", "X-Kind: script\r\n"),
            ("/d/a.js", "X-Kind: script\r\n"),
            ("/assets/a.js", "X-Kind: asset\r\n"),
            ("//assets//b/c", "X-Kind: asset\r\n"),
            ("/d/deep/x.js", "x-kind: deep\r\n"),
            ("/d/deep/xy.js", "X-Kind: script\r\n"),
            ("/index.html", "X-Page: first\r\n"),
            ("/d/index.html", ""),
            ("/b.txt", "X-Page: either\r\n"),
            ("/A.JS", ""),
        ] {
            assert_eq!(of_file(&fields, name), expected, "{name}");
        }
        // Bytes that are no UTF-8 are a name like others.
        assert_eq!(&*fields.of_file(b"\xff.js"), b"X-Kind: script\r\n");
    }

    #[test]
    fn a_rule_replaces_what_goes_with_every_answer() {
        let fields = custom(
            &["X-A: 1", "X-B: 2", "X-B: 3"],
            &["*.js=x-b: 4", "a.*=X-A: 5"],
            &[],
        );
        assert_eq!(fields.of_all(), b"X-A: 1\r\nX-B: 2\r\nX-B: 3\r\n");
        assert_eq!(of_file(&fields, "x"), "X-A: 1\r\nX-B: 2\r\nX-B: 3\r\n");
        assert_eq!(of_file(&fields, "x.js"), "X-A: 1\r\nx-b: 4\r\n");
        assert_eq!(of_file(&fields, "a.js"), "x-b: 4\r\nX-A: 5\r\n");
        assert!(fields.have("x-a") && !fields.have("X-C"));
        assert_eq!(fields.bytes_max(), 8 * 3 + 8 * 2);
        assert_eq!(custom(&[], &[], &[]).bytes_max(), 0);
    }

    #[test]
    fn what_tells_for_how_long_goes_with_files_alone() {
        let mut rules: Vec<FieldRule> = Vec::new();
        for rule in ["*.js=max-age=9, immutable", "assets/*= no-cache "] {
            rules.push(FieldRule::cache_control(rule).unwrap());
        }
        let header = ["cache-control: no-store", "Expires: 0", "X-A: 1"];
        let header = header.map(|text| text.parse().unwrap()).into();
        let fields = CustomFields::new(header, rules, &[]).unwrap();
        assert_eq!(fields.of_all(), b"X-A: 1\r\n");
        for (name, value) in [
            ("x", "X-A: 1\r\ncache-control: no-store\r\nExpires: 0\r\n"),
            (
                "x.js",
                "X-A: 1\r\nExpires: 0\r\nCache-Control: max-age=9, immutable\r\n",
            ),
            (
                "assets/x.js",
                "X-A: 1\r\nExpires: 0\r\nCache-Control: no-cache\r\n",
            ),
        ] {
            assert_eq!(of_file(&fields, name), value, "{name}");
        }
        for bad in ["*.js", "*.js=", "*.js= ", "=x", "[=x", "*.js=a\nb"] {
            assert!(FieldRule::cache_control(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "*",
            "*=X-A",
            "=X-A: b",
            "/=X-A: b",
            "[a=X-A: b",
            "*=Date: x",
        ] {
            assert!(bad.parse::<FieldRule>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins() {
        for good in [
            "*",
            "https://app.example",
            "http://localhost:3000",
            "http://[::1]:3000",
            "moz-extension://0f9e",
            "https://xn--bcher-kva.example",
        ] {
            assert!(good.parse::<AllowedOrigin>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/x",
            "https://app.example?",
            "https://app.example#x",
            "https://user@app.example",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:",
            "https://a.example https://b.example",
            "https://a.example\r\nX: y",
        ] {
            assert!(bad.parse::<AllowedOrigin>().is_err(), "{bad:?}");
        }
        let fields = custom(&[], &[], &["https://app.example"]);
        let lines = "Access-Control-Allow-Origin: https://app.example\r\n\
                     Access-Control-Expose-Headers: *\r\n";
        assert_eq!(fields.of_all(), lines.as_bytes());
        assert!(
            fields
                .of_preflight()
                .starts_with(b"Access-Control-Allow-Methods: GET, ")
        );
        let expose = "access-control-expose-headers: ETag";
        let fields = custom(&[expose], &[], &["*"]);
        let lines = "access-control-expose-headers: ETag\r\nAccess-Control-Allow-Origin: *\r\n";
        assert_eq!(fields.of_all(), lines.as_bytes());
        let none = custom(&[], &[], &[]);
        assert!(none.of_preflight().is_empty() && none.of_origin(|| panic!("asked")).is_empty());
    }

    #[test]
    fn of_several_origins_the_one_that_asks_is_told() {
        let origins = ["https://a.example", "https://b.example"];
        let fields = custom(&["Vary: X"], &["*=Vary: Y"], &origins);
        let expose = "Vary: X\r\nAccess-Control-Expose-Headers: *\r\n";
        assert_eq!(fields.of_all(), expose.as_bytes());
        for origin in origins {
            let lines = format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n");
            let told = fields.of_origin(|| Some(origin.as_bytes()));
            assert_eq!(told, lines.as_bytes());
        }
        for other in [
            &b"https://c.example"[..],
            b"https://a.example:1",
            b"null",
            b"*",
            b"",
        ] {
            assert_eq!(fields.of_origin(|| Some(other)), b"Vary: Origin\r\n");
        }
        assert_eq!(fields.of_origin(|| None), b"Vary: Origin\r\n");
        let longest = "Access-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n".len();
        let others = expose.len() + "Vary: Y\r\n".len() + fields.of_preflight().len();
        assert_eq!(fields.bytes_max(), longest + others);
        // Who says it by themselves has said it.
        let fields = custom(&["Access-Control-Allow-Origin: *"], &[], &origins);
        assert_eq!(fields.of_origin(|| None), b"");
    }
}
