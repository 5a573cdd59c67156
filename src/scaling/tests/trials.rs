//! What becomes of a shard on trial.

use super::*;

/// A trial after which as much is stored as before.
fn trial(wait_before_s: f64, wait_after_s: f64) -> Decision {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let figures = |wait_s, active| Figures {
        seconds: 0.1,
        stored: 900.0,
        waited_s: 900.0 * wait_s,
        committing_s: 0.09,
        pending: 10,
        active,
        last: active - 1,
        ..Figures::default()
    };
    while controller.advise(&figures(wait_before_s, 1)).decision.is_none() {}
    controller.grew(1);
    loop {
        if let Some(decision) = controller.advise(&figures(wait_after_s, 2)).decision {
            return decision;
        }
    }
}

/// What becomes of a trial that brings `gain`, where throughput differs by up to `noise` from one tick
/// to the next, and how long the trial took.
fn noisy_trial(gain: f64, noise: f64, seed: u64) -> (bool, f64) {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let mut random = seed;
    let mut figures = |active: usize| {
        // Knuth's linear congruential generator
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let off = (random >> 33) as f64 / f64::from(1_u32 << 30) - 1.0;
        let stored = 1_000.0 * (1.0 + off * noise) * if active > 1 { 1.0 + gain } else { 1.0 };
        let (waited_s, last) = (stored * 0.02, active - 1);
        let (seconds, committing_s, pending) = (0.1, 0.09, 10);
        Figures {
            seconds,
            stored,
            waited_s,
            committing_s,
            pending,
            active,
            last,
            ..Figures::default()
        }
    };
    while controller.advise(&figures(1)).decision.is_none() {}
    controller.grew(1);
    let mut took_s = -SETTLE_S;
    loop {
        took_s += 0.1;
        match controller.advise(&figures(2)).decision {
            None => assert!(took_s < 10.0, "a trial ends"),
            Some(Decision::Keep { .. }) => return (true, took_s),
            Some(_) => return (false, took_s),
        }
    }
}

fn kept(gain: f64, noise: f64) -> usize {
    (0..100).filter(|seed| noisy_trial(gain, noise, *seed).0).count()
}

#[test]
fn a_trial_is_kept_by_as_much_as_the_throughput_is_steady() {
    assert_eq!(kept(0.07, 0.0), 100);
    assert_eq!(kept(0.03, 0.0), 0);
    assert!(kept(0.07, 0.05) > 90, "{}", kept(0.07, 0.05));
    assert!(kept(0.0, 0.05) < 3, "{}", kept(0.0, 0.05));
    // where it differs much, a shard must bring more
    assert!(kept(0.14, 0.2) > 80, "{}", kept(0.14, 0.2));
    assert!(kept(0.0, 0.2) < 15, "{}", kept(0.0, 0.2));
}

#[test]
fn a_trial_takes_longer_while_it_is_not_clear() {
    let longest = |gain, noise| {
        let took = (0..100).map(|seed| noisy_trial(gain, noise, seed).1);
        took.fold(0.0, f64::max)
    };
    assert!(longest(0.2, 0.02) < 1.2, "clearly of use: {}", longest(0.2, 0.02));
    assert!(longest(0.0, 0.01) < 1.2, "clearly of none: {}", longest(0.0, 0.01));
    let unclear = longest(0.05, 0.2);
    assert!(unclear > 2.0 && unclear < 3.2, "{unclear}");
}

#[test]
fn a_shard_that_doubles_what_is_stored_is_kept_where_commits_take_several_ticks() {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let mut active = 1;
    for tick in 1_u64..200 {
        // a commit ends in every third one
        let stored = if tick.is_multiple_of(3) { 300.0 * active as f64 } else { 0.0 };
        let commits = stored / 300.0;
        let (seconds, waited_s, committing_s) = (0.1, stored * 0.5, commits * 0.3);
        let (pending, last) = (1_000, active - 1);
        let figures = Figures {
            seconds,
            stored,
            waited_s,
            committing_s,
            commits,
            pending,
            active,
            last,
            ..Figures::default()
        };
        match controller.advise(&figures).decision {
            None => {}
            Some(Decision::Grow { .. }) => {
                active += 1;
                controller.grew(1);
            }
            Some(Decision::Keep { before, after, .. }) => {
                assert!((before.per_s - 1_000.0).abs() < 1.0, "{before:?}");
                assert!((after.per_s - 2_000.0).abs() < 1.0, "{after:?}");
                return;
            }
            Some(decision) => panic!("{decision:?}"),
        }
    }
    panic!("never kept");
}

#[test]
fn a_trial_that_failed_with_few_submissions_says_nothing_of_many() {
    let mut world = World::new(Plant { commit_s: 0.02, ..plant(30_000.0) }, 1..=2);
    // each waits for one commit, however many shards there are
    world.run(5.0, many(60.0));
    assert_eq!((world.shards, world.given_up()), (1, 1), "{:?}", world.changes);
    assert_eq!(world.run(5.0, many(100.0)), 0, "the pause isn't over");
    world.run(5.0, many(2_048.0));
    assert_eq!((world.shards, world.given_up()), (2, 1), "{:?}", world.changes);
}

#[test]
fn more_that_wait_are_no_reason_where_no_more_is_stored() {
    let mut world = World::new(plant(10_000.0), 1..=2);
    world.run(10.0, many(1_000.0));
    assert_eq!((world.shards, world.given_up()), (1, 1), "{:?}", world.changes);
    assert_eq!(world.run(10.0, many(20_000.0)), 0);
}

#[test]
fn shards_that_wait_for_the_disk_are_not_added_to() {
    let grows = |synced: f64, clients: f64| {
        let mut world = World::new(Plant { commit_s: 0.02, ..plant(1e9) }, 1..=2);
        let changes = world.run(10.0, |plant, seconds, shards| {
            let figures = plant.closed_loop(seconds, clients, shards);
            Figures { syncing_s: synced * figures.committing_s, ..figures }
        });
        changes > 0
    };
    assert!(grows(0.0, 600.0) && grows(0.75, 600.0));
    assert!(!grows(0.85, 600.0) && !grows(1.5, 600.0), "three commits");
    assert!(grows(0.85, 900.0), "more than four: batches are full");
}

#[test]
fn a_trial_that_only_makes_waits_shorter_is_kept_if_it_makes_them_much_shorter() {
    let (shorter, hardly) = (trial(0.04, 0.03), trial(0.04, 0.035));
    assert!(matches!(shorter, Decision::Keep { shard: 1, .. }), "{shorter:?}");
    assert!(matches!(hardly, Decision::GiveUp { shard: 1, .. }), "{hardly:?}");
}
