//! A terminal of the test's own.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::Followed;

/// A program whose stderr is a terminal.
pub(crate) struct OnTerminal {
    child: Child,
    pub(crate) screen: Followed,
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OnTerminal {
    pub(crate) fn start(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let terminal = rustix::fs::open(OsStr::from_bytes(name.as_bytes()), flags, Mode::empty());
        let terminal = File::from(terminal.unwrap());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(terminal)
            .env_remove("RUST_LOG")
            .spawn();
        Self {
            child: child.unwrap(),
            screen: Followed::new(File::from(master)),
        }
    }

    pub(crate) fn carafe(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command
            .args(words)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        command.envs(environment.iter().copied());
        Self::start(&mut command)
    }

    /// Ends it as Ctrl-C does, and gives all that stands on the screen.
    pub(crate) fn end(&mut self) -> String {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let text = self.screen.wait_for("; replied ");
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{text}");
        text.replace("\r\n", "\n")
    }
}
