//! A folder as a tar (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"): its plan,
//! from which any part of the tar can be made at any time, and the heads of its members.
//!
//! A plan has 96 bytes and a path for each member. It holds all that the tar's bytes depend on, and how
//! to tell that a file is still the one that was planned; a hash of it names the tar's version.

use std::mem;
use std::ops::Range;

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::file::version::{Stamp, Trust};

/// What a tar is.
pub const CONTENT_TYPE: &str = "application/x-tar";

/// Whether a query asks for a folder as a tar. A form's button has a value, and be it an empty one.
#[must_use]
pub fn is_asked_for(query: Option<&[u8]>) -> bool {
    let mut pairs = query.unwrap_or_default().split(|&byte| byte == b'&');
    pairs.any(|pair| matches!(pair, b"tar" | b"tar="))
}

/// A tar is made of blocks of so many bytes.
const BLOCK: u64 = 512;

/// Two blocks of zeros end a tar.
const END: u64 = 2 * BLOCK;

/// The longest path, or target of a link, that a member's own block holds, in bytes.
const SHORT_MAX: usize = 100;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder, whose path ends in a slash.
    Folder,
    /// A symbolic link, and what it says.
    Link(&'a [u8]),
    /// A regular file.
    File(Version),
}

/// Tells the file that was planned from all others, and from its own later versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Where the same file keeps its number.
    pub inode: Option<u64>,
    /// In bytes.
    pub length: u64,
    /// When anything of it was changed last.
    pub changed: Stamp,
}

/// A member of a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its path in the tar.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Its permissions.
    pub mode: u32,
    /// When its content was changed last.
    pub modified: Stamp,
}

impl Member<'_> {
    /// How long its content is, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self.kind {
            Kind::File(version) => version.length,
            Kind::Folder | Kind::Link(_) => 0,
        }
    }

    /// What stands before its content. Owners are left out, and so are the bits that would have a program
    /// run as its owner: whoever unpacks as root makes files of root's.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_mode(self.mode & 0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(self.length());
        header.set_mtime(u64::try_from(self.modified.0).unwrap_or_default());
        let (entry_type, target) = match self.kind {
            Kind::Folder => (EntryType::Directory, &b""[..]),
            Kind::Link(target) => (EntryType::Symlink, target),
            Kind::File(_) => (EntryType::Regular, &b""[..]),
        };
        header.set_entry_type(entry_type);
        let old = header.as_old_mut();
        put(&mut old.name, self.path);
        put(&mut old.linkname, target);
        header.set_cksum();
        let mtime = decimal(self.modified);
        let mut records = Vec::new();
        if self.modified.1 > 0 || self.modified.0 < 0 {
            records.push(("mtime", mtime.as_bytes()));
        }
        let long = [("path", self.path), ("linkpath", target)];
        let long = long.into_iter().filter(|(_, name)| name.len() > SHORT_MAX);
        let long: Vec<_> = long.collect();
        if long.iter().any(|(_, name)| str::from_utf8(name).is_err()) {
            // A record is UTF-8 unless one before it says so.
            records.push(("hdrcharset", b"BINARY"));
        }
        records.extend(long);
        let mut builder = Builder::new(Vec::new());
        // Writing to memory doesn't fail.
        let _ = builder.append_pax_extensions(records);
        let mut head = mem::take(builder.get_mut());
        head.extend_from_slice(header.as_bytes());
        head
    }
}

/// Fills a field with as much as it holds.
fn put(field: &mut [u8; SHORT_MAX], bytes: &[u8]) {
    let length = bytes.len().min(SHORT_MAX);
    field[..length].copy_from_slice(&bytes[..length]);
}

/// A time in seconds since 1970. Of what was before, the seconds have no decimals: bsdtar takes them to count
/// the other way.
fn decimal((seconds, nanoseconds): Stamp) -> String {
    match seconds {
        0.. => format!("{seconds}.{nanoseconds:09}"),
        _ => seconds.to_string(),
    }
}

