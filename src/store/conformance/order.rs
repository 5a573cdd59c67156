//! Which task is claimed first, and when.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::store::{ClaimInput, Passing, Takes, Threads};

pub(super) async fn the_higher_priority_goes_first_and_equals_in_order_of_submission<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let priorities = [0, 2, 1, 2, -3, 0, 1].map(with_priority);
    let id = world.submit(priorities.to_vec()).await;
    let claims = world.claim(10).await;
    assert_eq!(ids(&claims), [1, 3, 2, 6, 0, 5, 4].map(|index| id[index]));
    assert!(world.claim(10).await.is_empty(), "each is claimed once");
}

pub(super) async fn an_old_task_is_overtaken_by_no_more_than_its_age_allows<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let old = world.submit_one(with_priority(0)).await;
    world.advance(59 * SECOND);
    let overtakes = world.submit_one(with_priority(1)).await;
    world.advance(2 * SECOND);
    let stays_behind = world.submit_one(with_priority(1)).await;
    assert_eq!(ids(&world.claim(3).await), [overtakes, old, stays_behind]);
}

pub(super) async fn a_fresh_task_is_claimed_as_it_is_stored_if_nothing_stands_before_it<
    F: Factory,
>(
    factory: F,
) {
    let mut world = World::new(factory);
    let claim = ClaimBudget { slots: 2, ..ClaimBudget::default() };
    let submissions = vec![with_priority(0), with_priority(5), with_priority(1)];
    let result = world.apply(Batch { submissions, claim, ..world.batch() }).await;
    let id: Vec<TaskId> = result.submitted.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids(&result.claims), [id[1], id[2]]);
    assert_eq!(world.status(id[1]).await, TaskStatus::Running);
    assert_eq!(world.status(id[0]).await, TaskStatus::NotStarted);
    assert_eq!(ids(&world.claim(2).await), [id[0]]);
}

pub(super) async fn a_fresh_task_does_not_overtake_stored_ones<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let stored = world.submit(vec![with_priority(0), with_priority(4)]).await;
    let claim = ClaimBudget { slots: 2, ..ClaimBudget::default() };
    let submissions = vec![with_priority(4), with_priority(9)];
    let result = world.apply(Batch { submissions, claim, ..world.batch() }).await;
    let fresh: Vec<TaskId> = result.submitted.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids(&result.claims), [fresh[1], stored[1]]);
    assert_eq!(ids(&world.claim(2).await), [fresh[0], stored[0]]);
}

pub(super) async fn no_task_starts_before_its_time<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let due = FIRST_DAY.saturating_add(10 * SECOND);
    let id = world.submit_one(NewTask { due_at: Some(due), ..with_priority(9) }).await;
    assert_eq!(world.store().outlook().next_due, Some(due));
    world.now = Timestamp::from_micros(due.as_micros() - 1);
    assert!(world.claim(1).await.is_empty());
    assert_eq!(world.record(id).await.due_at, Some(due));
    world.now = due;
    assert_eq!(ids(&world.claim(1).await), [id]);
    assert_eq!(world.store().outlook().next_due, None);
}

pub(super) async fn a_time_that_has_passed_means_now<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let first = world.submit_one(task(MAIL)).await;
    let past = Some(Timestamp::from_micros(FIRST_DAY.as_micros() - 1));
    let id = world.submit_one(NewTask { due_at: past, ..task(MAIL) }).await;
    assert_eq!(ids(&world.claim(2).await), [first, id]);
}

/// Settled again, promoted, redriven and submitted in the batch that claims them.
pub(super) async fn a_batch_claims_what_it_makes_ready_itself<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let dead = world.submit_one(with_priority(3)).await;
    world.run(dead, fatal()).await;
    let released = world.submit_one(with_priority(2)).await;
    let claim = world.claim_one().await;
    let due = Some(world.now.saturating_add(SECOND));
    let waited = world.submit_one(NewTask { due_at: due, ..with_priority(1) }).await;
    world.advance(SECOND);
    let batch = Batch {
        settlements: vec![settlement(&claim, AttemptEvent::Released, world.now)],
        redrives: vec![dead],
        submissions: vec![with_priority(0)],
        claim: ClaimBudget { slots: 9, ..ClaimBudget::default() },
        ..world.batch()
    };
    let result = world.apply(batch).await;
    let fresh = *result.submitted[0].as_ref().unwrap();
    assert_eq!(ids(&result.claims), [dead, released, waited, fresh]);
    assert!(world.claim(9).await.is_empty(), "each is claimed once");
}

pub(super) async fn places_behind_slots_are_for_quick_definitions_only<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit(vec![task(QUICK), task(QUICK), task(MAIL), task(QUICK)]).await;
    let mut takes = vec![Takes::default(); 2];
    takes[QUICK].quick_ns = Some(1);
    let claim =
        ClaimBudget { slots: 1, prefetch: 5, takes, behind_ns: 99, ..ClaimBudget::default() };
    let claims = world.apply(Batch { claim, ..world.batch() }).await.claims;
    assert_eq!(ids(&claims), id[..2], "a slow one isn't overtaken for a place behind a slot");
    assert_eq!(claims.iter().map(|claim| claim.prefetched).collect::<Vec<_>>(), [false, true]);
}

pub(super) async fn blocking_ones_behind_slots_are_claimed_as_far_as_they_have_threads<
    F: Factory,
