//! Feeding one mailbox: awaited sends, a bounded window of them, a bounded backlog behind it. The
//! closures of all submissions are fed as one mailbox more.
//!
//! What is kept for a mailbox is bounded by number and by size, and holds no credit of its shard: a
//! slow mailbox costs its own results only.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use actix::dev::RecipientRequest;
use actix::{Message, Recipient};

use super::closures::Call;
use super::ledger::DeliveredBatch;
use super::messages::{Delivered, Wake};
use super::system::Shared;
use crate::record::{DeadReason, ShardId, TaskId};
use crate::result::TaskResult;
use crate::store::DeliveryEnd;

/// How often it is said that results are dropped.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// One result's way to all of its targets.
pub(crate) struct Ticket {
    id: TaskId,
    claim_no: u32,
    open: Cell<usize>,
    dead: Cell<Option<DeadReason>>,
    /// Whether it counts as kept.
    kept: Cell<bool>,
}

impl Ticket {
    pub(crate) fn new(id: TaskId, claim_no: u32, targets: usize) -> Rc<Self> {
        let (open, dead, kept) = (Cell::new(targets), Cell::new(None), Cell::new(false));
        Rc::new(Ticket { id, claim_no, open, dead, kept })
    }

    /// Notes why a target will never have the result; the first reason stays.
    pub(crate) fn set_dead(&self, reason: Option<DeadReason>) {
        self.dead.set(self.dead.get().or(reason));
    }
}

/// What a mailbox is fed with.
pub(crate) trait Letter: Message<Result: Send> + Send + Sized + 'static {
    /// The mailboxes that are fed with such.
    fn feeders(deliveries: &Deliveries) -> &Feeders<Self>;

    /// How many bytes its result has.
    fn bytes(&self) -> usize;

    /// What became of it, by what the mailbox answered.
    fn dead(answer: Self::Result) -> Option<DeadReason>;

    /// A mailbox is closed.
    fn is_gone(shared: &Shared, mailbox: &Recipient<Self>);
}

impl Letter for TaskResult {
    fn feeders(deliveries: &Deliveries) -> &Feeders<Self> {
        &deliveries.mailboxes
    }

    fn bytes(&self) -> usize {
        TaskResult::bytes(self)
    }

    fn dead((): ()) -> Option<DeadReason> {
        None
    }

    fn is_gone(shared: &Shared, mailbox: &Recipient<Self>) {
        shared.subscriptions.remove_mailbox(mailbox);
    }
}

impl Letter for Call {
    fn feeders(deliveries: &Deliveries) -> &Feeders<Self> {
        &deliveries.closures
    }

    fn bytes(&self) -> usize {
        self.result.bytes()
    }

    fn dead(returned: bool) -> Option<DeadReason> {
        (!returned).then_some(DeadReason::SubscriberPanicked)
    }

    fn is_gone(_: &Shared, _: &Recipient<Self>) {}
}

/// By mailbox, whatever the ways by which it asked for results.
pub(crate) type Feeders<M> = RefCell<HashMap<Recipient<M>, Feeder<M>>>;

/// What the CallbackActor has in hand. It lives on the actor's thread and outlives the actor.
pub(crate) struct Deliveries {
    pub(crate) shared: std::sync::Arc<Shared>,
    mailboxes: Feeders<TaskResult>,
    closures: Feeders<Call>,
    over: RefCell<HashMap<ShardId, Over>>,
    /// How many feeders were made.
    feeders_made: Cell<u64>,
    dropped: RefCell<Dropped>,
}

/// Results that full mailboxes didn't get, and that weren't said yet.
#[derive(Default)]
struct Dropped {
    results: usize,
    last: Option<TaskId>,
    /// Whether they will be said by themselves.
    armed: bool,
}

impl Dropped {
    fn say(&mut self) {
        let results = std::mem::take(&mut self.results);
        if let Some(last) = self.last.take() {
            tracing::warn!(results, %last, "results are dropped for mailboxes that are full");
        }
    }
}

/// Deliveries of one shard that are over and not reported.
#[derive(Default)]
struct Over {
    ends: Vec<DeliveryEnd>,
    /// How many of them counted as kept.
    kept: isize,
}