/// Where the next member begins after so many bytes of content.
fn padded(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

/// The numbers of a member in a plan: where it begins in the tar; where its path begins among the names, how
/// long it is, and how long a link's target after it; inode, length, both times; mode, and what it is.
const WORDS: usize = 12;

/// Its length in bytes.
const RECORD_BYTES: usize = WORDS * size_of::<u64>();

/// How many members, how long the tar is, whether its version can be told, and the hash of the rest.
const PREFACE_BYTES: usize = 3 * size_of::<u64>() + 32;

const FOLDER: u64 = 0;
const LINK: u64 = 1;
const FILE: u64 = 2;

/// A plan under construction.
#[derive(Debug)]
pub struct PlanBuilder {
    records: Vec<u8>,
    names: Vec<u8>,
    count: u64,
    length: u64,
    trust: Trust,
}

impl Default for PlanBuilder {
    fn default() -> Self {
        Self {
            records: vec![0; PREFACE_BYTES],
            names: Vec::new(),
            count: 0,
            length: 0,
            trust: Trust::Second,
        }
    }
}

impl PlanBuilder {
    /// Adds a member. `trust` says how far a file's version tells it from later ones.
    pub fn push(&mut self, member: &Member<'_>, trust: Trust) {
        let (kind, target, version) = match member.kind {
            Kind::Folder => (FOLDER, &b""[..], None),
            Kind::Link(target) => (LINK, target, None),
            Kind::File(version) => (FILE, &b""[..], Some(version)),
        };
        let version = version.unwrap_or(Version {
            inode: None,
            length: 0,
            changed: (0, 0),
        });
        let words: [u64; WORDS] = [
            self.length,
            self.names.len() as u64,
            member.path.len() as u64,
            target.len() as u64,
            // No file has the number zero.
            version.inode.unwrap_or_default(),
            version.length,
            member.modified.0 as u64,
            member.modified.1,
            version.changed.0 as u64,
            version.changed.1,
            member.mode.into(),
            kind,
        ];
        for word in words {
            self.records.extend_from_slice(&word.to_le_bytes());
        }
        self.names.extend_from_slice(member.path);
        self.names.extend_from_slice(target);
        self.count += 1;
        let size = member.head().len() as u64 + padded(member.length());
        self.length = self.length.saturating_add(size);
        self.trust = self.trust.min(trust);
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.capacity() + self.names.capacity()
    }

    /// The plan.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut plan = self.records;
        plan.extend_from_slice(&self.names);
        plan.shrink_to_fit();
        let digest = Sha256::digest(&plan[PREFACE_BYTES..]);
        let is_final = u64::from(self.trust >= Trust::Stamp);
        let words = [self.count, self.length.saturating_add(END), is_final];
        let preface = words.iter().flat_map(|word| word.to_le_bytes());
        let preface = preface.chain(digest.iter().copied());
        for (to, byte) in plan.iter_mut().zip(preface) {
            *to = byte;
        }
        plan
    }
}

/// A finished plan.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a>(&'a [u8]);

