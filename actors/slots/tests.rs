//! Credits are conserved, whoever takes, assigns and gives them back in whatever order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::wanted::OfQueue;
use super::*;
use crate::queues::Queues;

mod alone;
mod order;

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

fn runs_alone(slots: &Slots) -> bool {
    slots.lock().alone.is_some_and(|alone| alone.run.is_some())
}

fn used(slots: &Slots) -> Vec<usize> {
    slots.lock().used.clone()
}

impl Slots {
    pub(crate) fn are_all_free(&self) -> bool {
        let state = self.lock();
        state.used.iter().all(|used| *used == 0) && state.load_ns.iter().all(|ns| *ns == 0)
    }
}

/// So many tasks of a queue without a limit.
fn tasks(free: usize) -> Wanted {
    Wanted { free, ..Wanted::default() }
}

/// A millisecond, in nanoseconds.
const MS_NS: u64 = 1_000_000;

/// So long is to be covered, and there is no other bound.
const MS: Behind = Behind { covered_ns: MS_NS, max: usize::MAX };

fn freed(attempts: usize, long: u64) -> Freed {
    Freed { attempts, load_ns: long * UNKNOWN_NS, ..Freed::default() }
}

fn may(slots: &Slots, shard: ShardId, wanted: &Wanted) -> bool {
    slots.free_or_wait(shard, wanted) == MayClaim::Now
}

/// Takes and assigns; returns the workers.
fn assigned(slots: &Arc<Slots>, shard: ShardId, wanted: usize) -> Vec<(usize, bool)> {
    let mut grant = slots.take(shard, &tasks(wanted), MS);
    let free = std::iter::from_fn(|| grant.assign(false, 0)).map(|worker| (worker, false));
    let free: Vec<_> = free.collect();
    let behind = std::iter::from_fn(|| grant.assign(true, 0)).map(|worker| (worker, true));
    let all: Vec<_> = free.into_iter().chain(behind).collect();
    assert!(grant.give_back(true).is_empty());
    all
}

#[test]
fn free_slots_are_spread_over_the_workers_and_go_before_places_behind_them() {
    let slots = Slots::new(3, 2, 1);
    let grant = slots.take(A, &tasks(3), MS);
    assert_eq!((grant.slots(), grant.places_behind()), (3, 0));
    assert_eq!(used(&slots), [1, 1, 1]);
    let more = slots.take(A, &tasks(100), MS);
    assert_eq!((more.slots(), more.places_behind()), (3, 3));
    assert!(!may(&slots, A, &tasks(1)));
}

#[test]
fn what_was_not_assigned_goes_back() {
    let slots = Slots::new(2, 4, 0);
    let mut grant = slots.take(A, &tasks(5), MS);
    let worker = grant.assign(false, 0).unwrap();
    assert!(grant.assign(true, 0).is_none());
    drop(grant.give_back(true));
    let mut expected = vec![0, 0];
    expected[worker] = 1;
    assert_eq!(used(&slots), expected);
    drop(slots.take(A, &tasks(3), MS));
    assert_eq!(used(&slots), expected, "a dropped grant gives all back");
}

#[test]
fn a_shard_that_got_too_little_is_woken_when_a_slot_is_free() {
    let slots = Slots::new(1, 1, 0);
    let [(worker, _)] = assigned(&slots, A, 1)[..] else { panic!("one slot") };
    assert!(slots.take(B, &tasks(1), MS).give_back(false).is_empty());
    assert_eq!(slots.release(worker, &freed(1, 0)), [B]);
    assert!(slots.release(worker, &freed(0, 0)).is_empty(), "it is woken once");
}

#[test]
fn a_shard_that_asks_for_a_free_slot_in_vain_is_woken_when_one_comes_back() {
    let slots = Slots::new(1, 2, 0);
    let held = slots.take(A, &tasks(2), MS);
    assert!(!may(&slots, B, &tasks(1)));
    assert_eq!(held.give_back(false), [B]);
    assert!(may(&slots, B, &tasks(1)));
    drop(slots.take(A, &tasks(2), MS));
    assert!(slots.release(0, &freed(0, 0)).is_empty(), "who may claim now doesn't wait");
}

/// Only quick tasks can use it, so who has just such a place still waits for a slot.
#[test]
fn a_place_behind_a_slot_does_not_stop_the_wait_for_a_slot() {
    let slots = Slots::new(1, 1, 4);
    let [(worker, false)] = assigned(&slots, A, 1)[..] else { panic!("one slot") };
    let grant = slots.take(B, &tasks(1), MS);
    assert_eq!((grant.slots(), grant.places_behind()), (0, 1));
    assert!(grant.give_back(false).is_empty());
    assert_eq!(slots.release(worker, &freed(1, 0)), [B]);
}

