//! What wakes a loop of `serve` beside its sockets.

use crate::reactor::SourceId;

pub(super) const SIGNALS: SourceId = SourceId(0);
pub(super) const STOP: SourceId = SourceId(1);
pub(super) const STOP_NOW: SourceId = SourceId(2);
pub(super) const HANGUP: SourceId = SourceId(3);
pub(super) const OTHER_ENDED: SourceId = SourceId(4);
pub(super) const DISK_TASKS: SourceId = SourceId(5);
pub(super) const SUCCESSOR: SourceId = SourceId(7);
pub(super) const HAND_OVER: SourceId = SourceId(8);
pub(super) const RELOADED: SourceId = SourceId(6);
