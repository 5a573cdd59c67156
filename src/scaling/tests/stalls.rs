//! A disk that stalls says nothing of the load.

use super::*;

/// Ticks of a stall, in which nothing is stored, and the one that ends it: all that has waited is stored
/// by one long commit of each shard.
fn stall(world: &mut World, seconds: f64, waiting: f64) {
    let shards = world.shards;
    let nothing = Figures {
        seconds: TICK.as_secs_f64(),
        pending: waiting as usize,
        active: shards,
        last: shards - 1,
        ..Figures::default()
    };
    for _ in 0..(seconds / TICK.as_secs_f64()) as usize {
        let advice = world.controller.advise(&nothing);
        world.follow(advice.decision);
    }
    let over = Figures {
        stored: waiting,
        waited_s: waiting * seconds,
        committing_s: seconds * shards as f64,
        syncing_s: seconds * shards as f64,
        commits: shards as f64,
        ..nothing
    };
    let advice = world.controller.advise(&over);
    world.follow(advice.decision);
}

// It was the only interval that fitted into one shard less, and as long as a retirement takes.
#[test]
fn no_shard_is_retired_because_the_disk_stalled() {
    // the last is longer than a retirement takes
    for (seconds, retire_after_s) in [(2.0, 30), (31.0, 30), (200.0, 30), (1.5, 1)] {
        let mut world = World::new(plant(20_000.0), 1..=4);
        world.controller = Controller::new(1..=4, TARGET, Duration::from_secs(retire_after_s));
        world.run(5.0 * MINUTE, many(4_000.0));
        let shards = world.shards;
        assert!(shards > 1);
        let before = world.changes.len();
        for _ in 0..20 {
            stall(&mut world, seconds, 4_000.0);
            world.run(1.0, many(4_000.0));
        }
        let changes = &world.changes[before..];
        assert_eq!((world.retirements(), world.shards), (0, shards), "{seconds} s: {changes:?}");
    }
}

// An outage of twenty minutes forbade growth for as long again.
#[test]
fn shards_that_are_out_of_service_are_asked_for_every_few_seconds() {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let (mut plant, mut asked_at) = (plant(1e9), Vec::new());
    for tick in 0..6_000 {
        let figures = plant.closed_loop(0.1, 2_048.0, 1);
        if controller.advise(&figures).decision.is_some() {
            controller.none_there();
            asked_at.push(f64::from(tick) * 0.1);
        }
    }
    assert!(
        asked_at.windows(2).all(|pair| (4.9..7.0).contains(&(pair[1] - pair[0]))),
        "{asked_at:?}"
    );
    assert!(asked_at.len() > 80, "{asked_at:?}");
}

#[test]
fn a_shard_is_still_given_back_where_a_slow_disk_stores_little() {
    let mut world = World::new(plant(20_000.0), 1..=4);
    world.run(5.0 * MINUTE, many(4_000.0));
    let before = world.retirements();
    // a commit takes a second, and few come
    for _ in 0..400 {
        stall(&mut world, 1.0, 3.0);
    }
    assert!(world.retirements() > before, "{:?}", world.changes);
}
