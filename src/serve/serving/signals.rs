//! What signals do to the application: a stop, a drain, what is opened anew, a successor.

use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;

use super::{Serving, Signalled};
use crate::daemon::service_manager::Reload;
use crate::daemon::sources::{HAND_OVER, HANGUP, STOP, STOP_NOW};
use crate::daemon::succession::Succession;
use crate::daemon::unix_socket::SocketFile;
use crate::limits::SIGNAL_PAIR_TIME;
use crate::protocol::Protocol;
use crate::reactor::LoopHandle;
use crate::serve::conn_record::ConnRecord;

impl<P: Protocol> Serving<P> {
    /// Drains, and so do the others.
    pub(super) fn drain(&mut self, control: &mut LoopHandle<ConnRecord>) {
        if let Some(manager) = &mut self.manager {
            manager.stopping();
        }
        // Nobody finds a unix socket any more.
        self.socket_files.clear();
        control.drain(self.drain_timeout);
        self.worker.pass_on(STOP);
    }

    /// A hangup opens things anew, as SIGUSR1 does with the log alone. SIGUSR2 starts a successor, and SIGXFSZ
    /// means nothing. The first other signal drains, a later one ends.
    pub(super) fn take_signals(&mut self, control: &mut LoopHandle<ConnRecord>) {
        let pending = self.signals.as_mut().map(Signals::pending);
        let (mut hung_up, mut last) = (false, None);
        for signal in pending.into_iter().flatten() {
            match signal {
                SIGHUP => hung_up = true,
                SIGUSR1 => {
                    self.telemetry.reopen();
                    self.telemetry.write_trace();
                }
                SIGUSR2 if !control.is_draining() => {
                    if let Some(succession) = &mut self.succession {
                        succession.begin();
                    }
                }
                SIGUSR2 | SIGXFSZ => {}
                signal => last = Some(signal),
            }
        }
        if hung_up {
            let remote = self.remote.clone();
            let manager = self.manager.as_mut();
            let reload = manager.map(|manager| manager.reloading(remote));
            self.telemetry.reopen();
            if let Some(watch) = self.tls.as_ref().and_then(|tls| tls.watch.as_ref()) {
                watch.reload(reload.clone());
            }
            self.reopen_root(reload);
            self.worker.pass_on(HANGUP);
        }
        let Some(signal) = last else { return };
        match self.signalled {
            Signalled::Not => {
                self.signalled = Signalled::Once(signal, control.now());
                self.drain(control);
            }
            Signalled::Once(first, at)
                if signal == first && control.now() - at < SIGNAL_PAIR_TIME => {}
            Signalled::Once(..) | Signalled::Again(_) => {
                // Signal numbers are small.
                self.signalled = Signalled::Again(u8::try_from(signal).unwrap_or(u8::MAX));
                control.stop();
                self.worker.pass_on(STOP_NOW);
            }
        }
    }

    /// A successor is ready, or it isn't: then this process goes on. Where it stops already, the successor
    /// stops, too.
    pub(super) fn hand_over(&mut self, control: &mut LoopHandle<ConnRecord>) {
        let successor = self.succession.as_mut().and_then(Succession::take);
        let Some(successor) = successor.filter(|_| !control.is_draining()) else {
            return;
        };
        let pid = successor.pid();
        if let Some(manager) = &mut self.manager {
            manager.succeeded_by(pid);
        }
        if let Err(error) = successor.go() {
            log::warn!("process {pid} can't take over: {error}; this process goes on");
            return;
        }
        log::info!("process {pid} takes over");
        self.socket_files.drain(..).for_each(SocketFile::leave);
        control.hand_over(self.drain_timeout);
        self.worker.pass_on(HAND_OVER);
    }

    pub(super) fn reopen_root(&mut self, reload: Option<Arc<Reload>>) {
        let (pool, notify) = (self.disk_tasks.reopeners(), self.disk_tasks.notify());
        let done = move || {
            notify();
            // With this the reload is over.
            let _ = &reload;
        };
        self.protocol.reopen(pool, Arc::new(done));
    }
}
