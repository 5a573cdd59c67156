//! Whose tasks stand first: what is kept for them, and what may not be claimed ahead of them.

use super::*;

/// So many quick tasks, the first of which has this rank.
fn from(rank: i64, free: usize) -> Wanted {
    Wanted { first: First { rank, ahead: Ahead::Quick }, free, ..Wanted::default() }
}

fn slow_from(rank: i64, free: usize) -> Wanted {
    Wanted { first: First { rank, ahead: Ahead::Never }, free, ..Wanted::default() }
}

#[test]
fn what_comes_back_is_kept_for_the_shard_whose_tasks_stand_first_but_not_for_long() {
    let slots = Slots::new(1, 4, 0);
    assigned(&slots, A, 4);
    let now = Instant::now();
    let later = now + KEPT_FOR_MIN;
    assert_eq!(slots.free_or_wait_at(A, &from(7, 3), now), MayClaim::WhenWoken);
    assert_eq!(slots.free_or_wait_at(B, &from(9, 9), now), MayClaim::WhenWoken);
    assert_eq!(slots.release(0, &freed(2, 0)), [A, B]);
    // the lower one comes first and gets nothing of the two, as the other wants three
    let mut grant = slots.take_at(B, &from(9, 9), MS, now);
    assert_eq!((grant.slots(), grant.places_behind()), (0, 0));
    assert!(grant.give_back(false).is_empty());
    assert!(matches!(slots.free_or_wait_at(B, &from(9, 9), now), MayClaim::Soon(_)));
    grant = slots.take_at(A, &from(7, 1), MS, now);
    assert_eq!(grant.slots(), 1);
    // it wanted less than it had said, and the other hears of that
    assert!(grant.assign(false, 0).is_some());
    assert_eq!(grant.give_back(true), [B]);
    assert_eq!(slots.take_at(B, &from(9, 9), MS, now).slots(), 1);
    // a shard that is woken and busy with something else keeps nobody waiting for long
    assert_eq!(slots.free_or_wait_at(A, &from(7, 3), now), MayClaim::Now);
    let mut rest = slots.take_at(A, &from(7, 1), MS, now);
    assert!(rest.assign(false, 0).is_some() && rest.give_back(true).is_empty());
    assert_eq!(slots.free_or_wait_at(A, &from(7, 3), now), MayClaim::WhenWoken);
    assert!(slots.release(0, &freed(1, 0)).contains(&A));
    assert_eq!(slots.take_at(B, &from(9, 9), MS, later + KEPT_FOR_MIN).slots(), 1);
}

#[test]
fn slots_are_kept_for_as_long_as_the_shards_commit_may_last() {
    for (commit_ms, kept_us) in [(0, 2_000), (1, 2_000), (5, 7_500), (20, 30_000), (1_000, 50_000)]
    {
        let now = Instant::now();
        let slots = Slots::new(1, 4, 0);
        assigned(&slots, A, 4);
        let wanted = from(7, 3).kept_for(kept_for(Duration::from_millis(commit_ms)));
        assert_eq!(slots.free_or_wait_at(A, &wanted, now), MayClaim::WhenWoken);
        assert_eq!(slots.release(0, &freed(2, 0)), [A]);
        let MayClaim::Soon(kept) = slots.free_or_wait_at(B, &from(9, 9), now) else {
            panic!("nothing is kept for {commit_ms} ms")
        };
        // the slots came free a moment after `now`
        let (least, moment) = (Duration::from_micros(kept_us), Duration::from_micros(1));
        assert!((least..=least + now.elapsed()).contains(&kept), "{kept:?} of {commit_ms} ms");
        assert_eq!(slots.take_at(B, &from(9, 9), MS, now + kept - moment).slots(), 0);
        assert_eq!(slots.take_at(B, &from(9, 9), MS, now + kept + moment).slots(), 2);
    }
}

