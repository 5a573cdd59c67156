//! Actors that panic, in a running queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::callback::CallbackActor;
use super::ledger::ShardState;
use super::messages::Wake;
use super::shard::ShardActor;
use super::system::Shared;
use super::worker::Worker;

use crate::QueueBuilder;
use crate::prelude::*;
use crate::record::ShardId;
use crate::store::ShardStore;

#[cfg(feature = "proof")]
mod across_shards;
#[cfg(feature = "proof")]
mod again;
mod blocking;
mod bulks;
mod clocks;
mod drops;
mod rest;
mod restrained;
#[cfg(feature = "proof")]
mod seams;
#[cfg(feature = "proof")]
mod stalls;
mod stealing;
#[cfg(feature = "proof")]
mod suspects;

/// Makes an actor panic in its handler.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct Fall;

impl<S: ShardStore> Handler<Fall> for ShardActor<S> {
    type Result = ();

    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("a test makes this shard fall");
    }
}

impl Handler<Fall> for Worker {
    type Result = ();

    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("a test makes this worker fall");
    }
}

impl Handler<Fall> for CallbackActor {
    type Result = ();

    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("a test makes this callback actor fall");
    }
}

/// Counts how often the task below ran, and holds it back.
struct Gate {
    runs: AtomicUsize,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Gate { runs: AtomicUsize::new(0), open: Semaphore::new(0) })
    }
}

#[task(name = "gated")]
async fn gated(number: u64, gate: Data<Arc<Gate>>) -> Result<u64, std::io::Error> {
    gate.runs.fetch_add(1, Ordering::SeqCst);
    gate.open.acquire().await.map_err(std::io::Error::other)?.forget();
    Ok(number)
}

struct Counter(Arc<AtomicUsize>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<TaskResult> for Counter {
    type Result = ();

    fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    _dir: tempfile::TempDir,
    queue: Queue,
    gate: Arc<Gate>,
}

impl World {
    async fn new(shards: usize, adjust: impl FnOnce(&mut Settings)) -> Self {
        World::with(shards, adjust, |builder| builder).await
    }

    async fn with(
        shards: usize,
        adjust: impl FnOnce(&mut Settings),
        more: impl FnOnce(QueueBuilder) -> QueueBuilder,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new();
        let mut settings = Settings::default();
        settings.storage.dir = dir.path().join("queue");
        settings.shards.count = Some(shards);
        settings.workers.count = Some(2);
        adjust(&mut settings);
        let builder = Queue::builder().settings(settings).register::<gated::Task>();
        let queue = more(builder.data(gate.clone())).start().await.unwrap();
        World { _dir: dir, queue, gate }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.queue.shared()
    }

    async fn submit(&self, tasks: u64) -> Vec<TaskHandle<gated::Task>> {
        let submissions = (0..tasks).map(gated::task);
        self.queue.submit_all(submissions).await.unwrap()
    }

    /// Waits for a condition that some other thread brings about.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let met = async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn all_end(&self, handles: Vec<TaskHandle<gated::Task>>) {
        for (number, handle) in handles.into_iter().enumerate() {
            let output = timeout(Duration::from_secs(30), handle.into_future()).await;
            assert_eq!(output.expect("the task ends").unwrap(), number as u64);
        }
    }
}

#[actix::test]
async fn a_shard_that_panics_is_rebuilt_and_its_running_attempts_run_once() {
    let world = World::new(1, |_| {}).await;
    let handles = world.submit(8).await;
    world.until("all run", |world| world.gate.runs.load(Ordering::SeqCst) == 8).await;
    world.shared().shards[0].link.send(Fall);
    world.gate.open.add_permits(8);
    world.all_end(handles).await;
    assert_eq!(world.gate.runs.load(Ordering::SeqCst), 8);
    world.gate.open.add_permits(1);
    let later = world.queue.submit(gated::task(7)).await.unwrap();
    let record = later.record().await.unwrap();
    assert_eq!(record.counters.crashes, 0, "a rebuilt actor is not a crash");
    assert_eq!(later.await.unwrap(), 7);
}

#[actix::test]
async fn a_worker_that_panics_is_rebuilt_and_what_it_was_sent_still_runs() {
    let world = World::new(1, |_| {}).await;
    for worker in &world.shared().workers {
        worker.link.send(Fall);
    }
    world.gate.open.add_permits(100);
    let handles = world.submit(100).await;
    for worker in &world.shared().workers {
        worker.link.send(Fall);
    }
    world.all_end(handles).await;
    assert_eq!(world.gate.runs.load(Ordering::SeqCst), 100);
}

#[actix::test]
async fn a_callback_actor_that_panics_is_rebuilt_and_results_still_arrive() {
    let world = World::new(1, |_| {}).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Counter(seen.clone()).start();
    let _guard = world.queue.subscribe::<gated::Task>(counter.recipient()).await.unwrap();
    world.gate.open.add_permits(50);
    let callback: &super::ledger::Link<CallbackActor> = (*world.shared().callback).as_ref();
    callback.send(Fall);
    let handles = world.submit(50).await;
    callback.send(Fall);
    world.all_end(handles).await;
    world.until("all results", |_| seen.load(Ordering::SeqCst) == 50).await;
}

