//! Reading one shard's rows, copying its file, closing it.

use actix::{
    ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
};

use super::ShardActor;
use super::refused::RETRY_PAUSE;
use crate::actors::messages::{
    BackupTo, Close, CountRows, GetRow, ListRows, Recheck, SlotsInUse, Watch,
};
use crate::actors::supervision::ChildEnd;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::panic_message::OneByOne;
use crate::proof::Point;
use crate::record::{Delivery, TaskId, TaskRecord};
use crate::result::TaskResult;
use crate::store::{Lookup, ShardStore};

impl<S: ShardStore> ShardActor<S> {
    /// Reads a task, then does something with its record.
    fn look_up(
        &mut self,
        id: TaskId,
        context: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Result<TaskRecord>, &mut Context<Self>) + 'static,
    ) {
        self.with_store(
            context,
            move |mut store| async move {
                let lookup = store.get(id).await;
                (store, lookup)
            },
            move |actor, lookup, context| {
                let found = actor.found(id, lookup);
                then(actor, found, context);
            },
        );
    }

    fn found(&self, id: TaskId, lookup: Result<Lookup, StoreError>) -> Result<TaskRecord> {
        match lookup {
            Ok(Lookup::Found(record)) => Ok(*record),
            Ok(Lookup::Gone) => Err(Error::ResultExpired { id }),
            Ok(Lookup::Never) => Err(Error::NotFound { id }),
            Err(error) => Err(self.error(error, "read a task")),
        }
    }

    pub(super) fn result_of(&self, record: &TaskRecord) -> Option<TaskResult> {
        TaskResult::of_record(record, self.shared.registry.get(&record.name).cloned())
    }
}

impl<S: ShardStore> Handler<GetRow> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, GetRow { id, answer }: GetRow, context: &mut Context<Self>) {
        self.shared.points.pass_in(self.ledger.id, Point::ShardLookup);
        self.look_up(id, context, move |_, found, _| drop(answer.send(found)));
    }
}

impl<S: ShardStore> Handler<Watch> for ShardActor<S> {
    type Result = ();

    /// Reads and, if the task hasn't ended, enlists: one message, so no end is missed between.
    fn handle(&mut self, Watch { id, answer }: Watch, context: &mut Context<Self>) {
        self.look_up(id, context, move |actor, found, _| {
            match found.map(|record| actor.result_of(&record)) {
                Ok(None) => {
                    let mut watchers = actor.ledger.watchers();
                    let waiting = watchers.entry(id.sequence()).or_default();
                    waiting.retain(|watcher| !watcher.is_closed());
                    waiting.push(answer);
                }
                Ok(Some(result)) => drop(answer.send(Ok(result))),
                Err(error) => drop(answer.send(Err(error))),
            }
        });
    }
}

/// Whether reading it again helps nothing.
fn is_damaged(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.kind() == StoreErrorKind::Corrupt)
}

impl<S: ShardStore> Handler<Recheck> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, Recheck(id): Recheck, context: &mut Context<Self>) {
        self.look_up(id, context, move |actor, found, context| {
            let sequence = id.sequence();
            let ended = found.map(|record| (record.delivery.clone(), actor.result_of(&record)));
            let (ended, targets) = match ended {
                Ok((_, None)) => return,
                // its closures and mailboxes are for its delivery; for one that is on its way they come
                // too late
                Ok((Delivery::Pending, Some(result))) => (Ok(result), None),
                Ok((_, Some(result))) => (Ok(result), actor.ledger.targets().remove(&sequence)),
                Err(error @ (Error::NotFound { .. } | Error::ResultExpired { .. })) => {
                    (Err(error), actor.ledger.targets().remove(&sequence))
                }
                // a damaged record that is yet to run still ends
                Err(error) if is_damaged(&error) => (Err(error), None),
                Err(error) => {
                    tracing::warn!(task = %id, %error, "cannot see what became of a task");
                    // as a message: a delayed item can be run while the store is elsewhere
                    context.run_later(RETRY_PAUSE, move |_, context| {
                        context.address().do_send(Recheck(id));
                    });
                    return;
                }
            };
            let cached = actor.ledger.cached().remove(&sequence);
            if cached.is_some() || targets.is_some() {
                let targets = OneByOne(targets.unwrap_or_default());
                actor.shared.callback.discard((cached, targets));
            }
            let watching = actor.ledger.watchers().remove(&sequence);
            for watcher in watching.into_iter().flatten() {
                drop(watcher.send(ended.clone()));
            }
        });
    }
}

impl<S: ShardStore> Handler<ListRows> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, ListRows { filter, answer }: ListRows, context: &mut Context<Self>) {
        self.with_store(
            context,
            move |mut store| async move {
                let page = store.list(&filter).await;
                (store, page)
            },
            move |actor, page, _| {
                drop(answer.send(page.map_err(|error| actor.error(error, "list tasks"))));
            },
        );
    }
}

impl<S: ShardStore> Handler<CountRows> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, CountRows { answer }: CountRows, context: &mut Context<Self>) {
        self.with_store(
            context,
            move |mut store| async move {
                let counts = store.counts().await;
                (store, counts)
            },
            move |actor, counts, _| {
                drop(answer.send(counts.map_err(|error| actor.error(error, "count tasks"))));
            },
        );
    }
}

impl<S: ShardStore> Handler<SlotsInUse> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, SlotsInUse { answer }: SlotsInUse, context: &mut Context<Self>) {
        let asked = &self.inbox.asked;
        let mut waiting: Vec<u16> = asked.incoming.slots().collect();
        if !asked.redrives.is_empty() {
            // it can have any key that belongs here; with another one it is refused
            let placed = self.shared.shards_of_slots();
            let own = (0..).zip(placed).filter(|(_, shard)| *shard == self.ledger.id.0);
            waiting.extend(own.map(|(slot, _)| slot));
        }
        self.with_store(
            context,
            move |mut store| async move {
                let slots = store.slots_in_use().await;
                (store, slots)
            },
            move |actor, slots, _| {
                let slots = slots.map(|stored| stored.into_iter().chain(waiting).collect());
                drop(answer.send(slots.map_err(|error| actor.error(error, "read its keys"))));
            },
        );
    }
}

impl<S: ShardStore> Handler<BackupTo> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, message: BackupTo, context: &mut Context<Self>) {
        let BackupTo { file, answer } = message;
        self.with_store(
            context,
            move |mut store| async move {
                let copied = store.backup(&file).await;
                (store, copied)
            },
            move |actor, copied, _| {
                drop(answer.send(copied.map_err(|error| actor.error(error, "be copied"))));
            },
        );
    }
}

impl<S: ShardStore> Handler<Close> for ShardActor<S> {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Close { answer }: Close, _: &mut Context<Self>) -> Self::Result {
        let store = self.store.take();
        let closing = async move {
            match store {
                Some(store) => store.close().await,
                None => Ok(()),
            }
        };
        let closed = closing.into_actor(self).map(move |closed, actor, context| {
            actor.end.set(ChildEnd::Stopped);
            drop(answer.send(closed.map_err(|error| actor.error(error, "close its file"))));
            context.stop();
        });
        Box::pin(closed)
    }
}
