//! What every [`ShardStore`] must do, whatever it keeps tasks in.
//!
//! Each test is an async function over a [`Factory`], which opens the store, ends it as a crash
//! would, and opens it again. [`sqlite`] runs all of them over files. A [`World`] drives a store
//! and compares, after each batch, the kept counts with what a walk over all tasks counts.

mod deliveries;
mod ends;
mod model;
mod order;
mod recovery;
mod sqlite;
mod upkeep;
mod window;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Batch, BatchResult, CancelOutcome, Cancellation, Claim, ClaimBudget, DeliveryEnd, ListFilter,
    Lookup, Memory, NewTask, Overrides, Parent, Recovered, RedriveOutcome, Runnable, Settled,
    Settlement, ShardStore, StoreOptions,
};
use crate::clock::{Clock, Timestamp};
use crate::codec::Codec;
use crate::lifecycle::{self, AttemptEvent, Next, Situation};
use crate::order::Ageing;
use crate::queues::{QueueIndex, Queues};
use crate::record::{
    DeadReason, Delivery, FailureKind, Outcome, RetryPolicy, TaskFailure, TaskId, TaskRecord,
    TaskStatus,
};

/// Makes stores, and ends them in the two ways in which a process can end.
pub(super) trait Factory {
    type Store: ShardStore;

    /// Opens the store as a process does that begins.
    fn open(&mut self, options: &StoreOptions, now: Timestamp) -> (Self::Store, Recovered);

    /// Ends the store as the death of its process does.
    fn crash(&mut self, store: Self::Store);

    /// Opens the store again within the same process.
    fn rebuild(
        &mut self,
        store: Self::Store,
        options: &StoreOptions,
        now: Timestamp,
        memory: &dyn Memory,
    ) -> (Self::Store, Recovered);

    /// Where a backup of the open store goes.
    fn backup_file(&mut self) -> PathBuf;

    /// Opens what the backup holds, as a store of its own.
    fn open_backup(&mut self, options: &StoreOptions, now: Timestamp) -> Self::Store;
}

/// A plain task.
const MAIL: usize = 0;
/// A task that is known to be quick, where a test says so.
const QUICK: usize = 1;
/// A task whose ends a named subscriber gets.
const AUDITED: usize = 2;
/// A durable callback.
const ON_END: usize = 3;
/// The named subscriber of [`AUDITED`].
const LOG: usize = 4;
const NAMES: [&str; 5] = ["mail", "quick", "audited", "on_end", "log"];

const FIRST_DAY: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MAX_CRASHES: u32 = 3;

fn options() -> StoreOptions {
    let names: Vec<Arc<str>> = NAMES.into_iter().map(Arc::from).collect();
    let mut subscribers = vec![Vec::new(); NAMES.len()];
    subscribers[AUDITED].push(Arc::from("log"));
    StoreOptions {
        clock: Clock::default(),
        syncs: true,
        names: names.into(),
        queue_of: vec![QueueIndex::DEFAULT; NAMES.len()].into(),
        queues: Queues::new(),
        subscribers: subscribers.into(),
        ageing: Ageing::new(Duration::from_secs(60)),
        max_crashes: MAX_CRASHES,
        window: 1_000,
        keep_results: Duration::from_secs(3_600),
        keep_dead: Duration::from_secs(36_000),
        sweep: Duration::from_secs(60),
    }
}

fn task(definition: usize) -> NewTask {
    NewTask {
        id: None,
        definition,
        queue: QueueIndex::DEFAULT,
        key: None,
        codec: Codec::default(),
        payload: Some(Arc::from(&b"payload"[..])),
        priority: 0,
        due_at: None,
        volatile: false,
        callbacks: None,
        overrides: None,
    }
}

fn with_priority(priority: i16) -> NewTask {
    NewTask { priority, ..task(MAIL) }
}

