//! Versions of a file: what fstat says of one, and whether every later version will differ in that.
//!
//! A file system stamps a change with a clock that moves in ticks, and two changes within one tick
//! leave the same stamp. So a stamp names one version only if the clock had moved on when the file
//! still bore it. The clock is the kernel's own (CLOCK_REALTIME_COARSE), and it is read before the
//! file's state: whatever changes after that is stamped later.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::fs::Stat;

use crate::limits::{COARSE_STAMP_TICK, FINE_STAMP_TICK};
use crate::trace::record::{self, Call};

/// A time as stat(2) tells it: seconds since 1970, and nanoseconds.
pub type Stamp = (i64, u64);

/// What makes two open files the same version of the same file. ctime is there because mtime can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileVersion {
    /// Where the file is.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// In bytes.
    pub length: u64,
    /// When the bytes were changed last, unless it was set.
    pub modified: Stamp,
    /// When anything of the file was changed last: bytes, times, mode, owner, links, its name. Nobody
    /// can set it.
    pub changed: Stamp,
}

impl From<&Stat> for FileVersion {
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            // The kernel never reports a negative length.
            length: stat.st_size as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl FileVersion {
    /// Whether the bytes that were promised of this version may have been overwritten before a `later` one.
    /// ctime says nothing of that: it moves by chmod, chown, link, unlink, rename and setxattr, too, which
    /// touch no byte. A file that only grew keeps what was promised.
    #[must_use]
    pub fn is_overwritten_in(&self, later: &Self) -> bool {
        later.modified != self.modified && later.length == self.length
    }
}

/// A file's state, and when it was read.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// What fstat said.
    pub stat: Stat,
    /// What the clock that stamps files showed just before.
    pub clock: Stamp,
}

impl Snapshot {
    /// Looks at an open file. May wait for a disk.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        let clock = stamp_clock();
        let stat = record::call(Call::Stat, || rustix::fs::fstat(file))?;
        Ok(Self { stat, clock })
    }
}

/// The time that a change made now is stamped with, or an earlier one. It is asked of the C library:
/// rustix's own way to the clock crashes under valgrind.
#[must_use]
pub fn stamp_clock() -> Stamp {
    // A kernel that lacks this clock (Linux before 2.6.32) has stamped nothing: nothing is trusted.
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or((0, 0), |now| {
        // Nanoseconds lie below a thousand million.
        (now.tv_sec(), now.tv_nsec() as u64)
    })
}

/// Whether what is made of a file is not older than the file: `made` and `of` are when the bytes of
/// either were changed last. Some programs cut the time that they copy to whole seconds, brotli(1) does:
/// such a one counts to the second.
#[must_use]
pub fn is_as_new(made: Stamp, of: Stamp) -> bool {
    made >= of || (made.1 == 0 && made.0 == of.0)
}

/// What a stamp is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: a later change may leave the same one.
    Nothing,
    /// Every later version has another stamp.
    Stamp,
    /// Every later version has another second.
    Second,
}

/// What of a file's state its validators are made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// `None` where the same file may be given another number later.
    pub inode: Option<u64>,
    /// In bytes.
    pub length: u64,
    /// See [`FileVersion::modified`].
    pub modified: Stamp,
    /// See [`FileVersion::changed`].
    pub changed: Stamp,
    /// How far `changed` can be trusted.
    pub trust: Trust,
}

/// How far a stamp can be trusted that a file still had when its clock showed `clock`. `is_local`: this
/// kernel stamps the file, another machine doesn't. If `changed` lies in the future, as when the clock was set back,
/// it can't be.
#[must_use]
pub fn trust(changed: Stamp, clock: Stamp, is_local: bool) -> Trust {
    let tick = if is_local && is_fine(changed) {
        FINE_STAMP_TICK
    } else {
        COARSE_STAMP_TICK
    };
    if age(changed, clock).is_none_or(|age| age < tick) {
        Trust::Nothing
    } else if clock.0 <= changed.0 {
        Trust::Stamp
    } else {
        Trust::Second
    }
}

/// How long ago a file was changed when its clock showed `clock`; `None` if that is to come.
#[must_use]
pub fn age(changed: Stamp, clock: Stamp) -> Option<Duration> {
    let since_1970 = |(seconds, nanoseconds): Stamp| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    let age = u128::try_from(since_1970(clock) - since_1970(changed)).ok()?;
    // Two stamps lie less than 2^64 seconds apart.
    Some(Duration::new(
        (age / 1_000_000_000) as u64,
        (age % 1_000_000_000) as u32,
    ))
}

