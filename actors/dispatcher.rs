//! The Dispatcher: what callers talk to.
//!
//! It checks submissions, chooses their shard and sends them there in batches, one per drain of its
//! mailbox. Its address stays valid for the queue's life: a panic in a handler is caught, and what
//! the handler worked with is made anew.

mod bulk;
mod context;
mod keys;
mod lookups;
mod reply;
mod routing;
mod unheard;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Handler, ResponseFuture};
use tokio::sync::oneshot;

pub(crate) use bulk::check_size;
pub use context::DispatcherContext;
use keys::Keys;
use reply::{Reply, Submitted};
use unheard::Unheard;

use super::incoming::Incoming;
use super::ledger::{ShardLedger, ShardState, Waiter};
use super::messages::{Answered, Insert, Submit, Subscribe, Unsubscribe, Wake};
use super::subscriptions::SubscriptionId;
use super::system::Shared;
use crate::admission::{Demand, Permit};
use crate::cached::Counted;
use crate::error::{Error, Result};
use crate::keys::slot_of;
use crate::panic_message;
use crate::proof::Point;
use crate::record::{ShardId, TaskId};
use crate::submission::{Accepted, SubmitLimits};

/// How long submissions wait before their shard is looked at again while it is being rebuilt.
const REBUILD_PAUSE: Duration = Duration::from_millis(5);

/// How long submissions wait for a shard that is being rebuilt. One whose disk is broken can be opened,
/// and give up its file again, for ever.
const REBUILD_LIMIT: Duration = Duration::from_secs(10);

/// How many submissions are sent on although the mailbox isn't empty yet.
const FLUSH_AT: usize = 512;

/// Checks, routes and answers. Users send it [`Submit`] and the other public messages.
///
/// Its address stays valid for the queue's life; after that requests end in a mailbox error or in
/// [`Error::ShuttingDown`]. A [`Submit`] that is sent to it directly, not through
/// [`Queue::submit`](crate::Queue::submit), is refused with [`Error::Busy`] instead of waiting when
/// the queue is full: when `limits.pending_submissions` tasks, or `limits.pending_bytes`, wait for
/// their commit, or `limits.ready_tasks` for their start, or the arguments of
/// `limits.cached_arguments` stay in memory and its own would, too.
///
/// It is refused where it is sent, too, while 4,096 tasks or 4 MiB of arguments that were sent so
/// stand in front of the Dispatchers of this process: actix bounds no mailbox, and this is the time
/// to drop what would pile up there. The answer is the same; what is dropped leaves some 32 bytes
/// until the Dispatcher has counted it. With `do_send` nobody hears the answer: the log then has the
/// number of refused tasks, at most once a second, and [`Queue::refused`](crate::Queue::refused).
pub struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    /// One buffer for all handlers, shared with replies that are still to be linked up.
    outgoing: Rc<RefCell<Outgoing>>,
    keys: Keys,
    unheard: Unheard,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dispatcher")
    }
}

/// What waits for the end of the mailbox's drain, per shard.
struct Outgoing {
    incoming: Vec<Incoming>,
    last: usize,
    armed: bool,
}