/// A result on its way to a mailbox.
struct Sent<M: Letter> {
    ticket: Rc<Ticket>,
    bytes: usize,
    request: RecipientRequest<M>,
}

pub(crate) struct Feeder<M: Letter> {
    mailbox: Recipient<M>,
    /// Tells it from an earlier one of the same mailbox, of which sends may still be awaited.
    number: u64,
    outstanding: usize,
    /// What all results here weigh, those on their way among them.
    bytes: usize,
    /// Sent with the present batch and not awaited yet.
    sent: Vec<Sent<M>>,
    backlog: VecDeque<(Rc<Ticket>, M)>,
}

impl Deliveries {
    pub(crate) fn new(shared: std::sync::Arc<Shared>) -> Rc<Self> {
        let (mailboxes, closures) = Default::default();
        let (over, feeders_made, dropped) = Default::default();
        Rc::new(Deliveries { shared, mailboxes, closures, over, feeders_made, dropped })
    }

    /// One of a ticket's targets has it, or never will.
    pub(crate) fn close(&self, ticket: &Ticket, dead: Option<DeadReason>) {
        if let Some(reason) = dead {
            if reason != DeadReason::SubscriberFull {
                tracing::warn!(task = %ticket.id, ?reason, "a result will not reach a target");
            }
            ticket.set_dead(dead);
        }
        ticket.open.set(ticket.open.get().saturating_sub(1));
        if ticket.open.get() == 0 {
            let Ticket { id, claim_no, .. } = *ticket;
            let mut over = self.over.borrow_mut();
            let over = over.entry(id.shard()).or_default();
            over.ends.push(DeliveryEnd { id, claim_no, dead: ticket.dead.get() });
            over.kept += isize::from(ticket.kept.get());
        }
    }

    /// A result has been handed to all who wanted it. If it isn't over yet, mailboxes keep it.
    pub(crate) fn keep(&self, ticket: &Ticket) {
        if ticket.open.get() > 0
            && let Some(ledger) = self.shared.shard(ticket.id.shard())
        {
            ticket.kept.set(true);
            ledger.results_kept(1);
        }
    }

    /// Results were taken over: wakes their shard if others wait in its file.
    pub(crate) fn make_room(&self, shard: ShardId) {
        if let Some(ledger) = self.shared.shard(shard)
            && ledger.has_undelivered()
        {
            ledger.link.send(Wake);
        }
    }

    /// Tells the shards which deliveries are over.
    pub(crate) fn report(&self) {
        let over = std::mem::take(&mut *self.over.borrow_mut());
        for (shard, Over { ends, kept }) in over {
            let Some(ledger) = self.shared.shard(shard) else { continue };
            ledger.results_kept(-kept);
            ledger.link.send(Delivered(ledger.delivered.post(DeliveredBatch { ends })));
        }
    }

    /// Sends a result to a mailbox, now or when its window has room.
    pub(crate) fn feed<M: Letter>(
        self: &Rc<Self>,
        mailbox: &Recipient<M>,
        ticket: &Rc<Ticket>,
        letter: M,
    ) {
        let limits = &self.shared.settings.delivery;
        let mut feeders = M::feeders(self).borrow_mut();
        if !feeders.contains_key(mailbox) {
            let number = self.feeders_made.get();
            self.feeders_made.set(number + 1);
            feeders.insert(mailbox.clone(), Feeder::new(mailbox.clone(), number));
        }
        let Some(feeder) = feeders.get_mut(mailbox) else { return };
        let bytes = feeder.bytes.saturating_add(letter.bytes());
        let fits = feeder.is_empty() || bytes <= limits.mailbox_bytes;
        if fits && feeder.outstanding < limits.window && feeder.backlog.is_empty() {
            feeder.bytes = bytes;
            feeder.send(ticket.clone(), letter);
        } else if fits && feeder.backlog.len() < limits.backlog {
            feeder.bytes = bytes;
            feeder.backlog.push_back((ticket.clone(), letter));
        } else {
            drop(feeders);
            self.close(ticket, Some(DeadReason::SubscriberFull));
            self.drop_one(ticket.id);
        }
    }

