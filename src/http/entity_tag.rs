//! Entity tags (RFC 9110, section 8.8.3): text that tells versions of files apart, and from which
//! nobody learns what it was made of.

use std::fmt::{self, Write as _};
use std::fs;

use sha2::{Digest as _, Sha256};

use crate::file::ContentDigest;
use crate::file::version::Facts;
use crate::http::coding::Coding;
use crate::random::random;

/// What tags are made with: who doesn't have it can't tell what a tag was made of. The same on this
/// machine after a restart.
#[derive(Clone)]
pub struct TagKey(Sha256);

/// Sets this use of a machine's identity apart from all others.
const APPLICATION: &[u8] = b"carafe entity tag 1\0";

/// Where Linux keeps a random number that is a machine's own, best first: as long as it is installed
/// (machine-id(5)), or as long as it runs (random(4)).
const IDENTITIES: [&str; 3] = [
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/proc/sys/kernel/random/boot_id",
];

impl TagKey {
    /// The machine's. Where it has no identity, one that is forgotten when the process ends.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let identities = IDENTITIES.iter().filter_map(|path| fs::read(path).ok());
        let identity = identities.into_iter().find(|identity| is_random(identity));
        Self::new(&identity.unwrap_or_else(|| random().to_le_bytes().into()))
    }

    /// One made of a secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        // machine-id(5) asks for its hash in its place. The key fills a block of the hash function, so
        // that each tag takes one more.
        let mut block = [0; 64];
        let key = Sha256::new_with_prefix(APPLICATION)
            .chain_update(secret)
            .finalize();
        block[..key.len()].copy_from_slice(&key);
        Self(Sha256::new_with_prefix(block))
    }

    /// The text of an entity tag: half of a hash of a message whose length is fixed, after the key.
    #[must_use]
    pub fn tag(&self, facts: &Facts) -> String {
        let (modified, changed) = (facts.modified, facts.changed);
        let mut hash = self.0.clone();
        for word in [
            // No file has the number zero.
            facts.inode.unwrap_or_default(),
            facts.length,
            modified.0 as u64,
            modified.1,
            changed.0 as u64,
            changed.1,
        ] {
            hash.update(word.to_le_bytes());
        }
        Self::text(hash)
    }

    /// The same of what is named by a hash of all that it is made of.
    #[must_use]
    pub fn tag_of_digest(&self, digest: &[u8]) -> String {
        Self::text(self.0.clone().chain_update(digest))
    }

    /// The tag of a file that holds these bytes, on whatever machine: their SHA-256. A coded form of another file
    /// has one of its own even if it has the same bytes.
    #[must_use]
    pub fn of_content(digest: &ContentDigest, coding: Option<Coding>) -> String {
        let mut tag = String::new();
        for byte in digest {
            let _ = write!(tag, "{byte:02x}");
        }
        let suffix = coding.map_or(&b""[..], Coding::suffix);
        tag + &String::from_utf8_lossy(suffix)
    }

    fn text(hash: Sha256) -> String {
        let hash = hash.finalize();
        let half = hash.iter().take(16);
        let half = half.fold(0, |half: u128, &byte| (half << 8) | u128::from(byte));
        format!("{half:032x}")
    }
}

impl fmt::Debug for TagKey {
    /// It stays secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey")
    }
}

/// Whether a file that should hold a machine's identity does: 128 bits in hexadecimal. An image from
/// which machines are made may have it empty, or say `uninitialized`.
fn is_random(identity: &[u8]) -> bool {
    let digits = identity.trim_ascii().iter().filter(|&&byte| byte != b'-');
    let (mut count, mut is_any) = (0, false);
    for digit in digits {
        if !digit.is_ascii_hexdigit() {
            return false;
        }
        count += 1;
        is_any |= *digit != b'0';
    }
    count == 32 && is_any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::version::Trust;

    fn facts() -> Facts {
        Facts {
            inode: Some(7),
            length: 100,
            modified: (1, 2),
            changed: (3, 4),
            trust: Trust::Second,
        }
    }

    #[test]
    fn whatever_differs_makes_another_tag() {
        let key = TagKey::new(b"secret");
        let one = facts();
        let mut tags = vec![key.tag(&one)];
        #[rustfmt::skip]
        let others = [
            Facts { inode: None, ..one },
            Facts { inode: Some(8), ..one },
            Facts { length: 101, ..one },
            Facts { modified: (2, 2), ..one },
            Facts { modified: (1, 1), ..one },
            Facts { modified: (-1, 2), ..one },
            Facts { changed: (4, 4), ..one },
            Facts { changed: (3, 3), ..one },
            Facts { modified: one.changed, changed: one.modified, ..one },
        ];
        tags.extend(others.map(|other| key.tag(&other)));
        tags.push(TagKey::new(b"another").tag(&one));
        for tag in &tags {
            assert!(tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 2 + others.len());
        // The same now, and when the server is started again.
        assert_eq!(key.tag(&one), TagKey::new(b"secret").tag(&facts()));
        let ours = || TagKey::of_this_machine().tag(&one);
        assert!(IDENTITIES.iter().all(|path| !fs::exists(path).unwrap()) || ours() == ours());
        assert_eq!(format!("{key:?}"), "TagKey");
    }

    #[test]
    fn what_is_no_identity_is_none() {
        for (text, expected) in [
            ("3d1219c7c4c5404aaa1f6d2a48adfda4\n", true),
            ("3d1219c7-c4c5-404a-aa1f-6d2a48adfda4\n", true),
            ("00000000000000000000000000000000\n", false),
            ("3d1219c7c4c5404aaa1f6d2a48adfda\n", false),
            ("3d1219c7c4c5404aaa1f6d2a48adfda4 x\n", false),
            ("uninitialized\n", false),
            ("", false),
        ] {
            assert_eq!(is_random(text.as_bytes()), expected, "{text}");
        }
    }
}
