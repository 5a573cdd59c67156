//! A ShardActor: owns one shard's store, on a thread of its own.
//!
//! It buffers what comes and does all of it in one transaction when its mailbox is empty: group
//! commit. Nothing is answered and nothing in memory changes before that transaction is durable.

mod claims;
mod collect;
mod flush;
mod reads;
mod refused;
mod supervised;
mod unsent;
mod upkeep;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};

use super::incoming::Incoming;
use super::ledger::{DeliveredBatch, Done, FinishBatch, ShardLedger};
use super::messages::{CancelRow, Delivered, Finish, Insert, RedriveRow, Rouse, Wake};
use super::outbox::Parcel;
use super::supervision::ChildEnd;
use super::system::Shared;
use crate::clock::Timestamp;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::load::{Commits, Smoothed};
use crate::proof::{self, Point};
use crate::store::ShardStore;

pub(crate) use supervised::{ShardChild, open};

/// The longest that a shard sleeps while something waits for its time: so that a suspend or a step
/// of the clock is noticed.
const NAP_MAX: Duration = Duration::from_secs(60);

/// A batch of this many items is large enough not to wait for more, and one waits for no fewer than
/// this many that are under way.
const GATHER: usize = 2_048;
const GATHER_FROM: usize = 16;

/// How soon after the last flush a batch may wait for more, and for how long.
const GATHER_WITHIN: Duration = Duration::from_millis(2);
const GATHER_FOR: Duration = Duration::from_millis(1);

/// Stores, claims, settles: the one writer of a shard.
pub(crate) struct ShardActor<S: ShardStore> {
    /// Absent only while it works.
    store: Option<S>,
    ledger: Arc<ShardLedger>,
    shared: Arc<Shared>,
    inbox: Inbox,
    /// Whether a flush is on its way.
    armed: bool,
    /// After a refused batch: ends only, until some are stored or its pause is over.
    ends_only: bool,
    /// Submissions that waited for ends to be stored alone are refused the second time.
    second_try: bool,
    /// After a refused batch nothing is tried until its pause is over, whoever wakes this.
    pausing: bool,
    /// In how long, when that was decided, it looks by itself whether the ballast can be restored.
    restoring: Option<(Duration, SpawnHandle)>,
    /// When the last flush began.
    flushed: tokio::time::Instant,
    /// What commits take, and seconds of an attempt.
    commit: Commits,
    service: Smoothed,
    /// Whether what stood first in the last batch blocks, and had no thread soon or takes too long.
    lacked_thread: bool,
    /// When it wakes itself, because free slots are kept for another shard until then.
    looks_at: Option<tokio::time::Instant>,
    /// When the last deliveries ended.
    delivered_at: tokio::time::Instant,
    /// Since when a flush lets others run first.
    gathering: Option<tokio::time::Instant>,
    timer: Option<SpawnHandle>,
    /// In the time of `confirmed_now`.
    maintain_at: Timestamp,
    /// When a step of maintenance began last.
    maintained: tokio::time::Instant,
    /// Why the last checkpoint failed, if it did and the file wasn't given up for it.
    checkpoint_fails: Option<StoreErrorKind>,
    end: Rc<Cell<ChildEnd>>,
}

/// What waits for the next transaction.
struct Inbox {
    asked: Asked,
    finishes: Vec<Parcel<FinishBatch>>,
    delivered: Vec<Parcel<DeliveredBatch>>,
}

/// What callers asked for, who wait for an answer.
struct Asked {
    incoming: Incoming,
    cancels: Vec<CancelRow>,
    redrives: Vec<RedriveRow>,
}

impl Asked {
    fn new(ledger: &Arc<ShardLedger>) -> Self {
        let (cancels, redrives) = Default::default();
        Asked { incoming: Incoming::new(ledger.clone()), cancels, redrives }
    }

    fn is_empty(&self) -> bool {
        self.incoming.is_empty() && self.cancels.is_empty() && self.redrives.is_empty()
    }

    /// Adds what came later.
    fn append(&mut self, mut later: Asked) {
        self.incoming.append(later.incoming);
        self.cancels.append(&mut later.cancels);
        self.redrives.append(&mut later.redrives);
    }
}

impl Inbox {
    fn new(ledger: &Arc<ShardLedger>) -> Self {
        Inbox { asked: Asked::new(ledger), finishes: Vec::new(), delivered: Vec::new() }
    }

    /// The attempts that are over, in the order in which their ends are settled.
    fn done(&self) -> impl Iterator<Item = &Done> {
        self.finishes.iter().flat_map(|parcel| &parcel.body().done)
    }

    /// How many rows wait to be written.
    fn items(&self) -> usize {
        let finishes = self.finishes.iter().map(|parcel| parcel.body().done.len());
        let delivered = self.delivered.iter().map(|parcel| parcel.body().ends.len());
        self.asked.incoming.len() + finishes.chain(delivered).sum::<usize>()
    }
}

impl<S: ShardStore> ShardActor<S> {
    pub(crate) fn new(
        store: S,
        ledger: Arc<ShardLedger>,
        shared: Arc<Shared>,
        end: Rc<Cell<ChildEnd>>,
    ) -> Self {
        let now = shared.start.confirm(shared.clock.now());
        let actor = ShardActor {
            store: Some(store),
            inbox: Inbox::new(&ledger),
            ledger,
            shared,
            armed: false,
            ends_only: false,
            second_try: false,
            pausing: false,
            restoring: None,
            flushed: tokio::time::Instant::now(),
            commit: Default::default(),
            service: Smoothed::default(),
            lacked_thread: false,
            looks_at: None,
            delivered_at: tokio::time::Instant::now(),
            gathering: None,
            timer: None,
            maintain_at: now,
            maintained: tokio::time::Instant::now(),
            checkpoint_fails: None,
            end,
        };
        // before anybody can submit
        actor.publish_not_started();
        actor
    }