/// A task whose end is reported by this many durable callbacks.
fn with_callbacks(count: usize) -> NewTask {
    NewTask { callbacks: Some(vec![Arc::from("on_end"); count].into()), ..task(MAIL) }
}

/// A task for whose result a mailbox waits.
fn awaited() -> NewTask {
    NewTask { volatile: true, ..task(MAIL) }
}

fn failure() -> AttemptEvent {
    let failure = TaskFailure::new(FailureKind::Error, "it was raining");
    AttemptEvent::Failed { failure, retry_in: None }
}

fn fatal() -> AttemptEvent {
    let failure = TaskFailure::new(FailureKind::Fatal, "it can't be done");
    AttemptEvent::Failed { failure, retry_in: None }
}

/// The settlement of a claimed task's attempt that ended so. Retries follow after 0 to 10 s, after
/// 5 s with this luck, and the third failure is the last.
fn settlement(claim: &Claim, event: AttemptEvent, now: Timestamp) -> Settlement {
    let output = (event == AttemptEvent::Finished).then(|| Arc::from(&b"output"[..]));
    let situation = Situation {
        now,
        counters: claim.counters,
        retry: RetryPolicy { max_attempts: 3, backoff_min: 10 * SECOND, backoff_max: 10 * SECOND },
        max_crashes: MAX_CRASHES,
        cancel_requested: false,
        random: 1 << 63,
    };
    Settlement {
        id: claim.id,
        claim_no: claim.counters.claim_no,
        definition: claim.definition,
        kind: claim.kind,
        key: claim.key.clone(),
        priority: claim.priority,
        transition: lifecycle::after_attempt(event, &situation),
        output,
        started_at: now,
        ended_at: now,
        notify: claim.volatile,
        callbacks: claim.callbacks.clone(),
        parent: claim.parent,
    }
}

fn cancelled(id: TaskId) -> Cancellation {
    Cancellation { id, notify: false }
}

fn delivered(id: TaskId, claim_no: u32) -> DeliveryEnd {
    DeliveryEnd { id, claim_no, dead: None }
}

fn ids(claims: &[Claim]) -> Vec<TaskId> {
    claims.iter().map(|claim| claim.id).collect()
}

/// A store, its clock, and what to compare it with.
struct World<F: Factory> {
    factory: F,
    store: Option<F::Store>,
    options: StoreOptions,
    now: Timestamp,
    /// What the latest open found.
    recovered: Recovered,
}

impl<F: Factory> World<F> {
    fn new(factory: F) -> Self {
        World::with(factory, options())
    }

    fn with(mut factory: F, options: StoreOptions) -> Self {
        let (store, recovered) = factory.open(&options, FIRST_DAY);
        World { factory, store: Some(store), options, now: FIRST_DAY, recovered }
    }

    /// What could run now, over all queues, as far as the store knows.
    fn runnable(&mut self) -> Runnable {
        let mut sum = Runnable::nothing(QueueIndex::DEFAULT);
        for one in self.store().runnable() {
            sum.ready += one.ready;
            sum.more |= one.more;
            sum.suspects |= one.suspects;
        }
        sum
    }

