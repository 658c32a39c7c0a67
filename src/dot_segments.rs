//! Dot segments of names: one rule for all protocols.

use std::borrow::Cow;

/// Resolves dot segments as RFC 3986, section 5.2.4, does: by bytes, before anything is looked up, so
/// that it doesn't matter where a link on the way leads. Leading slashes are kept. A `..` that leads
/// above the root stays in front, for the root to refuse. So does a name with a NUL, as it is.
#[must_use]
pub fn remove_dot_segments(name: &[u8]) -> Cow<'_, [u8]> {
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    if !has_dotted_segment(name)
        || !name.split(|&byte| byte == b'/').any(is_dots)
        || name.contains(&0)
    {
        return name.into();
    }
    let begin = name.iter().position(|&byte| byte != b'/');
    let (slashes, path) = name.split_at(begin.unwrap_or(name.len()));
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"." => {}
            b".." if kept.last().is_some_and(|&last| last != b"..") => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let ends_in_dots = path
        .rsplit(|&byte| byte == b'/')
        .next()
        .is_some_and(is_dots);
    if ends_in_dots && !kept.is_empty() {
        kept.push(b"");
    }
    [slashes, &kept.join(&b'/')].concat().into()
}

/// Whether a segment begins with a dot. Of nearly all names none does.
#[must_use]
pub fn has_dotted_segment(name: &[u8]) -> bool {
    name.first() == Some(&b'.') || name.windows(2).any(|pair| pair == b"/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments() {
        for (name, expected) in [
            ("a", "a"),
            ("/a/b/", "/a/b/"),
            (".a/..b/c./...", ".a/..b/c./..."),
            ("", ""),
            (".", ""),
            ("./", ""),
            ("/.", "/"),
            ("/./", "/"),
            ("./a", "a"),
            ("/./a", "/a"),
            ("././a/./b/./", "a/b/"),
            ("a/.", "a/"),
            ("a/..", ""),
            ("/a/..", "/"),
            ("a/../", ""),
            ("a/b/..", "a/"),
            ("a/b/../", "a/"),
            ("a/b/../../c", "c"),
            // The examples of RFC 3986, section 5.2.4.
            ("/a/b/c/./../../g", "/a/g"),
            ("mid/content=5/../6", "mid/6"),
            // An empty segment is one.
            ("a//../b", "a/b"),
            ("a//b/./c", "a//b/c"),
            // Nothing leads above the root.
            ("..", "../"),
            ("../a", "../a"),
            ("/../a", "/../a"),
            ("//../a", "//../a"),
            ("a/../../b", "../b"),
            ("a/../../../b", "../../b"),
            ("./../a/..", "../"),
            ("a\0/../a", "a\0/../a"),
        ] {
            let seen = remove_dot_segments(name.as_bytes());
            assert_eq!(seen, expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_dot_counts_at_the_beginning_of_a_segment() {
        for (name, expected) in [
            ("", false),
            ("a.b/c.d.", false),
            (".a", true),
            ("a/.b", true),
            ("a.b//.", true),
        ] {
            assert_eq!(has_dotted_segment(name.as_bytes()), expected, "{name}");
        }
    }
}