    /// Has a flush run once everything that is in the mailbox now has been handled; at once if
    /// there is a batch full already.
    ///
    /// By way of the mailbox, which stands still while the store is away. What actix runs beside
    /// it (`notify`, timers) doesn't: it also runs between a handler and the future that the
    /// handler has the actor wait for, and a stream of reads would put it off for ever.
    fn arm(&mut self, context: &mut Context<Self>) {
        if self.inbox.asked.incoming.len() >= self.shared.settings.limits.batch {
            self.flush(context);
        } else {
            self.arm_later(context);
        }
    }

    /// The same, but never at once: what a batch leaves to be done for its file comes first.
    fn arm_later(&mut self, context: &mut Context<Self>) {
        if !self.armed {
            self.armed = true;
            context.address().do_send(Wake);
        }
    }

    /// Lets the other threads run before a small batch that follows closely on the last one, while
    /// much else of this shard is under way: a transaction costs as much as many rows, and they are
    /// about to bring more. A lone task doesn't wait: with it nothing else is under way.
    fn gathers(&mut self) -> bool {
        // where there are no other threads, nothing would come, nor would time pass
        if proof::on_one_thread() || self.flushed.elapsed() > GATHER_WITHIN {
            return false;
        }
        let here = self.inbox.items();
        // attempts that take longer than a batch waits bring nothing in time
        let soon = self.service.get().is_none_or(|seconds| seconds < GATHER_FOR.as_secs_f64());
        let attempts = if soon { self.ledger.attempts().len() } else { 0 };
        let on_the_way = self.ledger.gauges.incoming.load(Ordering::Acquire)
            + attempts
            + self.ledger.results_on_their_way();
        if here >= GATHER.min(self.shared.settings.limits.batch) || on_the_way < here + GATHER_FROM
        {
            return false;
        }
        let since = *self.gathering.get_or_insert_with(tokio::time::Instant::now);
        if since.elapsed() > GATHER_FOR {
            return false;
        }
        std::thread::yield_now();
        true
    }

    /// Does something with the store; no other message is handled meanwhile.
    fn with_store<T: 'static, F>(
        &mut self,
        context: &mut Context<Self>,
        work: impl FnOnce(S) -> F,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) where
        F: Future<Output = (S, T)> + 'static,
    {
        let Some(store) = self.store.take() else { return };
        let working = work(store).into_actor(self).map(|(store, result), actor, context| {
            actor.store = Some(store);
            then(actor, result, context);
        });
        context.wait(working);
    }

    /// The error that callers of this shard see.
    fn error(&self, error: StoreError, action: &'static str) -> Error {
        error.on(self.ledger.id, action)
    }

    /// Sees to it that it wakes up when the next row is due or maintenance is.
    fn set_timer(&mut self, context: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let Some(store) = &self.store else { return };
        self.ledger.set_asleep(!self.armed);
        let due = store.outlook().next_due.map(|due| due.since(self.shared.clock.now()));
        let nap = nap(due, self.maintain_at.since(self.confirmed_now()));
        let wake = |actor: &mut Self, context: &mut Context<Self>| {
            actor.timer = None;
            context.address().do_send(Wake);
        };
        self.timer = Some(context.run_later(nap, wake));
    }
}

/// How long a shard sleeps: until a row is due or maintenance is, which go by different clocks.
fn nap(due_in: Option<Duration>, maintenance_in: Duration) -> Duration {
    let next = due_in.map_or(maintenance_in, |due_in| due_in.min(maintenance_in));
    next.clamp(Duration::from_millis(1), NAP_MAX)
}

impl<S: ShardStore> Actor for ShardActor<S> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.restore_ballast_later(context);
        context.address().do_send(Wake);
    }
}

impl<S: ShardStore> Handler<Insert> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, Insert(incoming): Insert, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardInsert);
        self.inbox.asked.incoming.append(incoming);
        self.arm(context);
    }
}

impl<S: ShardStore> Handler<Finish> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, Finish(parcel): Finish, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardFinish);
        self.inbox.finishes.push(parcel);
        self.arm(context);
    }
}

impl<S: ShardStore> Handler<Delivered> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, Delivered(parcel): Delivered, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardDelivered);
        self.inbox.delivered.push(parcel);
        self.arm(context);
    }
}

impl<S: ShardStore> Handler<Wake> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardWake);
        if self.gathers() {
            // behind what has come meanwhile
            self.armed = true;
            context.address().do_send(Wake);
            return;
        }
        self.armed = false;
        self.gathering = None;
        self.flush(context);
    }
}

impl<S: ShardStore> Handler<Rouse> for ShardActor<S> {
    type Result = ();

    /// What it is about follows, or doesn't.
    fn handle(&mut self, _: Rouse, _: &mut Context<Self>) {
        self.ledger.set_asleep(!self.armed);
    }
}

impl<S: ShardStore> Handler<CancelRow> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, message: CancelRow, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardCancel);
        self.inbox.asked.cancels.push(message);
        self.arm(context);
    }
}

impl<S: ShardStore> Handler<RedriveRow> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, message: RedriveRow, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardRedrive);
        self.inbox.asked.redrives.push(message);
        self.arm(context);
    }
}