#[test]
fn a_shard_that_was_kept_from_a_slot_by_anothers_places_is_woken_when_they_come_back() {
    let slots = Slots::new(1, 2, 4);
    let holder = slots.take(A, &tasks(2), MS);
    let guess = slots.take(B, &tasks(3), MS);
    assert_eq!((guess.slots(), guess.places_behind()), (0, 3));
    assert_eq!(holder.give_back(false), [B]);
    // no attempt runs, and yet no slot is free
    assert!(!may(&slots, A, &tasks(1)));
    assert_eq!(guess.give_back(false), [A]);
    assert!(may(&slots, A, &tasks(1)));
}

#[derive(Clone, Debug)]
enum Step {
    Take { shard: u16, wanted: usize },
    Alone { shard: u16 },
    GiveUp { shard: u16 },
    Assign { grant: usize, prefetched: bool },
    GiveBack { grant: usize },
    Drop { grant: usize },
    Release { attempt: usize },
    Store,
    StoresNothing { shard: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u16, 0..12usize).prop_map(|(shard, wanted)| Step::Take { shard, wanted }),
        1 => (0..3u16).prop_map(|shard| Step::Alone { shard }),
        1 => (0..3u16).prop_map(|shard| Step::GiveUp { shard }),
        6 => (any::<usize>(), any::<bool>())
            .prop_map(|(grant, prefetched)| Step::Assign { grant, prefetched }),
        2 => any::<usize>().prop_map(|grant| Step::GiveBack { grant }),
        1 => any::<usize>().prop_map(|grant| Step::Drop { grant }),
        4 => any::<usize>().prop_map(|attempt| Step::Release { attempt }),
        2 => Just(Step::Store),
        1 => (0..3u16).prop_map(|shard| Step::StoresNothing { shard }),
    ]
}

/// A grant, and whether something of it was assigned.
type Held = (Grant, bool);

/// What each worker must have: what was granted and not given back, and what was assigned.
fn expected(workers: usize, grants: &[Held], attempts: &[(usize, Option<u64>)]) -> Vec<usize> {
    let mut used = vec![0; workers];
    for (grant, _) in grants {
        for (worker, count) in grant.free.iter().chain(&grant.behind) {
            used[*worker] += count;
        }
    }
    for (worker, _) in attempts {
        used[*worker] += 1;
    }
    used
}

proptest! {
    // a failure prints its seed; nothing is written beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn credits_are_conserved(
        (workers, concurrency, prefetch) in (1..4usize, 1..5usize, 0..4usize),
        steps in vec(step(), 0..60),
    ) {
        let slots = Slots::new(workers, concurrency, prefetch);
        let mut grants: Vec<Held> = Vec::new();
        let mut attempts: Vec<(usize, Option<u64>)> = Vec::new();
        // ends that aren't stored: of the run alone, and of those that nobody waits for any more
        let (mut unstored, mut late) = (None, Vec::new());
        for step in steps {
            match step {
                Step::Take { shard, wanted } => {
                    let had_free = used(&slots).iter().any(|used| *used < concurrency);
                    let blocked = slots.lock().alone.is_some();
                    let grant = slots.take(ShardId(shard), &tasks(wanted), MS);
                    let got = grant.slots() + grant.places_behind();
                    prop_assert!(got <= wanted);
                    prop_assert_eq!(grant.slots() > 0, had_free && !blocked && wanted > 0);
                    let waits = slots.lock().waiting.contains_key(&ShardId(shard));
                    prop_assert!(grant.slots() == wanted || waits, "too little, and forgotten");
                    grants.push((grant, false));
                }
                Step::Alone { shard } => {
                    let silent = used(&slots).iter().all(|used| *used == 0);
                    if let Some(grant) = slots.take_alone(ShardId(shard), Wanted::default()) {
                        prop_assert!(silent);
                        grants.push((grant, false));
                    }
                }
                Step::GiveUp { shard } => drop(slots.give_up_alone(ShardId(shard))),
                Step::Assign { grant, prefetched } if !grants.is_empty() => {
                    let index = grant % grants.len();
                    let (grant, assigned) = &mut grants[index];
                    let alone = grant.run_alone();
                    if let Some(worker) = grant.assign(prefetched, 0) {
                        *assigned = true;
                        attempts.push((worker, alone));
                    }
                }
                Step::GiveBack { grant } if !grants.is_empty() => {
                    let (grant, assigned) = grants.remove(grant % grants.len());
                    drop(grant.give_back(assigned));
                }
                // what a panic does; never to a grant whose run alone was handed out
                Step::Drop { grant } if !grants.is_empty() => {
                    let (grant, assigned) = grants.remove(grant % grants.len());
                    if assigned {
                        drop(grant.give_back(true));
                    } else {
                        drop(grant);
                    }
                }
                Step::Release { attempt } if !attempts.is_empty() => {
                    let (worker, alone) = attempts.remove(attempt % attempts.len());
                    drop(slots.release(worker, &freed(1, 0)));
                    unstored = unstored.or(alone);
                }
                Step::Store => {
                    let stored = late.pop().or_else(|| unstored.take());
                    stored.into_iter().for_each(|run| drop(slots.alone_is_over(run)));
                }
                Step::StoresNothing { shard } => {
                    drop(slots.stores_nothing(ShardId(shard)));
                    if !runs_alone(&slots) {
                        late.extend(unstored.take());
                    }
                }
                _ => {}
            }
            let used = used(&slots);
            prop_assert_eq!(&used, &expected(workers, &grants, &attempts));
            prop_assert!(used.iter().all(|used| *used <= concurrency + prefetch));
            let runs = runs_alone(&slots);
            let alone = grants.iter().any(|(grant, assigned)| grant.is_alone() && !assigned)
                || attempts.iter().any(|(_, alone)| alone.is_some())
                || unstored.is_some();
            prop_assert_eq!(runs, alone);
            prop_assert!(!runs || used.iter().sum::<usize>() <= 1, "a suspect runs alone");
        }
        for (grant, assigned) in grants.drain(..) {
            drop(grant.give_back(assigned));
        }
        for (worker, alone) in attempts.drain(..) {
            drop(slots.release(worker, &freed(1, 0)));
            unstored = unstored.or(alone);
        }
        unstored.into_iter().for_each(|run| drop(slots.alone_is_over(run)));
        prop_assert!(used(&slots).iter().all(|used| *used == 0));
        prop_assert!(!runs_alone(&slots));
    }
}

