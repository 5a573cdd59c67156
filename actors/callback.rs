//! The CallbackActor: brings results to the targets that live in memory.
//!
//! Delivered means that the mailbox's handler has returned, or that the closure has, which is called
//! on a thread of its own (`closures`). Durable callbacks don't pass here: they are tasks, and run on
//! Workers.

use std::rc::Rc;

use actix::{Actor, Context, Handler};

use super::closures::Call;
use super::feeder::{Deliveries, Ticket};
use super::ledger::{DeliverBatch, DeliverItem};
use super::messages::{Deliver, Discard};
use super::outbox::{Once, Parcel};
use super::subscriptions::Snapshot;
use crate::panic_message;
use crate::proof::Point;
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
                let call = Call::new(closure, result);
                match self.deliveries.shared.closures.address() {
                    Some(closures) => self.deliveries.feed(&closures.recipient(), ticket, call),
                    // only if a panic could end it
                    None => self.deliveries.close(ticket, Some(DeadReason::SubscriberGone)),
                }
            }
            Target::Mailbox(mailbox) => self.deliveries.feed(&mailbox, ticket, result),
        }
    }
}

/// What is left of a batch. If the actor panics with it, the next one gets it.
struct Rest<'p> {
    parcel: &'p Parcel<Once<DeliverBatch>>,
    batch: Option<DeliverBatch>,
}

impl Rest<'_> {
    fn next(&mut self) -> Option<DeliverItem> {
        self.batch.as_mut()?.items.pop_front()
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.parcel.body().put_back(batch);
        }
    }
}

impl Actor for CallbackActor {
    type Context = Context<Self>;
}

impl Handler<Deliver> for CallbackActor {
    type Result = ();

    fn handle(&mut self, Deliver(parcel): Deliver, _: &mut Context<Self>) {
        self.deliveries.shared.points.pass(Point::CallbackDeliver);
        let Some(batch) = parcel.body().take() else { return };
        let shared = &self.deliveries.shared;
        let shard = batch.shard;
        let mut rest = Rest { parcel: &parcel, batch: Some(batch) };
        let snapshot = shared.subscriptions.snapshot();
        while let Some(item) = rest.next() {
            self.deliver(item, &snapshot);
            shared.points.pass(Point::CallbackItem);
        }
        self.deliveries.await_sent();
        drop(rest.batch.take().map(|batch| batch.weight));
        shared.deliveries.confirm(&parcel);
        self.deliveries.report();
        self.deliveries.make_room(shard);
    }
}

impl Handler<Discard> for CallbackActor {
    type Result = ();

    fn handle(&mut self, Discard(value): Discard, _: &mut Context<Self>) {
        self.deliveries.shared.points.pass(Point::CallbackDiscard);
        if panic_message::survive(|| drop(value)).is_none() {
            tracing::error!("a value that was kept for a task panicked when it was dropped");
        }
    }
}
