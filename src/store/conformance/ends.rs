//! How attempts and tasks end, and what may not end them.

use super::*;

pub(super) async fn an_attempt_that_is_not_the_latest_claim_writes_nothing<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(1)).await;
    let first = world.run(id, AttemptEvent::Released).await;
    let second = world.claim_one().await;
    assert_eq!(second.counters.claim_no, first.counters.claim_no + 1);
    for event in [AttemptEvent::Finished, failure(), fatal(), AttemptEvent::Released] {
        assert_eq!(world.end(&first, event).await, Settled::Stale);
    }
    assert_eq!(world.status(id).await, TaskStatus::Running);
    assert_ne!(world.end(&second, AttemptEvent::Finished).await, Settled::Stale);
    assert_eq!(world.end(&second, fatal()).await, Settled::Stale, "it has ended already");
    let record = world.record(id).await;
    assert_eq!(record.outcome, Some(Outcome::Finished));
    assert_eq!(record.output.unwrap().bytes[..], b"output"[..]);
    assert_eq!(world.callbacks_of(id).await.len(), 1);
}

pub(super) async fn an_attempt_of_an_earlier_process_writes_nothing<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    let before = world.claim_one().await;
    world.crash().await;
    assert_eq!(world.end(&before, AttemptEvent::Finished).await, Settled::Stale);
    let now = world.claim_one().await;
    assert_eq!(world.end(&before, AttemptEvent::Finished).await, Settled::Stale);
    assert_eq!(world.status(id).await, TaskStatus::Running);
    assert_ne!(world.end(&now, AttemptEvent::Finished).await, Settled::Stale);
}

pub(super) async fn a_failed_attempt_is_tried_again_after_its_pause_and_counted<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    world.run(id, failure()).await;
    let record = world.record(id).await;
    let due = world.now.saturating_add(5 * SECOND);
    assert_eq!((record.status, record.due_at), (TaskStatus::NotStarted, Some(due)));
    assert_eq!(record.counters.failures, 1);
    assert_eq!(record.error.unwrap().message, "it was raining");
    world.advance(4 * SECOND);
    assert!(world.claim(1).await.is_empty());
    world.advance(SECOND);
    let claim = world.claim_one().await;
    assert_eq!((claim.id, claim.counters.failures, claim.counters.claim_no), (id, 1, 2));
}

pub(super) async fn the_last_failure_ends_the_task<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    for _ in 0..3 {
        assert!(!world.status(id).await.is_ended());
        world.run(id, failure()).await;
        world.advance(10 * SECOND);
    }
    let record = world.record(id).await;
    assert_eq!((record.status, record.outcome), (TaskStatus::Failed, Some(Outcome::Failed)));
    assert_eq!((record.counters.failures, record.counters.crashes), (3, 0));
    assert_eq!(record.delivery, Delivery::None);
    assert!(world.claim(1).await.is_empty());
}

pub(super) async fn snoozing_and_releasing_count_as_no_failure<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    world.run(id, AttemptEvent::Snoozed(7 * SECOND)).await;
    world.advance(6 * SECOND);
    assert!(world.claim(1).await.is_empty());
    world.advance(SECOND);
    world.run(id, AttemptEvent::Released).await;
    let claim = world.claim_one().await;
    assert_eq!((claim.counters.claim_no, claim.counters.failures), (3, 0));
}

pub(super) async fn a_task_that_has_not_started_is_removed_by_cancelling<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let due_at = Some(world.now.saturating_add(SECOND));
    let waiting = world.submit_one(NewTask { due_at, ..task(MAIL) }).await;
    let ready = world.submit_one(task(MAIL)).await;
    for id in [waiting, ready] {
        assert_eq!(world.cancel(id).await, CancelOutcome::Removed);
        let again = world.cancel(id).await;
        assert_eq!(again, CancelOutcome::AlreadyFinished(TaskStatus::Cancelled));
        assert_eq!(world.record(id).await.outcome, Some(Outcome::Cancelled));
    }
    world.advance(10 * SECOND);
    assert!(world.claim(9).await.is_empty());
    assert_eq!(world.store().outlook().next_due, None);
}

pub(super) async fn a_running_task_is_asked_to_end<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    let claim = world.claim_one().await;
    assert_eq!(world.cancel(id).await, CancelOutcome::Requested);
    assert_eq!(world.cancel(id).await, CancelOutcome::Requested);
    world.end(&claim, AttemptEvent::Finished).await;
    assert_eq!(world.status(id).await, TaskStatus::Finished, "it ended well in spite of it");
}

pub(super) async fn an_ended_task_cannot_be_cancelled<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    world.run(id, fatal()).await;
    let outcome = world.cancel(id).await;
    assert_eq!(outcome, CancelOutcome::AlreadyFinished(TaskStatus::Failed));
    let never = TaskId::new(id.shard(), id.sequence() + 1);
    assert_eq!(world.cancel(never).await, CancelOutcome::NotFound);
}

pub(super) async fn a_cancelled_head_is_never_claimed<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit(vec![with_priority(5), with_priority(4), with_priority(3)]).await;
    let claim = ClaimBudget { slots: 2, ..ClaimBudget::default() };
    let cancellations = vec![cancelled(id[0])];
    let result = world.apply(Batch { cancellations, claim, ..world.batch() }).await;
    assert_eq!(ids(&result.claims), id[1..]);
}

pub(super) async fn a_dead_task_is_redriven_with_fresh_counters_and_a_fresh_fence<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    let before = world.run(id, fatal()).await;
    assert_eq!(world.redrive(id).await, RedriveOutcome::Redriven);
    let again = world.redrive(id).await;
    assert_eq!(again, RedriveOutcome::NotDead(TaskStatus::NotStarted));
    let record = world.record(id).await;
    assert_eq!((record.outcome, record.ended_at), (None, None));
    let claim = world.claim_one().await;
    assert_eq!((claim.counters.claim_no, claim.counters.failures), (2, 0));
    assert_eq!(world.end(&before, AttemptEvent::Finished).await, Settled::Stale);
    world.end(&claim, AttemptEvent::Finished).await;
    assert_eq!(world.status(id).await, TaskStatus::Finished);
}

pub(super) async fn only_what_ended_without_success_is_redriven<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let cancelled = world.submit_one(task(MAIL)).await;
    world.cancel(cancelled).await;
    assert_eq!(world.redrive(cancelled).await, RedriveOutcome::Redriven);
    world.run(cancelled, AttemptEvent::Finished).await;
    let well = world.redrive(cancelled).await;
    assert_eq!(well, RedriveOutcome::NotDead(TaskStatus::Finished));
    let notified = world.submit_one(awaited()).await;
    world.run(notified, fatal()).await;
    let on_its_way = world.redrive(notified).await;
    assert_eq!(on_its_way, RedriveOutcome::NotDead(TaskStatus::Callbacking));
    let never = TaskId::new(notified.shard(), notified.sequence() + 1);
    assert_eq!(world.redrive(never).await, RedriveOutcome::NotFound);
}

pub(super) async fn a_redriven_task_owes_nothing_to_targets_that_had_their_answer<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(awaited()).await;
    let claim = world.run(id, fatal()).await;
    world.deliver(vec![delivered(id, claim.counters.claim_no)]).await;
    assert_eq!(world.status(id).await, TaskStatus::Callbacked);
    assert_eq!(world.redrive(id).await, RedriveOutcome::Redriven);
    world.run(id, AttemptEvent::Finished).await;
    let record = world.record(id).await;
    assert_eq!((record.status, record.delivery), (TaskStatus::Finished, Delivery::None));
}