impl<'a> Plan<'a> {
    /// Reads what [`PlanBuilder::finish`] has made.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn word(self, at: usize) -> u64 {
        let bytes = self.0[at..].first_chunk().expect("a plan is whole");
        u64::from_le_bytes(*bytes)
    }

    /// How many members the tar has.
    #[must_use]
    pub fn count(self) -> usize {
        self.word(0) as usize
    }

    /// How long the tar is, in bytes.
    #[must_use]
    pub fn length(self) -> u64 {
        self.word(8)
    }

    /// Names this version of the tar, and never another one; `None` while a file can't be told from a later
    /// version of it.
    #[must_use]
    pub fn digest(self) -> Option<&'a [u8]> {
        (self.word(16) == 1).then(|| &self.0[24..PREFACE_BYTES])
    }

    fn record(self, index: usize) -> usize {
        PREFACE_BYTES + index * RECORD_BYTES
    }

    /// Where a member begins in the tar; after the last one, where its end begins.
    #[must_use]
    pub fn offset(self, index: usize) -> u64 {
        if index == self.count() {
            return self.length() - END;
        }
        self.word(self.record(index))
    }

    /// A member.
    #[must_use]
    pub fn member(self, index: usize) -> Member<'a> {
        let record = self.record(index);
        let word = |at: usize| self.word(record + 8 * at);
        let [names, path, target] = [1, 2, 3].map(|at| word(at) as usize);
        let names = &self.0[self.record(self.count()) + names..];
        let (path, names) = names.split_at(path);
        let kind = match word(11) {
            FOLDER => Kind::Folder,
            LINK => Kind::Link(&names[..target]),
            _ => Kind::File(Version {
                inode: Some(word(4)).filter(|&inode| inode > 0),
                length: word(5),
                changed: (word(8) as i64, word(9)),
            }),
        };
        Member {
            path,
            kind,
            mode: u32::try_from(word(10)).unwrap_or_default(),
            modified: (word(6) as i64, word(7)),
        }
    }

    /// The members from the one on that an offset lies in; none at the tar's end.
    #[must_use]
    pub fn members_from(self, offset: u64) -> Range<usize> {
        let (mut first, mut after) = (0, self.count());
        // The one looked for begins at `first` or later, and before `after`'s end.
        while first < after {
            let middle = first + (after - first) / 2;
            if self.offset(middle + 1) <= offset {
                first = middle + 1;
            } else {
                after = middle;
            }
        }
        first..self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8], length: u64) -> Member<'_> {
        Member {
            path,
            kind: Kind::File(Version {
                inode: Some(7),
                length,
                changed: (-3, 4),
            }),
            mode: 0o644,
            modified: (5, 0),
        }
    }

    fn plan(members: &[Member<'_>], trust: Trust) -> Vec<u8> {
        let mut builder = PlanBuilder::default();
        for member in members {
            builder.push(member, trust);
        }
        builder.finish()
    }

    #[test]
    fn a_plan_gives_back_what_was_put_in() {
        let long = [b'x'; 300];
        let members = [
            Member {
                kind: Kind::Folder,
                mode: 0o755,
                modified: (-1, 999_999_999),
                ..file(b"d/", 0)
            },
            file(b"d/a", 0),
            file(&long, 1),
            Member {
                kind: Kind::Link(b"../\xff"),
                ..file(b"d/b", 0)
            },
            Member {
                kind: Kind::File(Version {
                    inode: None,
                    length: 1 << 40,
                    changed: (i64::MAX, 1),
                }),
                mode: 0o100_600,
                ..file(b"d/c", 0)
            },
        ];
        let bytes = plan(&members, Trust::Second);
        let plan = Plan::new(&bytes);
        assert_eq!(plan.count(), members.len());
        let mut offset = 0;
        for (index, member) in members.iter().enumerate() {
            assert_eq!(plan.offset(index), offset);
            assert_eq!(plan.member(index).path, member.path);
            assert_eq!(plan.member(index).kind, member.kind);
            assert_eq!(plan.member(index).modified, member.modified);
            assert_eq!(plan.member(index).head(), member.head());
            let end = offset + member.head().len() as u64 + padded(member.length());
            for at in [offset, offset + 1, end - 1] {
                assert_eq!(plan.members_from(at), index..members.len());
            }
            offset = end;
        }
        assert_eq!(plan.offset(members.len()), offset);
        assert_eq!(plan.length(), offset + END);
        assert!(plan.members_from(offset).is_empty() && plan.members_from(u64::MAX).is_empty());
        assert_eq!(Plan::new(&self::plan(&[], Trust::Second)).length(), END);
    }

    #[test]
    fn whatever_differs_makes_another_version_and_what_cannot_be_told_has_none() {
        let digest = |member: Member<'_>, trust| {
            let bytes = plan(&[member], trust);
            Plan::new(&bytes).digest().map(<[u8]>::to_vec)
        };
        let one = file(b"a", 1);
        assert_eq!(digest(one, Trust::Nothing), None);
        let version = Version {
            inode: Some(7),
            length: 1,
            changed: (-3, 4),
        };
        #[rustfmt::skip]
        let members = [
            one,
            Member { path: b"b", ..one },
            Member { mode: 0o600, ..one },
            Member { modified: (5, 1), ..one },
            Member { kind: Kind::Folder, ..one },
            Member { kind: Kind::Link(b"x"), ..one },
            Member { kind: Kind::Link(b"y"), ..one },
            Member { kind: Kind::File(Version { inode: Some(8), ..version }), ..one },
            Member { kind: Kind::File(Version { length: 2, ..version }), ..one },
            Member { kind: Kind::File(Version { changed: (-3, 5), ..version }), ..one },
        ];
        let mut digests = members.map(|member| digest(member, Trust::Stamp));
        assert_eq!(digests[0], digest(one, Trust::Second));
        digests.sort();
        assert!(digests.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn times_before_1970_and_between_seconds() {
        for (stamp, expected) in [
            ((7, 5), "7.000000005"),
            ((0, 0), "0.000000000"),
            ((-1, 500_000_000), "-1"),
            ((-2, 0), "-2"),
        ] {
            assert_eq!(decimal(stamp), expected);
        }
    }

    #[test]
    fn a_head_is_a_block_where_that_is_enough() {
        assert_eq!(file(b"a", 1).head().len(), 512);
        let fine = Member {
            modified: (5, 1),
            ..file(b"a", 1)
        };
        assert_eq!(fine.head().len(), 3 * 512);
        assert_eq!(file(&[b'x'; 100], 1).head().len(), 512);
        assert_eq!(file(&[b'x'; 101], 1).head().len(), 3 * 512);
    }
}
