//! The Dispatcher's reply to submissions.

use std::cell::RefCell;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};

use super::context::DispatcherContext;
use super::unheard::Unheard;
use super::{Dispatcher, Outgoing};
use crate::actors::ledger::Waiter;
use crate::actors::messages::{Submit, SubmitAll};
use crate::error::{Error, Result};
use crate::record::TaskId;

/// The reply to a submission: refused at once, or given by the shard after its commit. The sender
/// travels with the tasks, so a submission costs no future of its own.
pub struct Submitted(pub(super) Reply);

pub(super) enum Reply {
    Refused {
        tasks: usize,
        error: Error,
        unheard: Unheard,
    },
    /// The submission is the last group of this shard.
    Accepted {
        outgoing: Rc<RefCell<Outgoing>>,
        index: usize,
    },
    /// Nothing was submitted.
    Empty,
}

impl Submitted {
    /// Links up the caller, who may not wait for the answer.
    fn link<R>(
        self,
        context: &mut DispatcherContext,
        caller: Option<OneshotSender<Result<R>>>,
        waiter: impl FnOnce(Option<OneshotSender<Result<R>>>) -> Waiter,
    ) -> Option<OneshotSender<Result<R>>> {
        match (self.0, caller) {
            (Reply::Accepted { outgoing, index }, caller) => {
                outgoing.borrow_mut().incoming[index].set_last_waiter(waiter(caller));
            }
            (Reply::Refused { error, .. }, Some(caller)) => drop(caller.send(Err(error))),
            (Reply::Refused { tasks, error, unheard }, None) => unheard.add(tasks, error, context),
            (Reply::Empty, caller) => return caller,
        }
        None
    }
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Submitted")
    }
}

impl MessageResponse<Dispatcher, Submit> for Submitted {
    fn handle(
        self,
        context: &mut DispatcherContext,
        caller: Option<OneshotSender<Result<TaskId>>>,
    ) {
        let left = self.link(context, caller, Waiter::One);
        debug_assert!(left.is_none(), "one submission is never empty");
    }
}

impl MessageResponse<Dispatcher, SubmitAll> for Submitted {
    fn handle(
        self,
        context: &mut DispatcherContext,
        caller: Option<OneshotSender<Result<Vec<TaskId>>>>,
    ) {
        if let Some(caller) = self.link(context, caller, Waiter::All) {
            drop(caller.send(Ok(Vec::new())));
        }
    }
}