/// They used to be stuck there while another worker was free.
#[test]
fn nobody_gets_a_place_behind_a_worker_that_is_full_of_long_attempts() {
    let slots = Slots::new(2, 1, 4);
    let mut grant = slots.take(A, &tasks(1), MS);
    let worker = grant.assign(false, UNKNOWN_NS).unwrap();
    assert!(grant.give_back(true).is_empty());
    let mut grant = slots.take(B, &tasks(9), MS);
    assert_eq!((grant.slots(), grant.places_behind()), (1, 4));
    let other = grant.assign(true, 0).unwrap();
    assert_ne!(other, worker);
    drop(grant.give_back(true));
    drop(slots.release(worker, &freed(1, 1)));
    assert_eq!(slots.lock().load_ns, [0, 0]);
    assert_eq!(slots.take(B, &tasks(9), MS).places_behind(), 8, "behind both");
}

/// Tasks of a queue of which so many may run at a time.
fn of_limited(queue: QueueIndex, limit: usize, tasks: usize) -> Wanted {
    let limited = vec![OfQueue { queue, limit, tasks, first: First::UNKNOWN, certain: true }];
    Wanted { limited, ..Wanted::default() }
}

#[test]
fn no_more_places_of_a_limited_queue_are_given_than_it_has_and_others_go_on() {
    let queue = Queues::new().get_or_add("mail");
    let slots = Slots::new(1, 8, 0);
    let mut first = slots.take(A, &of_limited(queue, 3, 2), MS);
    assert_eq!((first.slots(), first.queues().left(queue)), (2, 2));
    first.assign_place(queue);
    first.assign_place(queue);
    assert!(first.assign(false, UNKNOWN_NS).is_some() && first.assign(false, UNKNOWN_NS).is_some());
    drop(first);
    let second = slots.take(B, &Wanted { free: 1, ..of_limited(queue, 3, 5) }, MS);
    assert_eq!(
        (second.slots(), second.queues().left(queue)),
        (2, 1),
        "one place and one free task"
    );
    assert!(second.give_back(false).contains(&B), "its one place is free again, and it waits");
    assert!(may(&slots, B, &of_limited(queue, 3, 5)));
    assert!(!may(&slots, B, &of_limited(queue, 2, 5)));
    let ended = Freed { attempts: 1, load_ns: UNKNOWN_NS, places: QueueTally::from_iter([queue]) };
    assert_eq!(slots.release(0, &ended), [B]);
    assert!(may(&slots, B, &of_limited(queue, 2, 5)));
}

