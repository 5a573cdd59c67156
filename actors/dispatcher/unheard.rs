//! Refused submissions that nobody waits for: said in the log, but not once each.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::AsyncContext;

use super::context::DispatcherContext;
use crate::error::Error;

/// How often they are said.
const EVERY: Duration = Duration::from_secs(1);

/// Counts them: the first is said at once, those that follow within a second together.
#[derive(Clone, Default)]
pub(super) struct Unheard(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// Those that weren't said yet, and why the last of them was refused.
    tasks: usize,
    error: Option<Error>,
    /// Whether they will be said by themselves.
    armed: bool,
}

impl Unheard {
    pub(super) fn add(&self, tasks: usize, error: Error, context: &mut DispatcherContext) {
        let mut state = self.0.borrow_mut();
        state.tasks += tasks;
        state.error = Some(error);
        if !state.armed {
            state.say();
            drop(state);
            self.arm(context);
        }
    }

    fn arm(&self, context: &mut DispatcherContext) {
        self.0.borrow_mut().armed = true;
        let unheard = self.clone();
        context.run_later(EVERY, move |_, context| {
            let mut state = unheard.0.borrow_mut();
            state.armed = false;
            if state.tasks > 0 {
                state.say();
                drop(state);
                unheard.arm(context);
            }
        });
    }
}

impl State {
    fn say(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        if let Some(error) = self.error.take() {
            tracing::warn!(tasks, %error, "submissions that nobody waits for are refused");
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.tasks > 0 {
            self.say();
        }
    }
}
