//! What wakes a loop of `serve` beside its sockets.

use crate::reactor::SourceId;

pub(crate) const SIGNALS: SourceId = SourceId(0);
pub(crate) const STOP: SourceId = SourceId(1);
pub(crate) const STOP_NOW: SourceId = SourceId(2);
pub(crate) const HANGUP: SourceId = SourceId(3);
pub(crate) const OTHER_ENDED: SourceId = SourceId(4);
pub(crate) const DISK_TASKS: SourceId = SourceId(5);
pub(crate) const SUCCESSOR: SourceId = SourceId(7);
pub(crate) const HAND_OVER: SourceId = SourceId(8);
pub(crate) const RELOADED: SourceId = SourceId(6);
