//! What is left after a process or an actor ended.

use super::*;

/// Remembers attempts and deliveries that are in progress.
#[derive(Default)]
struct InMemory {
    attempts: Vec<(TaskId, u32)>,
    deliveries: Vec<TaskId>,
}

impl Memory for InMemory {
    fn attempt_lives(&self, id: TaskId, claim_no: u32) -> bool {
        self.attempts.contains(&(id, claim_no))
    }

    fn delivery_lives(&self, id: TaskId) -> bool {
        self.deliveries.contains(&id)
    }
}

pub(super) async fn what_ran_is_ready_again_and_a_crash_the_more<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let ran = world.submit_one(task(MAIL)).await;
    world.claim_one().await;
    let ready = world.submit_one(task(MAIL)).await;
    world.crash().await;
    assert_eq!(world.recovered, Recovered { restarted: 1, ..Recovered::default() });
    let claims = world.claim(9).await;
    let counters = |id| claims.iter().find(|claim| claim.id == id).unwrap().counters;
    assert_eq!((counters(ran).crashes, counters(ran).claim_no), (1, 2));
    assert_eq!((counters(ran).failures, counters(ready).crashes), (0, 0));
}

/// Given back, hit by a crash, or lost with an actor.
pub(super) async fn what_did_not_get_to_its_end_stands_where_it_stood<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let first = world.submit_one(task(MAIL)).await;
    for round in 0..3 {
        let claim = world.claim_one().await;
        assert_eq!(claim.id, first, "in round {round}");
        world.submit_one(task(MAIL)).await;
        world.advance(SECOND);
        match round {
            0 => drop(world.end(&claim, AttemptEvent::Released).await),
            1 => world.crash().await,
            _ => world.rebuild(&InMemory::default()).await,
        }
    }
    let all = world.claim(9).await;
    assert!(all.len() == 4 && ids(&all).is_sorted(), "{:?}", ids(&all));
}

pub(super) async fn a_clean_close_loses_nothing<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit(vec![with_priority(0), with_priority(3), with_priority(1)]).await;
    world.run(id[1], AttemptEvent::Finished).await;
    world.close().await;
    assert_eq!(world.recovered, Recovered::default());
    assert_eq!(world.record(id[1]).await.output.unwrap().bytes[..], b"output"[..]);
    assert_eq!(ids(&world.claim(9).await), [id[2], id[0]]);
}

pub(super) async fn the_last_crash_ends_the_task_and_notifies<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(NewTask { volatile: true, ..with_callbacks(1) }).await;
    world.claim_one().await;
    for crashes in 1..MAX_CRASHES {
        world.crash().await;
        assert_eq!(world.record(id).await.counters.crashes, crashes);
        let claimed = world.claim(1).await.len() + world.claim_suspect().await.len();
        assert_eq!(claimed, 1);
    }
    world.crash().await;
    assert_eq!(world.recovered.failed, 1);
    let record = world.record(id).await;
    assert_eq!((record.outcome, record.counters.failures), (Some(Outcome::Failed), 0));
    assert_eq!(record.error.unwrap().kind, FailureKind::Crashed);
    let callback = world.callbacks_of(id).await[0];
    world.run(callback, AttemptEvent::Finished).await;
    let delivery = world.record(id).await.delivery;
    assert_eq!(delivery, Delivery::Dead(DeadReason::SubscriberGone));
}

pub(super) async fn suspects_are_claimed_alone_and_only_on_request<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let suspects = world.submit(vec![with_priority(9), with_priority(8)]).await;
    for _ in 1..MAX_CRASHES {
        assert!(!world.runnable().suspects);
        assert_eq!(world.claim(2).await.len(), 2);
        world.crash().await;
    }
    let good = world.submit_one(with_priority(-9)).await;
    assert!(world.runnable().suspects);
    assert_eq!(ids(&world.claim(9).await), [good], "a suspect isn't claimed beside others");
    for suspect in suspects {
        let claims = world.claim_suspect().await;
        assert_eq!(ids(&claims), [suspect]);
        world.end(&claims[0], AttemptEvent::Finished).await;
    }
    assert!(!world.runnable().suspects);
    assert!(world.claim_suspect().await.is_empty());
}

