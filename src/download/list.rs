//! A folder's list, as servers send it: the links in a page, or rows of JSON.

use std::fmt;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::http::target::encode_segment;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As most servers do; it may be any other page as well.
    Html,
    /// carafe's, or that of nginx or Caddy.
    Json,
}

/// A row of a list in JSON. carafe gives a reference, Caddy calls it a URL, and nginx has the name alone.
#[derive(Deserialize)]
struct Row {
    #[serde(alias = "url")]
    href: Option<String>,
    name: Option<Name>,
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of a list that doesn't show all: how many entries there are.
    total: Option<usize>,
}

/// A name, which nginx writes as it is: its bytes may be no UTF-8.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl Form {
    /// The form of an answer that may be a list.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next().unwrap_or(value).trim();
        match &*essence.to_ascii_lowercase() {
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Hands out the references in a list, and returns how many entries the folder has if the list doesn't
/// show all.
///
/// # Errors
/// Why it is no list.
pub(super) fn read(
    form: Form,
    text: &[u8],
    each: impl FnMut(&[u8]),
) -> Result<Option<usize>, String> {
    match form {
        Form::Html => {
            for_each_link(text, each);
            Ok(None)
        }
        Form::Json => rows(text, each).map_err(|error| error.to_string()),
    }
}

/// Hands out the references of a page's links. Those in scripts and comments are none.
fn for_each_link(text: &[u8], mut each: impl FnMut(&[u8])) {
    let (mut is_anchor, mut is_reference) = (false, false);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<()> {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                (is_anchor, is_reference) = (name == b"a", false);
            }
            CallbackEvent::AttributeName { name } => is_reference = is_anchor && name == b"href",
            CallbackEvent::AttributeValue { value } if is_reference => each(value.trim_ascii()),
            CallbackEvent::CloseStartTag { .. } | CallbackEvent::EndTag { .. } => is_anchor = false,
            _ => {}
        }
        None
    });
    emitter.naively_switch_states(true);
    // It yields nothing: what it finds was handed out, and a text in memory has no errors.
    for nothing in Tokenizer::new_with_emitter(text, emitter) {
        let Ok(()) = nothing;
    }
}

fn rows(text: &[u8], each: impl FnMut(&[u8])) -> serde_json::Result<Option<usize>> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let total = json.deserialize_seq(Rows(each))?;
    json.end()?;
    Ok(total)
}

/// Takes rows one by one, so that a long list doesn't become a longer one of rows.
struct Rows<F>(F);

impl<'de, F: FnMut(&[u8])> Visitor<'de> for Rows<F> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<Self::Value, A::Error> {
        let mut cut = None;
        while let Some(row) = rows.next_element::<Row>()? {
            let is_folder = row.kind.as_deref() == Some("directory");
            let named = |Name(name)| {
                let slash = if is_folder { "/" } else { "" };
                format!("{}{slash}", encode_segment(&name))
            };
            match row.href.or_else(|| row.name.map(named)) {
                Some(reference) => self.0(reference.as_bytes()),
                None => cut = cut.or(row.total),
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(form: Form, text: &str) -> Result<(Vec<String>, Option<usize>), String> {
        let mut all = Vec::new();
        let total = read(form, text.as_bytes(), |reference| {
            all.push(String::from_utf8_lossy(reference).into_owned());
        })?;
        Ok((all, total))
    }

    #[test]
    fn a_pages_links_are_its_list() {
        let page = "<!DOCTYPE html><title>Index of /<a href=no></title>\
            <style>a::after { content: '<a href=no>' }</style>\
            <script>document.write('<a href=\"no\">')</script><!-- <a href=no> -->\
            <A HREF=../>up</A> <a class=x href = \" a&amp;b&#39;.txt \" title=\"<a href=no>\">a</a>\
            <a href='sub/'>s<a name=no><img href=no src=no><a\nhref=last";
        let expected = ["../", "a&b'.txt", "sub/"].map(String::from);
        assert_eq!(references(Form::Html, page), Ok((expected.into(), None)));
        for no_list in ["", "wine", "<p>Hello</p>", "<a>no</a>", "\0\u{ff}<<<"] {
            assert_eq!(
                references(Form::Html, no_list),
                Ok((vec![], None)),
                "{no_list}"
            );
        }
    }

    #[test]
    fn rows_of_several_servers_are_a_list() {
        for (text, expected, total) in [
            ("[\n]\n", &[][..], None),
            (
                r#"[{"name":"a b","href":"a%20b/","type":"folder","mtime":null},
                    {"type":"cut","shown":1,"total":7}]"#,
                &["a%20b/"],
                Some(7),
            ),
            (
                r#"[{"name":"a b/","size":1,"url":"./a%20b/","is_dir":true}]"#,
                &["./a%20b/"],
                None,
            ),
            (
                r#"[{"name":"a:b","type":"directory","mtime":"x"},{"name":"%","type":"file","size":1}]"#,
                &["a%3Ab/", "%25"],
                None,
            ),
        ] {
            let (all, cut) = references(Form::Json, text).expect(text);
            assert_eq!(
                (&all[..], cut),
                (
                    &expected
                        .iter()
                        .map(|text| (*text).to_owned())
                        .collect::<Vec<_>>()[..],
                    total
                ),
                "{text}"
            );
        }
        for no_list in ["", "{}", "[1]", "[{}", "[{}]x", "null", "[{\"href\":1}]"] {
            assert!(references(Form::Json, no_list).is_err(), "{no_list}");
        }
    }

    #[test]
    fn a_name_in_json_need_not_be_utf_8() {
        let mut all = Vec::new();
        let text = b"[{ \"name\":\"lat\xefn\\u00e9\", \"type\":\"directory\" }]";
        let total = read(Form::Json, text, |reference| all.push(reference.to_vec()));
        assert_eq!((all, total), (vec![b"lat%EFn%C3%A9/".to_vec()], Ok(None)));
    }

    #[test]
    fn a_type_says_what_may_be_a_list() {
        for (value, form) in [
            ("text/html; charset=utf-8", Some(Form::Html)),
            ("Application/JSON", Some(Form::Json)),
            ("text/plain", None),
            ("text/html5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(Form::of(&headers), form, "{value}");
        }
    }
}
