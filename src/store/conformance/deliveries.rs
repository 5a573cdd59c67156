//! What becomes of the notification of an end.

use super::*;
use crate::store::ClaimInput;

pub(super) async fn an_end_and_its_durable_callbacks_are_one_batch<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(NewTask { priority: 4, ..with_callbacks(2) }).await;
    let claim = world.claim_one().await;
    let batch = Batch {
        settlements: vec![settlement(&claim, AttemptEvent::Finished, world.now)],
        claim: ClaimBudget { slots: 9, ..ClaimBudget::default() },
        ..world.batch()
    };
    let result = world.apply(batch).await;
    assert_eq!(world.status(id).await, TaskStatus::Callbacking);
    let callbacks = world.callbacks_of(id).await;
    assert_eq!(callbacks.len(), 2);
    assert_eq!(ids(&result.claims), callbacks, "they are claimed at once");
    let of_callbacks = result.claims.iter().map(|claim| (claim.definition, claim.priority));
    assert!(of_callbacks.eq([(ON_END, 4), (ON_END, 4)]));
}

pub(super) async fn a_parent_is_callbacked_when_its_last_callback_ends_well<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(2)).await;
    world.run(id, fatal()).await;
    let callbacks = world.callbacks_of(id).await;
    world.run(callbacks[0], AttemptEvent::Finished).await;
    assert_eq!(world.status(id).await, TaskStatus::Callbacking);
    world.run(callbacks[1], failure()).await;
    assert_eq!(world.status(id).await, TaskStatus::Callbacking);
    world.advance(5 * SECOND);
    world.run(callbacks[1], AttemptEvent::Finished).await;
    let record = world.record(id).await;
    assert_eq!((record.status, record.delivery), (TaskStatus::Callbacked, Delivery::Callbacked));
    assert_eq!(record.outcome, Some(Outcome::Failed), "delivery doesn't overwrite the outcome");
    let of_callback = world.record(callbacks[1]).await;
    assert_eq!((of_callback.status, of_callback.parent), (TaskStatus::Finished, Some(id)));
}

pub(super) async fn a_parent_is_dead_when_a_callback_fails_for_good<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(2)).await;
    world.run(id, AttemptEvent::Finished).await;
    let callbacks = world.callbacks_of(id).await;
    world.run(callbacks[0], fatal()).await;
    assert_eq!(world.status(id).await, TaskStatus::Callbacking);
    world.run(callbacks[1], AttemptEvent::Finished).await;
    let record = world.record(id).await;
    assert_eq!(record.delivery, Delivery::Dead(DeadReason::CallbackFailed));
    assert_eq!((record.status, record.outcome), (TaskStatus::Finished, Some(Outcome::Finished)));
}

pub(super) async fn a_redriven_callback_revives_its_parent<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(1)).await;
    world.run(id, AttemptEvent::Finished).await;
    let callback = world.callbacks_of(id).await[0];
    world.run(callback, fatal()).await;
    assert_eq!(world.redrive(callback).await, RedriveOutcome::Redriven);
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    world.run(callback, AttemptEvent::Finished).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
    assert_eq!(world.callbacks_of(id).await, [callback], "no second one was made");
}

pub(super) async fn a_redriven_callback_does_not_hide_that_another_failed<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(2)).await;
    world.run(id, AttemptEvent::Finished).await;
    let callbacks = world.callbacks_of(id).await;
    for callback in &callbacks {
        world.run(*callback, fatal()).await;
    }
    for callback in &callbacks {
        assert_eq!(world.record(id).await.delivery, Delivery::Dead(DeadReason::CallbackFailed));
        world.redrive(*callback).await;
        world.run(*callback, AttemptEvent::Finished).await;
    }
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

pub(super) async fn a_callback_that_is_redriven_while_another_runs_is_waited_for<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(2)).await;
    world.run(id, AttemptEvent::Finished).await;
    let callbacks = world.callbacks_of(id).await;
    world.run(callbacks[0], fatal()).await;
    let other = world.claim_one().await;
    world.redrive(callbacks[0]).await;
    world.run(callbacks[0], AttemptEvent::Finished).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    world.end(&other, AttemptEvent::Finished).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

/// A task that was redriven ends once more and has new callbacks; the old ones, redriven too late,
/// used to count as theirs.
pub(super) async fn a_callback_of_an_earlier_run_closes_nothing_of_a_later_one<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(1)).await;
    world.run(id, fatal()).await;
    let early = world.callbacks_of(id).await[0];
    world.run(early, fatal()).await;
    world.redrive(id).await;
    world.run(id, fatal()).await;
    world.redrive(early).await;
    let claims = world.claim(2).await;
    let (early, late): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| claim.id == early);
    world.end(&early[0], AttemptEvent::Finished).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    world.end(&late[0], fatal()).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Dead(DeadReason::CallbackFailed));
}

pub(super) async fn a_cancelled_callback_leaves_its_parent_dead<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(1)).await;
    world.run(id, AttemptEvent::Finished).await;
    let callback = world.callbacks_of(id).await[0];
    assert_eq!(world.cancel(callback).await, CancelOutcome::Removed);
    assert_eq!(world.record(id).await.delivery, Delivery::Dead(DeadReason::CallbackFailed));
}

pub(super) async fn a_callback_reports_its_parent_as_it_ended<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_callbacks(1)).await;
    world.run(id, AttemptEvent::Finished).await;
    let claim = world.claim_one().await;
    assert_eq!(claim.parent, Some(Parent { id, claim_no: Some(1) }));
    let ClaimInput::Parent(Some(parent)) = claim.input else { panic!("{:?}", claim.input) };
    assert_eq!((parent.id, parent.outcome), (id, Some(Outcome::Finished)));
    assert_eq!(parent.output.unwrap().bytes[..], b"output"[..]);
}

