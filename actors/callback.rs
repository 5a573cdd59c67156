//! The CallbackActor: brings results to the targets that live in memory.
//!
//! Delivered means that the mailbox's handler has returned, or that the closure has. Durable
//! callbacks don't pass here: they are tasks, and run on Workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use actix::{Actor, Context, Handler};

use super::feeder::{Deliveries, Ticket};
use super::ledger::DeliverItem;
use super::messages::{Deliver, Discard};
use super::subscriptions::Snapshot;
use crate::record::DeadReason;
use crate::submission::Target;

/// Brings results to mailboxes and closures.
pub(crate) struct CallbackActor {
    deliveries: Rc<Deliveries>,
}

impl CallbackActor {
    pub(crate) fn new(deliveries: Rc<Deliveries>) -> Self {
        CallbackActor { deliveries }
    }

    fn deliver(&self, item: DeliverItem, snapshot: &Snapshot) {
        let deliveries = &self.deliveries;
        let DeliverItem { result, claim_no, targets, lost } = item;
        let wanting = || {
            let subscriptions = snapshot.subscriptions.iter();
            subscriptions.filter(|subscription| subscription.wants(result.name()))
        };
        let subscribed = wanting().count();
        let ticket = Ticket::new(result.id(), claim_no, (targets.len() + subscribed).max(1));
        let gone = Some(DeadReason::SubscriberGone);
        if targets.is_empty() && subscribed == 0 {
            deliveries.close(&ticket, gone);
        } else if lost {
            ticket.set_dead(gone);
        }
        for target in targets {
            self.deliver_to(target, &ticket, &result);
        }
        for subscription in wanting() {
            let mailbox = &subscription.mailbox;
            deliveries.feed(mailbox, &ticket, result.clone());
        }
        deliveries.keep(&ticket);
    }

    fn deliver_to(&self, target: Target, ticket: &Rc<Ticket>, result: &crate::TaskResult) {
        let result = result.clone();
        match target {
            Target::Closure(closure) => {
                let called = catch_unwind(AssertUnwindSafe(|| closure(result)));
                let dead = called.err().map(|_| DeadReason::SubscriberPanicked);
                self.deliveries.close(ticket, dead);
            }
            Target::Mailbox(mailbox) => self.deliveries.feed(&mailbox, ticket, result),
        }
    }
}

impl Actor for CallbackActor {
    type Context = Context<Self>;
}

impl Handler<Deliver> for CallbackActor {
    type Result = ();

    fn handle(&mut self, Deliver(parcel): Deliver, _: &mut Context<Self>) {
        let Some(batch) = parcel.body().take() else { return };
        let shared = &self.deliveries.shared;
        shared.deliveries.confirm(&parcel);
        if shared.shard(batch.shard).is_none() {
            return;
        }
        let snapshot = shared.subscriptions.snapshot();
        for item in batch.items {
            self.deliver(item, &snapshot);
        }
        drop(batch.weight);
        self.deliveries.await_sent();
        self.deliveries.report();
        self.deliveries.make_room(batch.shard);
    }
}

impl Handler<Discard> for CallbackActor {
    type Result = ();

    fn handle(&mut self, Discard(value): Discard, _: &mut Context<Self>) {
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            tracing::error!("a value that was kept for a task panicked when it was dropped");
        }
    }
}
