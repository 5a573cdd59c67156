//! Closures that want results: called one after another on a thread of their own, so that a slow one
//! holds up other closures only.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};

use super::system::{Phase, Shared};
use crate::panic_message::survive;
use crate::result::TaskResult;
use crate::submission::Closure;

/// CallbackActor -> Closures: call this. Answers whether it returned, and didn't panic.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Call {
    closure: Option<Closure>,
    pub(crate) result: TaskResult,
}

impl Call {
    pub(crate) fn new(closure: Closure, result: TaskResult) -> Self {
        Call { closure: Some(closure), result }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let never_called = self.closure.take();
        if survive(|| drop(never_called)).is_none() {
            tracing::error!("a closure that was never called panicked when it was dropped");
        }
    }
}

/// Calls closures, until the queue has ended.
pub(crate) struct Closures(pub(crate) Arc<Shared>);

impl Actor for Closures {
    type Context = Context<Self>;
}

impl Handler<Call> for Closures {
    type Result = bool;

    fn handle(&mut self, mut call: Call, _: &mut Context<Self>) -> bool {
        let result = call.result.clone();
        if self.0.phase() == Phase::Ended {
            return false;
        }
        let closure = call.closure.take();
        survive(|| closure.map(|closure| closure(result))).is_some()
    }
}