pub(super) async fn deliveries_to_memory_die_with_the_process<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(awaited()).await;
    world.run(id, AttemptEvent::Finished).await;
    world.crash().await;
    assert_eq!(world.recovered, Recovered { subscribers_gone: 1, ..Recovered::default() });
    let record = world.record(id).await;
    assert_eq!(record.delivery, Delivery::Dead(DeadReason::SubscriberGone));
    assert_eq!((record.outcome, record.status), (Some(Outcome::Finished), TaskStatus::Finished));
    assert!(record.output.is_some());
}

pub(super) async fn a_pending_delivery_dies_with_the_process_and_callbacks_go_on<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(NewTask { volatile: true, ..with_callbacks(1) }).await;
    let claim = world.claim_one().await;
    let settlements = vec![settlement(&claim, AttemptEvent::Finished, world.now)];
    world.apply(Batch { settlements, deliver: 0, ..world.batch() }).await;
    world.crash().await;
    let found = Recovered { subscribers_gone: 1, callbacks: 1, ..Recovered::default() };
    assert_eq!(world.recovered, found);
    assert!(!world.store().outlook().undelivered);
    let result = world.apply(world.batch()).await;
    assert!(result.deliver.is_empty(), "there is nobody to send it to");
    let callback = world.callbacks_of(id).await[0];
    world.run(callback, AttemptEvent::Finished).await;
    let delivery = world.record(id).await.delivery;
    assert_eq!(delivery, Delivery::Dead(DeadReason::SubscriberGone));
}

pub(super) async fn durable_callbacks_survive_a_crash<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(2)).await;
    world.run(id, AttemptEvent::Finished).await;
    world.claim_one().await;
    world.crash().await;
    assert_eq!((world.recovered.restarted, world.recovered.callbacks), (1, 1));
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    for claim in world.claim(9).await {
        assert_eq!(claim.parent, Some(Parent { id, claim_no: Some(1) }));
        world.end(&claim, AttemptEvent::Finished).await;
    }
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

pub(super) async fn a_rebuild_touches_no_attempt_that_lives<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit(vec![task(MAIL); 3]).await;
    let claims = world.claim(2).await;
    let memory = InMemory { attempts: vec![(id[0], 1)], ..InMemory::default() };
    world.rebuild(&memory).await;
    assert_eq!(world.status(id[0]).await, TaskStatus::Running);
    assert_ne!(world.end(&claims[0], AttemptEvent::Finished).await, Settled::Stale);
    assert_eq!(world.end(&claims[1], AttemptEvent::Finished).await, Settled::Stale);
    let again = world.claim(9).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|claim| claim.counters.crashes == 0), "an actor's end is no crash");
}

pub(super) async fn a_rebuild_sends_deliveries_again_that_nobody_has<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit(vec![awaited(), awaited()]).await;
    for claim in world.claim(2).await {
        world.end(&claim, AttemptEvent::Finished).await;
    }
    let memory = InMemory { deliveries: vec![id[0]], ..InMemory::default() };
    world.rebuild(&memory).await;
    assert_eq!(world.record(id[0]).await.delivery, Delivery::Callbacking);
    assert_eq!(world.record(id[1]).await.delivery, Delivery::Pending);
    assert!(world.store().outlook().undelivered);
    let result = world.apply(world.batch()).await;
    let sent: Vec<TaskId> = result.deliver.iter().map(|record| record.id).collect();
    assert_eq!(sent, [id[1]]);
}

pub(super) async fn ids_are_never_used_again<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let mut last = world.submit(vec![task(MAIL); 3]).await[2];
    for round in 0..6 {
        match round % 3 {
            0 => world.crash().await,
            1 => world.close().await,
            _ => world.rebuild(&InMemory::default()).await,
        }
        let id = world.submit_one(task(MAIL)).await;
        assert!(id > last, "{id} after {last}");
        last = id;
    }
}