pub(super) async fn a_named_subscriber_gets_every_end_of_its_definition<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let well = world.submit_one(task(AUDITED)).await;
    world.run(well, AttemptEvent::Finished).await;
    let cancelled = world.submit_one(task(AUDITED)).await;
    world.cancel(cancelled).await;
    for id in [well, cancelled] {
        let [callback] = world.callbacks_of(id).await[..] else { panic!("one for {id}") };
        assert_eq!(world.record(callback).await.name.as_ref(), "log");
        world.run(callback, AttemptEvent::Finished).await;
        assert!(world.callbacks_of(callback).await.is_empty(), "its own end is nobody's news");
        assert_eq!(world.status(id).await, TaskStatus::Callbacked);
    }
}

pub(super) async fn a_result_waits_for_a_delivery_credit<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(awaited()).await;
    let claim = world.claim_one().await;
    let settlements = vec![settlement(&claim, AttemptEvent::Finished, world.now)];
    let without = Batch { settlements, deliver: 0, ..world.batch() };
    let result = world.apply(without).await;
    assert_eq!(result.settled, [Settled::Recorded { deliver: false }]);
    let record = world.record(id).await;
    assert_eq!((record.status, record.delivery), (TaskStatus::Finished, Delivery::Pending));
    assert!(world.store().outlook().undelivered);
    let result = world.apply(Batch { deliver: 1, ..world.batch() }).await;
    let [sent] = &result.deliver[..] else { panic!("one is sent: {:?}", result.deliver) };
    assert_eq!((sent.id, sent.status), (id, TaskStatus::Callbacking));
    assert!(!world.store().outlook().undelivered);
    world.deliver(vec![delivered(id, 1)]).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

pub(super) async fn waiting_results_go_out_oldest_first_and_are_not_overtaken<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit(vec![awaited(); 4]).await;
    let claims = world.claim(4).await;
    let ends = |claims: &[Claim], now| {
        claims.iter().map(|claim| settlement(claim, AttemptEvent::Finished, now)).collect()
    };
    let settlements = ends(&claims[..2], world.now);
    world.apply(Batch { settlements, deliver: 0, ..world.batch() }).await;
    let settlements = ends(&claims[2..], world.now);
    let result = world.apply(Batch { settlements, deliver: 3, ..world.batch() }).await;
    let sent: Vec<TaskId> = result.deliver.iter().map(|record| record.id).collect();
    assert_eq!(sent, id[..2]);
    let now = result.settled.contains(&Settled::Recorded { deliver: true });
    assert!(now, "the credit that is left goes to a new one");
    let result = world.apply(world.batch()).await;
    assert_eq!(result.deliver.len(), 1);
}

/// A rebuilt actor can report a delivery a second time; the open callback isn't its to close.
pub(super) async fn a_delivery_that_ended_twice_closes_nothing_else<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(NewTask { volatile: true, ..with_callbacks(1) }).await;
    world.run(id, AttemptEvent::Finished).await;
    world.deliver(vec![delivered(id, 1)]).await;
    world.deliver(vec![delivered(id, 1)]).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    let callback = world.callbacks_of(id).await[0];
    world.run(callback, AttemptEvent::Finished).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
    world.deliver(vec![delivered(id, 1)]).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

pub(super) async fn a_delivery_of_an_earlier_claim_is_ignored<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(awaited()).await;
    world.run(id, AttemptEvent::Released).await;
    world.run(id, AttemptEvent::Finished).await;
    world.deliver(vec![delivered(id, 1)]).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacking);
    world.deliver(vec![delivered(id, 2)]).await;
    assert_eq!(world.record(id).await.delivery, Delivery::Callbacked);
}

pub(super) async fn a_dead_delivery_leaves_the_outcome_alone<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(awaited()).await;
    world.run(id, AttemptEvent::Finished).await;
    let dead = Some(DeadReason::SubscriberPanicked);
    world.deliver(vec![DeliveryEnd { id, claim_no: 1, dead }]).await;
    let record = world.record(id).await;
    assert_eq!(record.delivery, Delivery::Dead(DeadReason::SubscriberPanicked));
    assert_eq!((record.status, record.outcome), (TaskStatus::Finished, Some(Outcome::Finished)));
    assert!(record.output.is_some());
}

pub(super) async fn a_cancellation_is_notified_like_any_end<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let asked = world.submit_one(NewTask { volatile: true, ..with_callbacks(1) }).await;
    let watched = world.submit_one(task(QUICK)).await;
    let unwatched = world.submit_one(task(MAIL)).await;
    let joined = world.submit_one(task(MAIL)).await;
    let mut cancellations = [asked, watched, unwatched, joined].map(cancelled).to_vec();
    cancellations[3].notify = true;
    let mut batch = Batch { cancellations, watched: vec![false; 2], ..world.batch() };
    batch.watched[QUICK] = true;
    let result = world.apply(batch).await;
    let sent: Vec<TaskId> = result.deliver.iter().map(|record| record.id).collect();
    assert_eq!(sent, [asked, watched, joined]);
    assert_eq!(world.status(unwatched).await, TaskStatus::Cancelled);
    world.deliver(vec![delivered(asked, 0), delivered(watched, 0)]).await;
    assert_eq!(world.status(watched).await, TaskStatus::Callbacked);
    let callback = world.callbacks_of(asked).await[0];
    world.run(callback, AttemptEvent::Finished).await;
    assert_eq!(world.status(asked).await, TaskStatus::Callbacked);
}