    /// Says that a full mailbox misses a result: the first at once, those that follow together. A
    /// line for each would slow all mailboxes.
    fn drop_one(self: &Rc<Self>, id: TaskId) {
        let mut dropped = self.dropped.borrow_mut();
        dropped.results += 1;
        dropped.last = Some(id);
        if std::mem::replace(&mut dropped.armed, true) {
            return;
        }
        dropped.say();
        let deliveries = self.clone();
        actix_rt::spawn(async move {
            loop {
                actix_rt::time::sleep(SAY_EVERY).await;
                let mut dropped = deliveries.dropped.borrow_mut();
                if dropped.results == 0 {
                    dropped.armed = false;
                    return;
                }
                dropped.say();
            }
        });
    }

    /// Awaits what was sent with this batch, one task per mailbox.
    pub(crate) fn await_sent(self: &Rc<Self>) {
        self.await_sent_of::<TaskResult>();
        self.await_sent_of::<Call>();
    }

    fn await_sent_of<M: Letter>(self: &Rc<Self>) {
        for feeder in M::feeders(self).borrow_mut().values_mut() {
            if feeder.sent.is_empty() {
                continue;
            }
            let (deliveries, mailbox, number) =
                (self.clone(), feeder.mailbox.clone(), feeder.number);
            let sent = std::mem::take(&mut feeder.sent);
            actix_rt::spawn(async move { deliveries.settle(mailbox, number, sent).await });
        }
    }

    /// Waits until the mailbox has handled what was sent, then sends on from its backlog.
    async fn settle<M: Letter>(
        self: Rc<Self>,
        mailbox: Recipient<M>,
        number: u64,
        mut sent: Vec<Sent<M>>,
    ) {
        while !sent.is_empty() {
            let count = sent.len();
            let bytes = sent.iter().map(|sent| sent.bytes).sum();
            let mut closed = false;
            // the last one first: a mailbox handles them in order, so the others are over by then
            // and the whole batch costs one wake-up
            for Sent { ticket, request, .. } in sent.into_iter().rev() {
                let answer = request.await;
                closed |= answer.is_err();
                let dead = answer.map_or(Some(DeadReason::SubscriberGone), M::dead);
                self.close(&ticket, dead);
            }
            self.report();
            sent = self.send_on((&mailbox, number), count, bytes, closed);
        }
    }

    fn send_on<M: Letter>(
        &self,
        (mailbox, number): (&Recipient<M>, u64),
        handled: usize,
        bytes: usize,
        closed: bool,
    ) -> Vec<Sent<M>> {
        let mut feeders = M::feeders(self).borrow_mut();
        let feeder = feeders.get_mut(mailbox).filter(|feeder| feeder.number == number);
        let Some(feeder) = feeder else { return Vec::new() };
        feeder.outstanding -= handled;
        feeder.bytes -= bytes;
        if closed && !mailbox.connected() {
            let backlog = std::mem::take(&mut feeder.backlog);
            feeders.remove(mailbox);
            drop(feeders);
            M::is_gone(&self.shared, mailbox);
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
            let Some((ticket, letter)) = feeder.backlog.pop_front() else { break };
            feeder.send(ticket, letter);
        }
        let sent = std::mem::take(&mut feeder.sent);
        if feeder.is_empty() && sent.is_empty() {
            // made again with the next result: one that has unsubscribed isn't held on to
            feeders.remove(mailbox);
        }
        sent
    }
}

impl<M: Letter> Feeder<M> {
    fn new(mailbox: Recipient<M>, number: u64) -> Self {
        let (sent, backlog) = Default::default();
        Feeder { mailbox, number, outstanding: 0, bytes: 0, sent, backlog }
    }

    /// Whether nothing is here or on its way.
    fn is_empty(&self) -> bool {
        self.outstanding == 0 && self.backlog.is_empty()
    }

    fn send(&mut self, ticket: Rc<Ticket>, letter: M) {
        self.outstanding += 1;
        let bytes = letter.bytes();
        // By a sender of its own: once a mailbox is full, actix parks a sender, and what a parked one
        // sends isn't under way until it is awaited. Our window is the bound.
        self.sent.push(Sent { ticket, bytes, request: self.mailbox.clone().send(letter) });
    }
}