impl Outgoing {
    fn new(shared: &Shared) -> Self {
        let incoming = shared.shards.iter().map(|ledger| Incoming::new(ledger.clone()));
        Outgoing { incoming: incoming.collect(), last: 0, armed: false }
    }
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let outgoing = Rc::new(RefCell::new(Outgoing::new(&shared)));
        Dispatcher { shared, outgoing, keys: Keys::default(), unheard: Unheard::default() }
    }

    /// Starts it on this thread's System.
    pub(crate) fn start_here(self) -> Addr<Dispatcher> {
        DispatcherContext::start(self)
    }

    /// The permit of submissions: what they came with, or one that is free.
    fn permit(&self, held: Option<Permit>, demand: impl FnOnce() -> Demand) -> Result<Permit> {
        if !self.shared.is_accepting() {
            return Err(Error::ShuttingDown);
        }
        if let Some(held) = held {
            return Ok(held);
        }
        let demand = demand();
        check_size(&self.shared.settings.limits, demand)?;
        let free = self.shared.admission.try_enter(demand);
        free.ok_or_else(|| self.shared.busy(demand))
    }

    /// Checks a submission that has its permit.
    fn accept(&self, submit: Submit, permit: &mut Permit) -> Result<Accepted> {
        let limits = SubmitLimits { payload_bytes: self.shared.settings.limits.payload };
        let queues = self.shared.queues_of();
        let mut accepted = submit.check(&self.shared.registry, &queues, limits)?;
        if let Some(input) = accepted.cached.0.pop() {
            let room = permit.take_cached().expect("a permit has room for what stays in memory");
            accepted.cached.0.push(Arc::new(Counted::new(input, room)));
        }
        Ok(accepted)
    }

    /// Puts checked tasks where their shard's next batch is made up.
    fn enqueue(
        &self,
        index: usize,
        accepted: impl IntoIterator<Item = Accepted>,
        permit: Permit,
        waiter: Waiter,
    ) {
        let accepted = accepted.into_iter().inspect(|accepted| {
            if let Some(key) = &accepted.task.key {
                self.keys.came(slot_of(key));
            }
        });
        self.outgoing.borrow_mut().incoming[index].push(accepted, permit, waiter);
    }

    /// For each slot of ordering keys how many tasks have come and been sent on; it goes up only.
    pub(super) fn slots_sent(&self) -> Vec<u32> {
        self.keys.counts()
    }

    /// How many redrives have been sent on; it goes up only.
    pub(super) fn redrives_sent(&self) -> u32 {
        self.keys.redrives()
    }

    /// The slots of which a task waits here.
    pub(super) fn slots_waiting(&self) -> HashSet<u16> {
        self.outgoing.borrow().incoming.iter().flat_map(Incoming::slots).collect()
    }

    /// Whether shards were being asked for their slots; from now on they are, or aren't.
    pub(super) fn is_asking_for_slots(&self, asking: bool) -> bool {
        self.keys.set_asking(asking)
    }

    /// Each shard has its part of the slots of ordering keys, or not.
    pub(super) fn slots_are_even(&self, even: bool) {
        self.keys.set_even(even);
    }

    fn arm(&self, context: &mut DispatcherContext) {
        if !std::mem::replace(&mut self.outgoing.borrow_mut().armed, true) {
            context.notify(Wake);
        }
    }

    /// Sends what has come together to the shards. What is for a shard that is being rebuilt waits for
    /// some time, and is refused then; tells whether there is any.
    fn send_on(&self) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut waits = false;
        for (incoming, ledger) in outgoing.incoming.iter_mut().zip(&self.shared.shards) {
            if incoming.is_empty() {
                continue;
            }
            if ledger.state() == ShardState::Opening {
                if incoming.oldest().is_some_and(|since| since.elapsed() > REBUILD_LIMIT) {
                    let unavailable = || Error::ShardUnavailable { shard: ledger.id };
                    self.shared.callback.refuse(incoming.take_all(), unavailable);
                } else {
                    waits = true;
                }
                continue;
            }
            if self.keys.any() {
                incoming.slots().for_each(|slot| self.keys.came(slot));
            }
            ledger.link.send(Insert(incoming.take_all()));
            self.shared.traffic.stir();
        }
        waits
    }

    fn refused(&self, tasks: usize, error: Error) -> Submitted {
        Submitted(Reply::Refused { tasks, error, unheard: self.unheard.clone() })
    }

    /// Refuses tasks for which there is no room, and says so if nobody waits for the answer.
    fn refuse_as_busy(&self, tasks: usize, waiter: Waiter, context: &mut DispatcherContext) {
        let error = self.shared.busy(Demand { tasks, ..Demand::default() });
        match waiter {
            Waiter::One(Some(waiter)) => drop(waiter.send(Err(error))),
            Waiter::All(Some(waiter)) => drop(waiter.send(Err(error))),
            Waiter::One(None) | Waiter::All(None) => self.unheard.add(tasks, error, context),
            Waiter::Told => {}
        }
    }

    /// Runs a handler's body. After a panic the buffers are made anew: what was in them is refused
    /// by its drop, and the caller gets the error.
    pub(super) fn guarded<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        match panic_message::survive(|| body(self)) {
            Some(result) => result,
            None => {
                tracing::error!("the dispatcher panicked; its state is made anew");
                self.shared.points.lost();
                self.outgoing = Rc::new(RefCell::new(Outgoing::new(&self.shared)));
                Err(Error::ShardUnavailable { shard: ShardId(0) })
            }
        }
    }

    /// Asks a task's shard.
    fn ask_about<T: Send + 'static>(
        &mut self,
        id: TaskId,
        send: impl FnOnce(&ShardLedger, oneshot::Sender<Result<T>>),
    ) -> Result<ResponseFuture<Result<T>>> {
        self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherLookup);
            Ok(ask(dispatcher.ledger_of(id)?, send))
        })
    }

    /// All shards that there are.
    fn present(&mut self) -> Result<Vec<Arc<ShardLedger>>> {
        self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherLookup);
            Ok(dispatcher.shared.present().cloned().collect())
        })
    }

    fn ledger_of(&self, id: TaskId) -> Result<&Arc<ShardLedger>> {
        let ledger = self.shared.shard(id.shard()).ok_or(Error::NotFound { id })?;
        match ledger.state() {
            ShardState::Quarantined => Err(Error::ShardUnavailable { shard: id.shard() }),
            ShardState::Closed => Err(Error::ShuttingDown),
            ShardState::Absent => Err(Error::NotFound { id }),
            ShardState::Opening | ShardState::Open => Ok(ledger),
        }
    }
}