    fn store(&mut self) -> &mut F::Store {
        self.store.as_mut().unwrap()
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    fn batch(&self) -> Batch {
        Batch { now: self.now, deliver: 1_000, ..Batch::default() }
    }

    async fn apply(&mut self, batch: impl Borrow<Batch>) -> BatchResult {
        let result = self.store().apply(batch.borrow()).await.unwrap();
        self.check_counts().await;
        result
    }

    /// The kept counts are those of a walk over all tasks.
    async fn check_counts(&mut self) {
        let mut walked = BTreeMap::new();
        for record in self.all().await {
            *walked.entry(record.status).or_insert(0) += 1;
        }
        let kept = self.store().counts().await.unwrap();
        let kept: BTreeMap<TaskStatus, u64> = kept.into_iter().collect();
        assert_eq!(kept, walked);
        let not_started = walked.get(&TaskStatus::NotStarted).copied().unwrap_or(0);
        assert_eq!(self.store().outlook().not_started as u64, not_started);
    }

    async fn all(&mut self) -> Vec<TaskRecord> {
        let mut all = Vec::new();
        let mut filter = ListFilter { limit: 1_000, ..ListFilter::default() };
        loop {
            let page = self.store().list(&filter).await.unwrap();
            all.extend(page.tasks);
            match page.next {
                Some(next) => filter.after = next,
                None => return all,
            }
        }
    }

    async fn submit(&mut self, submissions: Vec<NewTask>) -> Vec<TaskId> {
        let result = self.apply(Batch { submissions, ..self.batch() }).await;
        result.submitted.into_iter().map(Result::unwrap).collect()
    }

    async fn submit_one(&mut self, submission: NewTask) -> TaskId {
        self.submit(vec![submission]).await[0]
    }

    async fn claim(&mut self, slots: usize) -> Vec<Claim> {
        let claim = ClaimBudget { slots, ..ClaimBudget::default() };
        self.apply(Batch { claim, ..self.batch() }).await.claims
    }

    async fn claim_one(&mut self) -> Claim {
        let mut claims = self.claim(1).await;
        assert_eq!(claims.len(), 1, "one task may run");
        claims.remove(0)
    }

    async fn claim_suspect(&mut self) -> Vec<Claim> {
        let claim = ClaimBudget { suspect: true, ..ClaimBudget::default() };
        self.apply(Batch { claim, ..self.batch() }).await.claims
    }

    /// Claims the first task, which is `id`, and ends it so.
    async fn run(&mut self, id: TaskId, event: AttemptEvent) -> Claim {
        let claim = self.claim_one().await;
        assert_eq!(claim.id, id);
        assert_ne!(self.end(&claim, event).await, Settled::Stale);
        claim
    }

    async fn end(&mut self, claim: &Claim, event: AttemptEvent) -> Settled {
        let settlements = vec![settlement(claim, event, self.now)];
        self.apply(Batch { settlements, ..self.batch() }).await.settled[0]
    }

    async fn deliver(&mut self, ends: Vec<DeliveryEnd>) {
        self.apply(Batch { deliveries: ends, ..self.batch() }).await;
    }

    async fn cancel(&mut self, id: TaskId) -> CancelOutcome {
        self.apply(Batch { cancellations: vec![cancelled(id)], ..self.batch() }).await.cancelled[0]
    }

    async fn redrive(&mut self, id: TaskId) -> RedriveOutcome {
        self.apply(Batch { redrives: vec![id], ..self.batch() }).await.redriven[0]
    }

    async fn record(&mut self, id: TaskId) -> TaskRecord {
        match self.store().get(id).await.unwrap() {
            Lookup::Found(record) => *record,
            other => panic!("no record of {id}: {other:?}"),
        }
    }

    async fn status(&mut self, id: TaskId) -> TaskStatus {
        self.record(id).await.status
    }

    /// The callbacks that report a task's end, in order.
    async fn callbacks_of(&mut self, parent: TaskId) -> Vec<TaskId> {
        let all = self.all().await;
        all.iter().filter(|record| record.parent == Some(parent)).map(|record| record.id).collect()
    }

    async fn crash(&mut self) {
        let store = self.store.take().unwrap();
        self.factory.crash(store);
        self.open().await;
    }

    async fn close(&mut self) {
        self.store.take().unwrap().close().await.unwrap();
        self.open().await;
    }

    async fn open(&mut self) {
        let (store, recovered) = self.factory.open(&self.options, self.now);
        self.store = Some(store);
        self.recovered = recovered;
        self.check_counts().await;
    }

    async fn rebuild(&mut self, memory: &dyn Memory) {
        let store = self.store.take().unwrap();
        let (store, recovered) = self.factory.rebuild(store, &self.options, self.now, memory);
        self.store = Some(store);
        self.recovered = recovered;
        self.check_counts().await;
    }
}