#[actix::test]
async fn a_shard_over_its_restart_budget_is_quarantined_alone_and_let_back_in_by_a_probe() {
    let world = World::new(2, |settings| {
        settings.supervision.restarts = 1;
        settings.supervision.probe = Duration::from_millis(300);
    })
    .await;
    let bad = world.shared().shards[0].clone();
    let quarantined = timeout(Duration::from_secs(30), async {
        while bad.state() != ShardState::Quarantined {
            bad.link.send(Fall);
            tokio::task::yield_now().await;
        }
    });
    quarantined.await.expect("two panics are over a budget of one");
    world.gate.open.add_permits(20);
    let handles = world.submit(10).await;
    assert!(handles.iter().all(|handle| handle.id().shard() == ShardId(1)));
    let refused = world.queue.status(TaskId::new(ShardId(0), 1)).await;
    assert!(matches!(refused, Err(Error::ShardUnavailable { .. })), "{refused:?}");
    world.all_end(handles).await;
    world.until("a probe", |_| bad.state() == ShardState::Open).await;
}

#[actix::test]
async fn submissions_sent_while_a_shard_is_rebuilt_are_stored_or_refused_and_never_lost() {
    let world = World::new(1, |settings| {
        settings.supervision.restarts = 1_000;
        settings.supervision.backoff_max = Duration::from_millis(10);
    })
    .await;
    world.gate.open.add_permits(10_000);
    let mut stored = Vec::new();
    for round in 0..200 {
        if round % 10 == 0 {
            world.shared().shards[0].link.send(Fall);
        }
        match world.queue.submit(gated::task(round)).await {
            Ok(handle) => stored.push(handle),
            Err(Error::ShardUnavailable { .. } | Error::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(!stored.is_empty(), "the shard comes back between panics");
    for handle in stored {
        let ended = timeout(Duration::from_secs(30), handle.into_future()).await;
        ended.expect("an acknowledged task ends").unwrap();
    }
    world.until("none is counted as on its way", |world| incoming(world) == 0).await;
}

fn incoming(world: &World) -> usize {
    world.shared().shards[0].gauges.incoming.load(Ordering::SeqCst)
}

/// What was lost on its way to a shard used to count in its load for ever.
#[actix::test]
async fn submissions_that_die_with_their_shard_are_not_counted_any_more() {
    let world = World::new(1, |_| {}).await;
    let link = &world.shared().shards[0].link;
    let dispatcher = world.queue.dispatcher();
    let mut sent = Vec::new();
    for _ in 0..3 {
        link.send(Fall);
        sent.extend((0..100).map(|number| dispatcher.send(Submit::new(gated::task(number)))));
        link.send(Fall);
        tokio::task::yield_now().await;
    }
    for answer in sent {
        // stored or refused, but answered
        let _ = timeout(Duration::from_secs(30), answer).await.expect("an answer").unwrap();
    }
    world.until("none is counted", |world| incoming(world) == 0).await;
}

/// Its handle used to hang: the end was stored, and then found to be stale.
#[actix::test]
async fn who_waits_for_an_end_that_a_fallen_shard_had_stored_is_told_by_the_next_one() {
    let world = World::new(1, |_| {}).await;
    world.gate.open.add_permits(1);
    let handle = world.submit(1).await.remove(0);
    let id = handle.id();
    handle.into_future().await.unwrap();
    let shard = &world.shared().shards[0];
    let (answer, answered) = oneshot::channel();
    shard.watchers().entry(id.sequence()).or_default().push(answer);
    shard.link.send(Fall);
    let told = timeout(Duration::from_secs(30), answered).await.expect("it is told").unwrap();
    assert_eq!(told.unwrap().id(), id);
}

#[actix::test]
async fn a_shard_whose_file_cannot_be_opened_again_is_quarantined_until_it_can() {
    let world = World::new(1, |settings| {
        settings.supervision.restarts = 2;
        settings.supervision.backoff_min = Duration::from_millis(1);
        settings.supervision.probe = Duration::from_millis(50);
    })
    .await;
    let shard = world.shared().shards[0].clone();
    let file = world.shared().settings.storage.dir.join("shard-000.db");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    shard.link.send(Fall);
    world.until("a quarantine", |_| shard.state() == ShardState::Quarantined).await;
    let refused = world.queue.submit(gated::task(1)).await;
    assert!(matches!(refused, Err(Error::ShardUnavailable { .. })), "{refused:?}");
    std::fs::rename(&aside, &file).unwrap();
    world.until("a probe", |_| shard.state() == ShardState::Open).await;
    world.gate.open.add_permits(1);
    let handles = world.submit(1).await;
    world.all_end(handles).await;
}

/// Panics when it is dropped, and says so before.
struct Grenade(Arc<AtomicUsize>);

impl Drop for Grenade {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a test's value panics in its drop");
    }
}

#[actix::test]
async fn a_closure_that_panics_when_it_is_dropped_unused_harms_no_actor() {
    let world = World::new(1, |_| {}).await;
    let dropped = Arc::new(AtomicUsize::new(0));
    let grenade = Grenade(dropped.clone());
    let never = TaskId::new(ShardId(0), 1_000_000);
    let hold = move |_: TaskResult| std::mem::forget(grenade);
    let refused = world.queue.submit(gated::task(1).with_id(never).on_result(hold)).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    world.until("the drop", |_| dropped.load(Ordering::SeqCst) == 1).await;
    world.gate.open.add_permits(1);
    let handles = world.submit(1).await;
    world.all_end(handles).await;
}
