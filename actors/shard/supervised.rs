//! How a ShardActor comes to be, the first time and after each end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::Addr;

use super::ShardActor;
use crate::actors::ledger::{Answer, ShardLedger, ShardState};
use crate::actors::messages::{Delivered, Finish, Recheck};
use crate::actors::supervision::{Child, ChildEnd};
use crate::actors::system::Shared;
use crate::error::{Result, StoreError};
use crate::proof::Points;
use crate::record::TaskId;
use crate::store::{self, Lookup, OpenKind, Recovered, ShardStore, SqliteStore};

/// Builds the ShardActors of one shard.
pub(crate) struct ShardChild {
    ledger: Arc<ShardLedger>,
    shared: Arc<Shared>,
    /// The first store, opened when the queue started.
    first: Option<SqliteStore>,
    /// Called when the first actor is up.
    up: Option<Box<dyn FnOnce()>>,
    end: Rc<Cell<ChildEnd>>,
}

impl ShardChild {
    pub(crate) fn new(
        ledger: Arc<ShardLedger>,
        shared: Arc<Shared>,
        first: SqliteStore,
        up: impl FnOnce() + 'static,
    ) -> Self {
        let end = Rc::new(Cell::new(ChildEnd::Stopped));
        ShardChild { ledger, shared, first: Some(first), up: Some(Box::new(up)), end }
    }

    async fn reopen(&self) -> Result<SqliteStore> {
        let shard = self.ledger.id;
        let opened = open(&self.shared, &self.ledger, OpenKind::Rebuild);
        let unavailable = |error: StoreError| error.on(shard, "be opened again");
        let answers = std::mem::take(&mut *self.ledger.unanswered());
        let (mut store, _) = match opened {
            Ok(opened) => opened,
            // dropped unanswered, they tell their callers that the outcome is unknown
            Err(error) => return Err(unavailable(error)),
        };
        for (answer, why) in answers {
            self.answer(answer, why, &mut store).await;
        }
        Ok(store)
    }

    /// Tells the truth about a submission whose commit failed: it is on the disk or it isn't. What
    /// was to stay in memory of one that isn't is let go by `catch_up`.
    async fn answer(&self, answer: Answer, why: StoreError, store: &mut SqliteStore) {
        // each of them: some may have been stored before, under the same id
        for id in answer.ids() {
            match store.get(*id).await {
                Ok(Lookup::Found(_)) => {}
                Ok(_) => {
                    let error = why.on(self.ledger.id, "store tasks");
                    let tasks = answer.ids().len();
                    self.ledger.gauges.refused.fetch_add(tasks as u64, Ordering::Relaxed);
                    if !answer.refuse(error.clone()) {
                        tracing::warn!(tasks, %error, "submissions that nobody waits for are refused");
                    }
                    return;
                }
                Err(_) => return drop(answer),
            }
        }
        if !answer.ids().is_empty() {
            answer.stored();
        }
    }

    /// What its predecessor stored and didn't get to tell: those who wait for an end of a task that
    /// has ended hear of it. What is kept of tasks that have ended or were never stored is let go.
    fn catch_up(&self, address: &Addr<ShardActor<SqliteStore>>) {
        let mut sequences: Vec<u64> = self.ledger.watchers().keys().copied().collect();
        sequences.extend(self.ledger.cached().keys());
        sequences.extend(self.ledger.targets().keys());
        sequences.sort_unstable();
        sequences.dedup();
        for sequence in sequences {
            address.do_send(Recheck(TaskId::new(self.ledger.id, sequence)));
        }
    }
}

/// Opens a shard's file and recovers it or reconciles it with memory.
pub(crate) fn open(
    shared: &Shared,
    ledger: &ShardLedger,
    kind: OpenKind,
) -> Result<(SqliteStore, Recovered), StoreError> {
    let directory = shared.directory()?;
    let ballast = directory.ballast_bytes();
    let opened = store::open_shard(&directory, ledger.id, &shared.open_options(), kind);
    if ballast > 0 && directory.ballast_bytes() == 0 {
        // the opening needed it
        shared.ballast_is_freed(ballast);
    }
    let opened = opened?;
    let memory = (kind == OpenKind::Rebuild).then_some(ledger as &dyn store::Memory);
    let options = shared.store_options();
    store::open_store(opened, ledger.id, options, shared.clock.now(), kind, memory)
}

impl Child for ShardChild {
    type Actor = ShardActor<SqliteStore>;

    fn points(&self) -> &Points {
        &self.shared.points
    }

    fn name(&self) -> String {
        format!("shard {}", self.ledger.id)
    }

    async fn build(&mut self) -> Result<Self::Actor> {
        let store = match self.first.take() {
            Some(store) => store,
            None => self.reopen().await?,
        };
        self.end.set(ChildEnd::Stopped);
        let (ledger, shared) = (self.ledger.clone(), self.shared.clone());
        Ok(ShardActor::new(store, ledger, shared, self.end.clone()))
    }

    fn started(&mut self, address: &Addr<Self::Actor>) {
        self.ledger.set_state(ShardState::Open);
        for parcel in self.ledger.finishes.open() {
            address.do_send(Finish(parcel));
        }
        for parcel in self.ledger.delivered.open() {
            address.do_send(Delivered(parcel));
        }
        // its predecessor may have died with credits that others waited for
        self.shared.wake(self.shared.shards.iter().map(|ledger| ledger.id).collect());
        match self.up.take() {
            Some(up) => up(),
            None => self.catch_up(address),
        }
    }

    fn end(&mut self) -> ChildEnd {
        self.end.get()
    }

    fn ended(&mut self, end: ChildEnd) {
        self.ledger.no_flush();
        let (slots, stopped) = (&self.shared.slots, end == ChildEnd::Stopped);
        // it may have been waiting for the whole queue, to run a suspect alone
        self.shared.wake(slots.give_up_alone(self.ledger.id));
        if !stopped {
            // how long it takes until it can store something again, nobody knows
            self.shared.wake(slots.stores_nothing(self.ledger.id));
            // it may have died with credits that others waited for
            self.shared.wake(self.shared.shards.iter().map(|ledger| ledger.id).collect());
        }
        self.ledger.set_state(if stopped { ShardState::Closed } else { ShardState::Opening });
    }

    fn quarantine(&mut self, on: bool) {
        if on {
            self.ledger.set_state(ShardState::Quarantined);
            self.shared.wake(self.shared.slots.stores_nothing(self.ledger.id));
        }
    }
}