/// Whether a stamp is none of a file system that keeps hundredths of a second (exFAT), seconds (ext3,
/// HFS+) or two of them (FAT). Of the others' one in ten million looks like theirs.
#[must_use]
pub fn is_fine((_, nanoseconds): Stamp) -> bool {
    !u128::from(nanoseconds).is_multiple_of(FINE_STAMP_TICK.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_made_of_a_file_is_not_older() {
        for (made, of, expected) in [
            ((7, 5), (7, 5), true),
            ((7, 6), (7, 5), true),
            ((8, 0), (7, 5), true),
            ((7, 0), (7, 5), true),
            ((7, 4), (7, 5), false),
            ((6, 9), (7, 5), false),
            ((6, 0), (7, 0), false),
        ] {
            assert_eq!(is_as_new(made, of), expected, "{made:?} {of:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_stamp_is_trusted_when_the_clock_has_moved_on() {
        let ms = 1_000_000;
        for (changed, clock, local, elsewhere) in [
            // Within a tick of any kernel.
            ((100, 5 * ms + 1), (100, 5 * ms + 1), Trust::Nothing, Trust::Nothing),
            ((100, 5 * ms + 1), (100, 15 * ms), Trust::Nothing, Trust::Nothing),
            ((100, 995 * ms + 1), (101, 5 * ms), Trust::Nothing, Trust::Nothing),
            // After it, within the second.
            ((100, 5 * ms + 1), (100, 15 * ms + 1), Trust::Stamp, Trust::Nothing),
            ((100, 5 * ms + 1), (100, 999 * ms), Trust::Stamp, Trust::Nothing),
            // After the second.
            ((100, 995 * ms + 1), (101, 5 * ms + 1), Trust::Second, Trust::Nothing),
            ((100, 5 * ms + 1), (101, 0), Trust::Second, Trust::Nothing),
            ((100, 5 * ms + 1), (102, 5 * ms), Trust::Second, Trust::Nothing),
            ((100, 5 * ms + 1), (102, 5 * ms + 1), Trust::Second, Trust::Second),
            // Of coarse clocks: seconds, and hundredths.
            ((100, 0), (101, 999 * ms), Trust::Nothing, Trust::Nothing),
            ((100, 0), (102, 0), Trust::Second, Trust::Second),
            ((100, 50 * ms), (102, 49 * ms), Trust::Nothing, Trust::Nothing),
            ((100, 50 * ms), (102, 50 * ms), Trust::Second, Trust::Second),
            // A clock that was set back.
            ((100, 1), (99, 999 * ms), Trust::Nothing, Trust::Nothing),
            ((i64::MAX, 1), (100, 0), Trust::Nothing, Trust::Nothing),
            ((i64::MIN, 1), (100, 0), Trust::Second, Trust::Second),
        ] {
            assert_eq!(trust(changed, clock, true), local, "{changed:?} {clock:?}");
            assert_eq!(
                trust(changed, clock, false),
                elsewhere,
                "{changed:?} {clock:?}"
            );
        }
    }

    #[test]
    fn a_change_after_a_trusted_look_has_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = fs::File::create(&path).unwrap();
        for round in 0..200_u8 {
            fs::write(&path, [round]).unwrap();
            let look = || {
                let snapshot = Snapshot::of(&file).unwrap();
                let stamp = FileVersion::from(&snapshot.stat).changed;
                (stamp, trust(stamp, snapshot.clock, true))
            };
            let (stamp, first) = look();
            if first == Trust::Nothing && round % 8 != 0 {
                continue;
            }
            while look().1 == Trust::Nothing {}
            fs::write(&path, [round, round]).unwrap();
            assert_ne!(look().0, stamp);
        }
    }

    #[test]
    fn only_another_time_of_modification_says_that_bytes_were_overwritten() {
        let file = tempfile::tempfile().unwrap();
        let then = FileVersion::from(&Snapshot::of(&file).unwrap().stat);
        let differs = |change: fn(&mut FileVersion)| {
            let mut now = then;
            change(&mut now);
            then.is_overwritten_in(&now)
        };
        assert!(!differs(|_| ()));
        assert!(differs(|now| now.modified.0 += 1));
        assert!(differs(|now| now.modified.1 += 1));
        assert!(differs(|now| now.modified.0 -= 1));
        assert!(!differs(|now| now.changed.0 += 1));
        assert!(!differs(|now| {
            now.modified.0 += 1;
            now.length += 1;
        }));
    }
}
