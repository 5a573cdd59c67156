//! Ways to the actors that run the user's code.

use std::any::Any;

use actix::Addr;

use crate::actors::callback::CallbackActor;
use crate::actors::closures::Closures;
use crate::actors::incoming::Incoming;
use crate::actors::ledger::Link;
use crate::actors::messages::{Deliver, Discard};
use crate::error::Error;

/// The way to the CallbackActor.
#[derive(Debug)]
pub(crate) struct CallbackLink(Link<CallbackActor>);

impl CallbackLink {
    pub(super) fn new() -> Self {
        CallbackLink(Link::new())
    }

    pub(crate) fn send(&self, message: Deliver) {
        self.0.send(message);
    }

    /// Has a value of the user's dropped there, where the user's code may run.
    pub(crate) fn discard(&self, value: impl Any + Send) {
        self.0.send(Discard(Box::new(value)));
    }

    /// Drops submissions, there if their callers' code may run.
    pub(crate) fn let_go(&self, incoming: Incoming) {
        if incoming.holds_values() {
            self.discard(incoming);
        }
    }

    /// Tells callers that nothing was stored.
    pub(crate) fn refuse(&self, mut incoming: Incoming, error: impl Fn() -> Error) {
        incoming.refuse(error);
        self.let_go(incoming);
    }
}

impl AsRef<Link<CallbackActor>> for CallbackLink {
    fn as_ref(&self) -> &Link<CallbackActor> {
        &self.0
    }
}

/// The way to those who call closures.
#[derive(Debug)]
pub(crate) struct ClosuresLink(Link<Closures>);

impl ClosuresLink {
    pub(super) fn new() -> Self {
        ClosuresLink(Link::new())
    }

    pub(crate) fn address(&self) -> Option<Addr<Closures>> {
        self.0.address()
    }
}

impl AsRef<Link<Closures>> for ClosuresLink {
    fn as_ref(&self) -> &Link<Closures> {
        &self.0
    }
}
