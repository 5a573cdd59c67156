//! Feeding one mailbox: awaited sends, a bounded window of them, a bounded backlog behind it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use actix::Recipient;
use actix::dev::RecipientRequest;

use super::ledger::DeliveredBatch;
use super::messages::Delivered;
use super::subscriptions::SubscriptionId;
use super::system::Shared;
use crate::record::{DeadReason, ShardId, TaskId};
use crate::result::TaskResult;
use crate::store::DeliveryEnd;

/// One result's way to all of its targets.
pub(crate) struct Ticket {
    id: TaskId,
    claim_no: u32,
    open: Cell<usize>,
    dead: Cell<Option<DeadReason>>,
}

impl Ticket {
    pub(crate) fn new(id: TaskId, claim_no: u32, targets: usize) -> Rc<Self> {
        Rc::new(Ticket { id, claim_no, open: Cell::new(targets), dead: Cell::new(None) })
    }

    /// Notes why a target will never have the result; the first reason stays.
    pub(crate) fn set_dead(&self, reason: Option<DeadReason>) {
        self.dead.set(self.dead.get().or(reason));
    }
}

/// What the CallbackActor has in hand. It lives on the actor's thread and outlives the actor.
pub(crate) struct Deliveries {
    pub(crate) shared: std::sync::Arc<Shared>,
    feeders: RefCell<HashMap<SubscriptionId, Feeder>>,
    over: RefCell<HashMap<ShardId, Vec<DeliveryEnd>>>,
}

struct Feeder {
    mailbox: Recipient<TaskResult>,
    outstanding: usize,
    /// Sent with the present batch and not awaited yet.
    sent: Vec<(Rc<Ticket>, RecipientRequest<TaskResult>)>,
    backlog: VecDeque<(Rc<Ticket>, TaskResult)>,
}

impl Deliveries {
    pub(crate) fn new(shared: std::sync::Arc<Shared>) -> Rc<Self> {
        let (feeders, over) = (RefCell::default(), RefCell::default());
        Rc::new(Deliveries { shared, feeders, over })
    }

    /// One of a ticket's targets has it, or never will.
    pub(crate) fn close(&self, ticket: &Ticket, dead: Option<DeadReason>) {
        if let Some(reason) = dead {
            tracing::warn!(task = %ticket.id, ?reason, "a result will not reach a target");
            ticket.set_dead(dead);
        }
        ticket.open.set(ticket.open.get().saturating_sub(1));
        if ticket.open.get() == 0 {
            let end =
                DeliveryEnd { id: ticket.id, claim_no: ticket.claim_no, dead: ticket.dead.get() };
            self.over.borrow_mut().entry(ticket.id.shard()).or_default().push(end);
        }
    }

    /// Tells the shards which deliveries are over.
    pub(crate) fn report(&self) {
        let over = std::mem::take(&mut *self.over.borrow_mut());
        for (shard, ends) in over {
            let Some(ledger) = self.shared.shard(shard) else { continue };
            ledger.link.send(Delivered(ledger.delivered.post(DeliveredBatch { ends })));
        }
    }

    /// Sends a result to a subscribed mailbox, now or when its window has room.
    pub(crate) fn feed(
        &self,
        id: SubscriptionId,
        mailbox: &Recipient<TaskResult>,
        ticket: &Rc<Ticket>,
        result: TaskResult,
    ) {
        let limits = &self.shared.settings.delivery;
        let mut feeders = self.feeders.borrow_mut();
        let feeder = feeders.entry(id).or_insert_with(|| Feeder {
            mailbox: mailbox.clone(),
            outstanding: 0,
            sent: Vec::new(),
            backlog: VecDeque::new(),
        });
        if feeder.outstanding < limits.window && feeder.backlog.is_empty() {
            feeder.send(ticket.clone(), result);
        } else if feeder.backlog.len() < limits.backlog {
            feeder.backlog.push_back((ticket.clone(), result));
        } else {
            drop(feeders);
            self.close(ticket, Some(DeadReason::SubscriberFull));
        }
    }

    /// Awaits what was sent with this batch, one task per mailbox.
    pub(crate) fn await_sent(self: &Rc<Self>) {
        let ids: Vec<SubscriptionId> = self.feeders.borrow().keys().copied().collect();
        for id in ids {
            let sent = match self.feeders.borrow_mut().get_mut(&id) {
                Some(feeder) if !feeder.sent.is_empty() => std::mem::take(&mut feeder.sent),
                _ => continue,
            };
            let deliveries = self.clone();
            actix_rt::spawn(async move { deliveries.settle(id, sent).await });
        }
    }

    /// Waits until the mailbox has handled what was sent, then sends on from its backlog.
    async fn settle(
        self: Rc<Self>,
        id: SubscriptionId,
        mut sent: Vec<(Rc<Ticket>, RecipientRequest<TaskResult>)>,
    ) {
        while !sent.is_empty() {
            let count = sent.len();
            let mut closed = false;
            // the last one first: a mailbox handles them in order, so the others are over by then
            // and the whole batch costs one wake-up
            for (ticket, request) in sent.into_iter().rev() {
                let dead = request.await.err().map(|_| DeadReason::SubscriberGone);
                closed |= dead.is_some();
                self.close(&ticket, dead);
            }
            self.report();
            sent = self.send_on(id, count, closed);
        }
    }

    fn send_on(
        &self,
        id: SubscriptionId,
        handled: usize,
        closed: bool,
    ) -> Vec<(Rc<Ticket>, RecipientRequest<TaskResult>)> {
        let mut feeders = self.feeders.borrow_mut();
        let Some(feeder) = feeders.get_mut(&id) else { return Vec::new() };
        feeder.outstanding -= handled;
        let gone = closed && !feeder.mailbox.connected();
        if gone {
            let backlog = std::mem::take(&mut feeder.backlog);
            feeders.remove(&id);
            drop(feeders);
            self.shared.subscriptions.remove(id);
            for (ticket, _) in backlog {
                self.close(&ticket, Some(DeadReason::SubscriberGone));
            }
            self.report();
            return Vec::new();
        }
        let window = self.shared.settings.delivery.window;
        // half a window at a time: one by one, each result would cost both threads a wake-up
        let room = if feeder.outstanding > window / 2 { 0 } else { window - feeder.outstanding };
        for _ in 0..room {
            let Some((ticket, result)) = feeder.backlog.pop_front() else { break };
            feeder.send(ticket, result);
        }
        let sent = std::mem::take(&mut feeder.sent);
        if feeder.outstanding == 0 {
            // made again with the next result: one that has unsubscribed isn't held on to
            feeders.remove(&id);
        }
        sent
    }
}

impl Feeder {
    fn send(&mut self, ticket: Rc<Ticket>, result: TaskResult) {
        self.outstanding += 1;
        // By a sender of its own: once a mailbox is full, actix parks a sender, and what a parked one
        // sends isn't under way until it is awaited. Our window is the bound.
        self.sent.push((ticket, self.mailbox.clone().send(result)));
    }
}
