//! What a test and its tasks share: a log of what happened, in order, and a gate.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::world::{LIMIT, in_time};

/// Clones are the same probe.
#[derive(Clone, Default)]
pub(crate) struct Probe {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    log: Vec<String>,
    passes: usize,
}

impl Probe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.inner.changed.notify_waiters();
        self.inner.opened.notify_all();
    }

    /// Writes a line into the log.
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.state().log.push(line.into());
        self.changed();
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// How often a line is in the log.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.state().log.iter().filter(|known| *known == line).count()
    }

    /// Where a line first stands in the log.
    pub(crate) fn position(&self, line: &str) -> usize {
        let position = self.state().log.iter().position(|known| known == line);
        position.unwrap_or_else(|| panic!("no {line:?} in {:?}", self.log()))
    }

    /// Lets this many pass.
    pub(crate) fn open(&self, passes: usize) {
        self.state().passes += passes;
        self.changed();
    }

    /// Waits at the gate until it may pass.
    pub(crate) async fn pass(&self) {
        self.until_some(|state| {
            let open = state.passes > 0;
            state.passes -= usize::from(open);
            open.then_some(())
        })
        .await;
    }

    /// Waits at the gate on this thread; gives up, loudly, when a test would have.
    pub(crate) fn pass_blocking(&self) {
        let state = self.state();
        let wait = self.inner.opened.wait_timeout_while(state, LIMIT * 2, |s| s.passes == 0);
        let (mut state, waited) = wait.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "nobody opened the gate");
        state.passes -= 1;
    }

    /// Waits until a line is in the log this often.
    #[track_caller]
    pub(crate) fn until(&self, line: &str, times: usize) -> impl Future<Output = ()> {
        in_time(self.until_some(move |state| {
            (state.log.iter().filter(|known| *known == line).count() >= times).then_some(())
        }))
    }

    async fn until_some<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }
}
