//! Suspects, which run with nothing beside them.

use super::*;

#[test]
fn a_suspect_waits_until_nothing_runs_and_then_nothing_runs_beside_it() {
    let slots = Slots::new(2, 2, 1);
    let running = assigned(&slots, B, 2);
    assert!(slots.take_alone(A, Wanted::default()).is_none());
    assert!(!may(&slots, B, &tasks(1)), "nothing is claimed while it waits");
    let refused = slots.take(B, &tasks(1), MS);
    assert_eq!((refused.slots(), refused.places_behind()), (0, 0));
    assert!(slots.release(running[0].0, &freed(1, 0)).is_empty());
    assert_eq!(slots.release(running[1].0, &freed(1, 0)), [A]);
    let mut grant = slots.take_alone(A, Wanted::default()).unwrap();
    assert!(grant.is_alone());
    assert!(
        slots.take_alone(A, Wanted::default()).is_none()
            && slots.take_alone(B, Wanted::default()).is_none()
    );
    let (worker, run) = (grant.assign(false, 0).unwrap(), grant.run_alone().unwrap());
    assert!(grant.assign(false, 0).is_none() && grant.assign(true, 0).is_none());
    assert!(grant.give_back(true).is_empty());
    assert_eq!(slots.take(B, &tasks(9), MS).slots(), 0);
    assert!(slots.release(worker, &freed(1, 0)).is_empty(), "its end isn't stored yet");
    assert!(slots.take_alone(B, Wanted::default()).is_none());
    assert_eq!(slots.take(B, &tasks(9), MS).slots(), 0);
    assert!(slots.alone_is_over(run).contains(&B));
    assert_eq!(slots.take(B, &tasks(9), MS).slots(), 4);
}

#[test]
fn nobody_waits_for_an_end_that_a_shard_cannot_store() {
    let slots = Slots::new(1, 2, 0);
    let mut grant = slots.take_alone(A, Wanted::default()).unwrap();
    let (worker, run) = (grant.assign(false, 0).unwrap(), grant.run_alone().unwrap());
    assert!(grant.give_back(true).is_empty());
    assert!(slots.take(B, &tasks(1), MS).give_back(false).is_empty());
    assert!(slots.stores_nothing(A).is_empty(), "it still runs");
    drop(slots.release(worker, &freed(1, 0)));
    assert!(slots.stores_nothing(B).is_empty(), "it isn't of that shard");
    assert_eq!(slots.stores_nothing(A), [B]);
    assert!(may(&slots, B, &tasks(1)));
    // stored late, its end is none of the run that has begun meanwhile
    let mut next = slots.take_alone(B, Wanted::default()).unwrap();
    let worker = next.assign(false, 0).unwrap();
    assert!(next.give_back(true).is_empty());
    assert!(slots.alone_is_over(run).is_empty());
    drop(slots.release(worker, &freed(1, 0)));
    assert!(slots.take_alone(A, Wanted::default()).is_none());
}

#[test]
fn a_suspect_is_woken_when_the_last_place_behind_a_slot_comes_back() {
    let slots = Slots::new(1, 1, 2);
    let [(worker, _)] = assigned(&slots, B, 1)[..] else { panic!("one slot") };
    let behind = slots.take(B, &tasks(2), MS);
    assert_eq!(behind.places_behind(), 2);
    assert!(slots.take_alone(A, Wanted::default()).is_none());
    assert!(slots.release(worker, &freed(1, 0)).is_empty(), "places are still taken");
    assert_eq!(behind.give_back(false), [A]);
    assert!(slots.take_alone(A, Wanted::default()).is_some());
}

#[test]
fn giving_up_the_wait_for_silence_wakes_the_others() {
    let slots = Slots::new(1, 2, 0);
    let running = assigned(&slots, B, 1);
    assert!(slots.take_alone(A, Wanted::default()).is_none());
    assert_eq!(slots.take(B, &tasks(1), MS).slots(), 0);
    assert!(slots.give_up_alone(B).is_empty(), "only who waits can give up");
    assert!(slots.give_up_alone(A).contains(&B));
    assert_eq!(slots.take(B, &tasks(1), MS).slots(), 1);
    drop(slots.release(running[0].0, &freed(1, 0)));
    let suspect = slots.take_alone(A, Wanted::default()).unwrap();
    assert!(slots.give_up_alone(A).is_empty(), "one that runs isn't waiting");
    drop(suspect);
}

#[test]
fn a_suspect_that_was_not_found_frees_the_queue() {
    let slots = Slots::new(1, 1, 0);
    let grant = slots.take_alone(A, Wanted::default()).unwrap();
    assert!(slots.take(B, &tasks(1), MS).give_back(false).is_empty());
    assert_eq!(grant.give_back(false), [B]);
    assert!(may(&slots, B, &tasks(1)));
    drop(slots.take_alone(A, Wanted::default()));
    assert!(may(&slots, B, &tasks(1)), "a dropped grant frees it, too");
}