>(
    factory: F,
) {
    const BLOCKING: Takes = Takes { quick_ns: Some(3), blocking: true };
    const LONG: Takes = Takes { quick_ns: None, blocking: true };
    let free = |free| Threads { free, behind_ns: 0 };
    let behind_ns = |behind_ns| Threads { free: 0, behind_ns };
    // each case: the two definitions, then free slots, threads, and how many of five are claimed
    let cases = [
        // one more than there is time for, then those with a thread of their own
        (BLOCKING, 0, behind_ns(0), 0),
        (BLOCKING, 0, behind_ns(1), 1),
        (BLOCKING, 0, behind_ns(4), 2),
        (BLOCKING, 0, free(2), 2),
        // those in slots take threads, too
        (BLOCKING, 1, free(2), 2),
        (BLOCKING, 2, behind_ns(7), 3),
        // a long one needs a slot, and the thread that it takes is nobody else's
        (LONG, 0, free(5), 0),
        (LONG, 1, free(5), 3),
        (LONG, 1, behind_ns(99), 1),
    ];
    let mut world = World::new(factory);
    for (takes, slots, threads, expected) in cases {
        let of_mail =
            if takes.quick_ns.is_none() { [MAIL, QUICK, QUICK, MAIL, QUICK] } else { [MAIL; 5] };
        let id = world.submit(of_mail.map(task).to_vec()).await;
        let mut all = vec![BLOCKING; 2];
        all[MAIL] = takes;
        // their time is the threads', not the slots'
        let claim =
            ClaimBudget { slots, prefetch: 5, takes: all, threads, ..ClaimBudget::default() };
        let claims = world.apply(Batch { claim, ..world.batch() }).await.claims;
        assert_eq!(ids(&claims), id[..expected], "{takes:?}, {slots} slots, {threads:?}");
        world.claim(9).await;
    }
}

pub(super) async fn blocking_ones_behind_slots_take_no_time_of_the_slots<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit([MAIL, MAIL, QUICK, QUICK].map(task).to_vec()).await;
    let mut takes = vec![Takes { quick_ns: Some(3), blocking: true }; 2];
    takes[QUICK] = Takes { quick_ns: Some(3), blocking: false };
    let threads = Threads { free: 2, behind_ns: 0 };
    let claim = ClaimBudget { prefetch: 5, takes, threads, behind_ns: 1, ..ClaimBudget::default() };
    let claims = world.apply(Batch { claim, ..world.batch() }).await.claims;
    assert_eq!(ids(&claims), id[..3]);
}

pub(super) async fn what_blocks_in_a_slot_lets_others_wait_behind_slots<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id =
        world.submit(vec![task(MAIL), task(QUICK), task(QUICK), task(MAIL), task(QUICK)]).await;
    let mut takes = vec![Takes { quick_ns: None, blocking: true }; 2];
    takes[QUICK] = Takes { quick_ns: Some(1), blocking: false };
    let claim =
        ClaimBudget { slots: 1, prefetch: 5, takes, behind_ns: 99, ..ClaimBudget::default() };
    let claims = world.apply(Batch { claim, ..world.batch() }).await.claims;
    assert_eq!(ids(&claims), id[..3], "the second waits for a slot, and is not overtaken");
}

pub(super) async fn what_stands_after_another_shards_first_is_claimed_only_so_often<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let id = world.submit([0, 2, 1, 2, -3].map(with_priority).to_vec()).await;
    let order = [1, 3, 2, 0, 4].map(|index| id[index]);
    let mut left = &order[..];
    // another shard's first has the rank of the one of priority 1, then the lowest there is
    let rank = world.options.ageing.rank(world.now, 1);
    for (rank, tasks, expected) in [(rank, 0, 3), (rank, 0, 0), (rank, 1, 1), (i64::MAX, 0, 1)] {
        let passing = vec![Passing { rank, tasks }];
        let claim = ClaimBudget { slots: 9, passing, ..ClaimBudget::default() };
        let claims = world.apply(Batch { claim, ..world.batch() }).await.claims;
        let (claimed, rest) = left.split_at(expected);
        assert_eq!(ids(&claims), claimed);
        let rank_of = |claim: &Claim| world.options.ageing.rank(world.now, claim.priority);
        assert!(claims.iter().all(|claim| claim.rank == rank_of(claim)));
        left = rest;
    }
}

pub(super) async fn what_is_claimed_carries_what_was_submitted<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let overrides = Overrides {
        max_attempts: Some(7),
        timeout: Some(Duration::from_millis(1_500)),
        backoff: Some((Duration::from_millis(20), Duration::from_secs(4))),
    };
    let callbacks: Arc<[Arc<str>]> = vec![Arc::from("on_end")].into();
    let submission = NewTask {
        codec: Codec::Json,
        priority: -7,
        volatile: true,
        callbacks: Some(callbacks.clone()),
        overrides: Some(Box::new(overrides)),
        ..task(QUICK)
    };
    let cached = NewTask { payload: None, ..task(MAIL) };
    // once claimed as it is stored, once read back
    for slots in [2, 0] {
        let claim = ClaimBudget { slots, ..ClaimBudget::default() };
        let submissions = vec![submission.clone(), cached.clone()];
        let result = world.apply(Batch { submissions, claim, ..world.batch() }).await;
        let mut claims = result.claims;
        if slots == 0 {
            claims = world.claim(2).await;
        }
        let [in_memory, stored] = &claims[..] else { panic!("two were claimed: {claims:?}") };
        assert!(matches!(in_memory.input, ClaimInput::Cached));
        assert_eq!((stored.definition, stored.priority, stored.volatile), (QUICK, -7, true));
        assert_eq!(
            (stored.overrides.as_deref(), stored.submitted_at),
            (Some(&overrides), FIRST_DAY)
        );
        assert_eq!(stored.callbacks, Some(callbacks.clone()));
        let ClaimInput::Encoded(encoded) = &stored.input else { panic!("{:?}", stored.input) };
        assert_eq!((encoded.codec, &encoded.bytes[..]), (Codec::Json, &b"payload"[..]));
    }
}