/// Takes credits and claims what the ranks say, as the store does: those that may pass first.
fn claims(
    slots: &Arc<Slots>,
    shard: ShardId,
    wanted: &Wanted,
    now: Instant,
    ranks: &[i64],
) -> usize {
    let mut grant = slots.take_at(shard, wanted, MS, now);
    let mut claimed = Vec::new();
    for rank in ranks.iter().take(grant.slots() + grant.places_behind()) {
        let passed = |passing: &Passing| claimed.iter().filter(|one| **one > passing.rank).count();
        let mut before = grant.passing().iter().filter(|passing| *rank > passing.rank);
        if before.any(|passing| passed(passing) == passing.tasks) {
            break;
        }
        let prefetched = grant.slots() == 0;
        assert!(grant.assign(prefetched, 0).is_some());
        claimed.push(*rank);
    }
    grant.claimed(claimed.iter().copied());
    drop(grant.give_back(!claimed.is_empty()));
    claimed.len()
}

#[test]
fn what_an_urgent_task_takes_along_passes_another_shard_once() {
    let slots = Slots::new(1, 1, 8);
    let now = Instant::now();
    assigned(&slots, A, 1);
    // it is busy, and its first task waits
    assert_eq!(slots.free_or_wait_at(B, &from(7, 40), now), MayClaim::WhenWoken);
    let ranks = [1, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let claimed = || {
        drop(slots.release(0, &freed(1, 0)));
        let claimed = claims(&slots, A, &from(1, 40), now, &ranks);
        (1..claimed).for_each(|_| drop(slots.release(0, &freed(1, 0))));
        claimed
    };
    assert_eq!(claimed(), 9, "a batch, one of which is urgent");
    assert_eq!(claimed(), 2, "one more may pass");
    assert_eq!(claimed(), 1, "the urgent one");
    // its turn: what stands first then has been passed by those of a higher rank only
    drop(slots.release(0, &freed(1, 0)));
    assert_eq!(claims(&slots, B, &from(7, 40), now, &[7; 40]), 9);
    (0..9).for_each(|_| drop(slots.release(0, &freed(1, 0))));
    drop(slots.take_at(B, &from(8, 40), MS, now + KEPT_FOR_MIN).give_back(false));
    assert_eq!(slots.lock().passed[&B].len(), 7);
    // once it has all that it wants, nothing of that counts for what comes to it later
    drop(slots.take_at(B, &from(8, 1), MS, now).give_back(false));
    assert!(slots.lock().passed.is_empty());
}

/// It hangs, and the others go on.
#[test]
fn of_what_passes_a_shard_that_never_comes_a_batch_is_noted() {
    let slots = Slots::new(1, 2, 0);
    assigned(&slots, A, 2);
    assert_eq!(slots.free_or_wait(B, &from(7, 40)), MayClaim::WhenWoken);
    let mut passed = 0;
    for _ in 0..20 {
        drop(slots.release(0, &freed(1, 0)));
        let later = Instant::now() + KEPT_FOR_MIN;
        passed += claims(&slots, A, &from(8, 40), later, &[8; 40]);
    }
    assert_eq!(passed, 20);
    assert!(slots.lock().passed.get(&B).is_none_or(|noted| noted.len() <= 2));
}

/// The limit of one is no other's.
#[test]
fn a_shard_that_was_passed_often_stops_only_what_stands_after_its_tasks() {
    const C: ShardId = ShardId(2);
    let slots = Slots::new(1, 2, 0);
    let now = Instant::now();
    assigned(&slots, A, 2);
    assert_eq!(slots.free_or_wait_at(B, &from(7, 40), now), MayClaim::WhenWoken);
    assert_eq!(slots.free_or_wait_at(C, &from(100, 1), now), MayClaim::WhenWoken);
    slots.lock().passed.insert(C, vec![200; 2]);
    let may = || {
        let passing = slots.lock().passing(A, 2, now);
        [5, 50, 150].map(|rank| may_take(&passing, rank, 2))
    };
    assert_eq!(may(), [2, 2, 2], "they only wait");
    assert_eq!(slots.release(0, &freed(2, 0)), [B, C]);
    assert_eq!(may(), [2, 2, 0]);
}

#[test]
fn a_shard_that_has_places_behind_slots_for_all_it_wants_keeps_no_slot_from_others() {
    let slots = Slots::new(1, 2, 8);
    assigned(&slots, A, 2);
    let now = Instant::now();
    let grant = slots.take_at(A, &from(1, 4), MS, now);
    assert_eq!((grant.slots(), grant.places_behind()), (0, 4));
    assert_eq!(slots.release(0, &freed(2, 0)), [A]);
    drop(grant.give_back(true));
    assert_eq!(slots.take_at(B, &from(9, 1), MS, now).slots(), 1);
}

#[test]
fn nothing_waits_behind_slots_that_stands_after_what_another_shard_waits_for() {
    let behind = |waiting: Wanted, wanted: Wanted| {
        let slots = Slots::new(1, 2, 8);
        assigned(&slots, A, 2);
        let now = Instant::now();
        assert_eq!(slots.free_or_wait_at(B, &waiting, now), MayClaim::WhenWoken);
        let grant = slots.take_at(A, &wanted, MS, now);
        assert_eq!(grant.slots(), 0);
        grant.places_behind()
    };
    assert_eq!(behind(from(7, 20), from(9, 10)), 0);
    assert_eq!(behind(from(7, 3), from(9, 10)), 5, "there is room for what stands first, too");
    assert_eq!(behind(from(9, 20), from(7, 10)), 8);
    assert_eq!(behind(from(7, 20), from(7, 10)), 8);
    // what may not wait behind a slot needs one that is free
    assert_eq!(behind(slow_from(7, 1), from(9, 10)), 0);
    assert_eq!(behind(slow_from(9, 1), from(7, 10)), 8);
    assert_eq!(behind(from(9, 1), slow_from(7, 10)), 0);
}

#[test]
fn nothing_is_kept_for_a_shard_that_has_had_more_places_than_tasks() {
    let slots = Slots::new(1, 1, 8);
    assigned(&slots, A, 1);
    let now = Instant::now();
    let mut guess = slots.take_at(B, &from(1, 65), MS, now);
    assert_eq!((guess.slots(), guess.places_behind()), (0, 8));
    assert!(guess.assign(true, 0).is_some());
    drop(guess.give_back(true));
    assert_eq!(slots.take_at(A, &from(9, 99), MS, now).places_behind(), 7);
}

#[test]
fn a_task_that_may_not_wait_behind_a_slot_gets_the_next_free_one() {
    let slots = Slots::new(1, 1, 8);
    assigned(&slots, A, 9);
    let now = Instant::now();
    drop(slots.take_at(B, &slow_from(1, 1), MS, now));
    for used in (1..9).rev() {
        assert!(slots.release(0, &freed(1, 0)).contains(&B));
        assert_eq!(slots.take_at(A, &from(2, 99), MS, now).places_behind(), 0, "of {used}");
        assert_eq!(slots.take_at(B, &slow_from(1, 1), MS, now).slots(), 0);
        // while it looks, too
        assert_eq!(slots.take_at(A, &from(2, 99), MS, now).places_behind(), 0, "of {used}");
    }
    assert!(slots.release(0, &freed(1, 0)).contains(&B));
    assert_eq!(slots.take_at(A, &from(2, 99), MS, now).slots(), 0);
    assert_eq!(slots.take_at(B, &slow_from(1, 1), MS, now).slots(), 1);
}

#[test]
fn what_stands_behind_one_that_blocks_waits_behind_slots_once_that_one_has_a_slot() {
    for (ahead, expected) in [(Ahead::Quick, 3), (Ahead::ButOthers, 3), (Ahead::Never, 0)] {
        let slots = Slots::new(1, 2, 3);
        let wanted = || Wanted { first: First { rank: 1, ahead }, free: 9, ..Wanted::default() };
        let grant = slots.take(A, &wanted(), MS);
        assert_eq!((grant.slots(), grant.places_behind()), (2, expected), "{ahead:?}");
        // without one it has nothing behind it either
        drop(grant);
        let mut full = slots.take(A, &tasks(2), MS);
        while full.assign(false, 0).is_some() {}
        let _ = full.give_back(true);
        let grant = slots.take(A, &wanted(), MS);
        let behind = if ahead == Ahead::Quick { 3 } else { 0 };
        assert_eq!((grant.slots(), grant.places_behind()), (0, behind), "{ahead:?}");
    }
}

#[test]
fn what_may_not_run_for_its_queue_is_full_has_nothing_kept_for_it() {
    let slots = Slots::new(1, 1, 8);
    let queue = Queues::new().get_or_add("mail");
    let limited = |rank| {
        let first = First { rank, ahead: Ahead::Quick };
        OfQueue { queue, limit: 1, tasks: 5, first, certain: true }
    };
    let mut grant = slots.take(B, &Wanted { limited: vec![limited(1)], ..from(100, 0) }, MS);
    assert!(grant.assign(false, 0).is_some());
    grant.assign_place(queue);
    assert!(grant.give_back(true).is_empty());
    // the queue's other tasks stand first, but it is the shard's later ones that may run
    let both = Wanted { limited: vec![limited(1)], ..from(100, 10) };
    let now = Instant::now();
    assert_eq!(slots.free_or_wait_at(B, &both, now), MayClaim::WhenWoken);
    assert_eq!(slots.take_at(A, &from(50, 10), MS, now).places_behind(), 8);
}

#[test]
fn a_place_is_left_for_what_stands_first_in_a_shard_that_was_woken() {
    let slots = Slots::new(1, 1, 8);
    assigned(&slots, A, 5);
    let now = Instant::now();
    assert_eq!(slots.free_or_wait_at(B, &from(7, 1), now), MayClaim::WhenWoken);
    assert!(slots.release(0, &freed(1, 0)).contains(&B));
    let lower = slots.take_at(A, &from(9, 10), MS, now);
    assert_eq!((lower.slots(), lower.places_behind()), (0, 4));
    let first = slots.take_at(B, &from(7, 1), MS, now);
    assert_eq!((first.slots(), first.places_behind()), (0, 1));
}

#[test]
fn nothing_is_kept_for_a_shard_that_has_had_more_slots_than_tasks() {
    let slots = Slots::new(1, 4, 0);
    let now = Instant::now();
    // it guesses, and one of its tasks is there
    let mut guess = slots.take_at(B, &from(1, 65), MS, now);
    assert_eq!(guess.slots(), 4);
    assert_eq!(slots.free_or_wait_at(A, &from(9, 9), now), MayClaim::WhenWoken);
    assert!(guess.assign(false, 0).is_some());
    assert_eq!(guess.give_back(true), [A]);
    assert_eq!(slots.take_at(A, &from(9, 9), MS, now).slots(), 3);
}

#[test]
fn a_shard_that_wants_nothing_any_more_lets_the_others_have_what_was_kept_for_it() {
    let slots = Slots::new(1, 2, 0);
    let now = Instant::now();
    assigned(&slots, A, 2);
    assert_eq!(slots.free_or_wait_at(B, &from(1, 9), now), MayClaim::WhenWoken);
    assert_eq!(slots.release(0, &freed(1, 0)), [B]);
    assert_eq!(slots.take_at(A, &from(9, 9), MS, now).slots(), 0);
    let nothing = slots.take_at(B, &Wanted::default(), MS, now);
    assert_eq!(nothing.give_back(false), [A]);
    assert_eq!(slots.free_or_wait_at(A, &from(9, 9), now), MayClaim::Now);
}