/// Sends a question to a shard and waits for its answer.
pub(super) fn ask<T: Send + 'static>(
    ledger: &Arc<ShardLedger>,
    send: impl FnOnce(&ShardLedger, oneshot::Sender<Result<T>>),
) -> ResponseFuture<Result<T>> {
    let (answer, answered) = oneshot::channel();
    let shard = ledger.id;
    send(ledger, answer);
    Box::pin(async move { answered.await.unwrap_or(Err(Error::ShardUnavailable { shard })) })
}

fn fail<T: 'static>(error: Error) -> ResponseFuture<Result<T>> {
    Box::pin(async move { Err(error) })
}

impl Actor for Dispatcher {
    type Context = DispatcherContext;

    fn started(&mut self, context: &mut DispatcherContext) {
        context.set_mailbox_capacity(0);
    }
}

impl Handler<Submit> for Dispatcher {
    type Result = Submitted;

    fn handle(&mut self, mut submit: Submit, context: &mut DispatcherContext) -> Submitted {
        if self.outgoing.borrow().incoming.iter().any(|incoming| incoming.len() >= FLUSH_AT) {
            // the buffers are made anew after a panic
            let _ = self.guarded(|dispatcher| Ok(dispatcher.send_on()));
        }
        let accepted = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherSubmit);
            // first of all: what is refused is to cost little
            let held = submit.permit.take();
            let mut permit = dispatcher.permit(held, || submit.demand())?;
            let wanted = submit.id();
            dispatcher.rouse_for(wanted, submit.ordering_key());
            let accepted = dispatcher.accept(submit, &mut permit)?;
            let index = dispatcher.route(wanted, accepted.task.key.as_deref())?;
            dispatcher.enqueue(index, [accepted], permit, Waiter::One(None));
            Ok(index)
        });
        match accepted {
            Ok(index) => {
                self.arm(context);
                Submitted(Reply::Accepted { outgoing: self.outgoing.clone(), index })
            }
            Err(error) => self.refused(1, error),
        }
    }
}

impl Handler<Answered> for Dispatcher {
    type Result = ();

    /// Here, because waking many callers takes longer than storing their tasks.
    fn handle(&mut self, Answered { incoming, submitted }: Answered, _: &mut DispatcherContext) {
        // a waker is the caller's code; those who aren't reached are told by the drop
        if panic_message::survive(|| incoming.answer(&submitted)).is_none() {
            tracing::error!("a caller's waker panicked");
        }
    }
}

impl Handler<Wake> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut DispatcherContext) {
        self.outgoing.borrow_mut().armed = false;
        let waits = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherWake);
            Ok(dispatcher.send_on())
        });
        if let Ok(true) = waits {
            self.outgoing.borrow_mut().armed = true;
            context.run_later(REBUILD_PAUSE, |_, context| context.notify(Wake));
        }
    }
}

impl Handler<Subscribe> for Dispatcher {
    type Result = Result<SubscriptionId>;

    fn handle(&mut self, subscribe: Subscribe, _: &mut DispatcherContext) -> Self::Result {
        self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherSubscribe);
            if let Some(name) = &subscribe.name
                && dispatcher.shared.registry.get(name).is_none()
            {
                return Err(Error::UnknownTask { name: name.to_string() });
            }
            let Subscribe { name, mailbox } = subscribe;
            Ok(dispatcher.shared.subscriptions.add(name, mailbox))
        })
    }
}

impl Handler<Unsubscribe> for Dispatcher {
    type Result = bool;

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut DispatcherContext) -> bool {
        let removed = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherUnsubscribe);
            Ok(dispatcher.shared.subscriptions.remove(id))
        });
        removed.unwrap_or(false)
    }
}