/// They held none, and a limit that was set while they ran let as many more begin.
#[test]
fn attempts_that_began_without_a_limit_hold_places_once_there_is_one() {
    for queue in [QueueIndex::DEFAULT, Queues::new().get_or_add("mail")] {
        let slots = Slots::new(1, 8, 0);
        let mut began = slots.take(A, &tasks(3), MS);
        while began.assign(false, UNKNOWN_NS).is_some() {
            began.assign_place(queue);
        }
        drop(began.give_back(true));
        assert!(slots.exceeds(queue, 2) && !slots.exceeds(queue, 3));
        let places = |limit| slots.take(B, &of_limited(queue, limit, 5), MS).queues().left(queue);
        assert_eq!([4, 3, 2].map(places), [1, 0, 0]);
        let ended = Freed { places: QueueTally::from_iter([queue]), ..freed(1, 1) };
        assert_eq!(slots.release(0, &ended), [B]);
        assert_eq!([3, 2].map(places), [1, 0]);
    }
}

/// A shard whose limited queue had more tasks than places took them without a slot, gave them back,
/// woke itself for that and so kept its thread busy for as long as all slots were taken.
#[test]
fn places_that_come_back_wake_nobody_while_no_slot_is_free() {
    let queue = Queues::new().get_or_add("mail");
    let slots = Slots::new(1, 2, 0);
    assigned(&slots, A, 2);
    let wanted = of_limited(queue, 2, 5);
    let places = slots.take(A, &wanted, MS);
    assert_eq!((places.slots(), places.queues().left(queue)), (0, 2));
    drop(slots.take(B, &wanted, MS).give_back(false));
    assert!(places.give_back(false).is_empty());
    assert_eq!(slots.release(0, &freed(1, 1)), [A, B], "both still wait");
}

#[test]
fn a_guess_at_a_limited_queue_waits_for_no_place() {
    let queue = Queues::new().get_or_add("mail");
    let slots = Slots::new(1, 8, 0);
    let mut all = slots.take(A, &of_limited(queue, 1, 1), MS);
    all.assign_place(queue);
    assert!(all.assign(false, UNKNOWN_NS).is_some());
    let mut guess = of_limited(queue, 1, 0);
    guess.limited[0].certain = false;
    guess.guess(10);
    drop(slots.take(B, &guess, MS));
    let ended = Freed { attempts: 1, load_ns: UNKNOWN_NS, places: QueueTally::from_iter([queue]) };
    assert!(!slots.release(0, &ended).contains(&B));
}

#[test]
fn as_many_wait_behind_slots_as_these_get_through_in_the_time_to_be_covered() {
    for (lasts_ns, places) in
        [(MS_NS / 10, 80), (MS_NS, 8), (5 * MS_NS, 2), (16 * MS_NS, 1), (17 * MS_NS, 0)]
    {
        let slots = Slots::new(1, 8, 1_000);
        let mut grant = slots.take(A, &tasks(8), MS);
        while grant.assign(false, lasts_ns).is_some() {}
        drop(grant.give_back(true));
        let behind = slots.take(A, &tasks(2_000), MS).places_behind();
        assert_eq!(behind, places, "with attempts of {lasts_ns} ns");
    }
}

#[test]
fn no_more_wait_behind_slots_than_the_shard_has_room_for() {
    let slots = Slots::new(2, 1, 8);
    assigned(&slots, A, 2);
    for max in [0, 3] {
        let grant = slots.take(A, &tasks(9), Behind { max, ..MS });
        assert_eq!((grant.slots(), grant.places_behind()), (0, max));
    }
}

#[test]
fn the_credit_of_an_attempt_goes_with_it_to_another_worker() {
    let slots = Slots::new(2, 1, 1);
    let mut grant = slots.take(A, &tasks(4), MS);
    while grant.assign(false, MS_NS).or_else(|| grant.assign(true, MS_NS)).is_some() {}
    assert!(grant.give_back(true).is_empty());
    assert_eq!(used(&slots), [2, 2]);
    // it has no more
    drop(slots.take(A, &tasks(0), MS));
    assert!(!may(&slots, B, &tasks(1)), "it waits");
    let over = Freed { attempts: 1, load_ns: MS_NS, ..Freed::default() };
    assert_eq!(slots.release(1, &over), [B]);
    assert!(!may(&slots, B, &tasks(1)), "the other attempt has the slot");
    assert_eq!(slots.release(1, &over), [B]);
    // one of the first has the slot instead
    assert!(slots.moved(0, 1, MS_NS).is_empty());
    assert_eq!(used(&slots), [1, 1]);
    assert_eq!(slots.lock().load_ns, [MS_NS, MS_NS]);
    assert!(!may(&slots, B, &tasks(1)), "it waits again");
    // the last one of the first, which couldn't begin there
    assert_eq!(slots.moved(0, 1, MS_NS), [B]);
    assert_eq!((used(&slots), slots.lock().load_ns.clone()), (vec![0, 2], vec![0, 2 * MS_NS]));
    assert!(slots.release(1, &over).is_empty(), "nobody waits");
    assert!(slots.release(1, &over).is_empty(), "nobody waits");
    assert!(slots.are_all_free());
}
