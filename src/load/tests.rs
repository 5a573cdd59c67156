use proptest::prelude::*;

use super::*;

/// Idle, with an ordinary disk.
const IDLE: ShardLoad = ShardLoad {
    failing: false,
    incoming: 0,
    ready: 0,
    running: 0,
    commit_s: 0.001,
    commit_rows: 100.0,
    age_s: 0.0,
    service_s: 0.001,
};

fn chosen(loads: &[ShardLoad], last: usize) -> Option<usize> {
    choose(loads.len(), loads.len(), 8, last, |index| Some(loads[index]))
}

fn load() -> impl Strategy<Value = ShardLoad> {
    let counts = (0..5_000usize, 0..100_000usize, 0..5_000usize);
    let times = (0.0..2.0f64, 0.0..5_000.0f64, 0.0..10.0f64, 0.0..60.0f64);
    (any::<bool>(), counts, times).prop_map(
        |(failing, (incoming, ready, running), (commit_s, commit_rows, age_s, service_s))| {
            ShardLoad { failing, incoming, ready, running, commit_s, commit_rows, age_s, service_s }
        },
    )
}

#[test]
fn equal_shards_take_turns() {
    let shards = [IDLE; 3];
    let mut last = 0;
    let turns: Vec<_> = (0..6)
        .map(|_| {
            last = chosen(&shards, last).unwrap();
            last
        })
        .collect();
    assert_eq!(turns, [1, 2, 0, 1, 2, 0]);
}

#[test]
fn nothing_is_chosen_where_nothing_is_open() {
    assert_eq!(chosen(&[], 0), None);
    assert_eq!(choose(3, 3, 8, 0, |_| None), None);
    assert_eq!(choose(3, 1, 8, 0, |index| (index == 2).then_some(IDLE)), Some(2));
}

#[test]
fn the_longer_a_shard_takes_for_the_same_the_less_it_is_chosen() {
    let slow_disk = ShardLoad { commit_s: 0.1, ..IDLE };
    assert_eq!(chosen(&[slow_disk, IDLE], 1), Some(1));
    let long_tasks = ShardLoad { ready: 100, service_s: 10.0, ..IDLE };
    let many_tasks = ShardLoad { ready: 1_000, ..IDLE };
    assert_eq!(chosen(&[long_tasks, many_tasks], 1), Some(1));
}

#[test]
fn a_wait_is_that_for_the_commit_and_that_for_the_turn() {
    let (commit_s, service_s) = (0.1, 0.5);
    let busy = ShardLoad { incoming: 30, ready: 20, running: 6, commit_s, service_s, ..IDLE };
    let busy = ShardLoad { commit_rows: 50.0, ..busy };
    let waits = |load: ShardLoad, slots, expected: f64| {
        let wait = load.expected_wait_s(slots);
        assert!((wait - expected).abs() < 1e-9, "{wait} s, not {expected}");
    };
    // its commit, 30 rows of 2 ms each, and what 52 tasks take in 4 slots
    waits(busy, 4.0, 0.1 + 0.06 + 6.5);
    waits(busy, 0.5, 0.1 + 0.06 + 0.5 * 55.5);
    waits(ShardLoad { age_s: 2.0, ..busy }, 4.0, 0.025 + 0.015 + 6.5);
    waits(ShardLoad { commit_rows: 0.5, ..busy }, 4.0, 0.1 + 3.0 + 6.5);
    waits(ShardLoad { running: 4, ..IDLE }, 4.0, 0.001);
}

#[test]
fn waits_that_differ_by_little_are_equal() {
    let waits = |commit_s| ShardLoad { commit_s, ..IDLE };
    let first_or_second = |first, second| chosen(&[waits(first), waits(second)], 1);
    assert_eq!(first_or_second(1.0, 0.91), Some(0));
    assert_eq!(first_or_second(1.0, 0.89), Some(1));
    assert_eq!(first_or_second(0.001, 0.000_85), Some(0), "by 150 us");
    assert_eq!(first_or_second(0.001, 0.000_75), Some(1));
}

#[test]
fn the_shards_that_are_active_share_the_slots() {
    let tasks = ShardLoad { ready: 6, service_s: 1.0, ..IDLE };
    let choose_of = |other: f64, active| {
        let loads = [tasks, ShardLoad { commit_s: other, ..IDLE }];
        choose(2, active, 8, 1, |index| Some(loads[index]))
    };
    // half a second behind 2 tasks in 4 slots, or none in 8
    assert_eq!(choose_of(0.3, 2), Some(1));
    assert_eq!(choose_of(0.8, 2), Some(0));
    assert_eq!(choose_of(0.3, 1), Some(0));
    assert_eq!(choose_of(0.3, 0), Some(0), "as if there were one");
}

#[test]
fn a_shard_that_was_slow_once_is_tried_again() {
    let slow = ShardLoad { commit_s: 0.1, ..IDLE };
    assert_eq!(chosen(&[slow, IDLE], 1), Some(1));
    assert_eq!(chosen(&[ShardLoad { age_s: 10.0, ..slow }, IDLE], 1), Some(0));
}

#[test]
fn a_shard_that_fails_fast_is_not_taken_for_an_idle_one() {
    let failing = ShardLoad { failing: true, commit_s: 0.0, ..IDLE };
    let busy = ShardLoad { incoming: 4_000, ready: 100_000, service_s: 1.0, ..IDLE };
    assert_eq!(chosen(&[failing, busy], 1), Some(1));
    assert_eq!(chosen(&[failing, failing], 1), Some(0), "one of them has to take it");
}

#[test]
fn a_measurement_follows_its_changes_and_not_its_outliers() {
    let mut smoothed = Smoothed::default();
    assert_eq!(smoothed.get(), None);
    smoothed.add(1.0);
    assert_eq!(smoothed.get(), Some(1.0));
    smoothed.add(9.0);
    assert_eq!(smoothed.get(), Some(2.0));
    for _ in 0..50 {
        smoothed.add(9.0);
    }
    assert!(smoothed.get().is_some_and(|value| value > 8.9));
}

/// Sends `tasks` submissions at a rate at which all shards together just keep up, and counts them.
fn shares(speeds: &[usize], tasks: usize) -> Vec<usize> {
    let rows = |speed: usize| ShardLoad {
        commit_s: 0.1,
        commit_rows: speed as f64,
        service_s: 0.0,
        ..IDLE
    };
    let mut loads: Vec<ShardLoad> = speeds.iter().map(|speed| rows(*speed)).collect();
    let mut shares = vec![0; speeds.len()];
    let (rate, mut last): (usize, _) = (speeds.iter().sum(), 0);
    for _ in 0..tasks / rate {
        for _ in 0..rate {
            last = chosen(&loads, last).unwrap();
            loads[last].incoming += 1;
            shares[last] += 1;
        }
        for (load, speed) in loads.iter_mut().zip(speeds) {
            load.incoming = load.incoming.saturating_sub(*speed);
        }
    }
    shares
}

#[test]
fn each_shard_gets_what_its_disk_can_take() {
    let shares = shares(&[100, 400], 50_000);
    let part = shares[0] as f64 / 50_000.0;
    assert!((0.18..0.22).contains(&part), "{shares:?}");
}

proptest! {
    // a failure prints its seed; nothing is written beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_open_shard_is_chosen_and_a_failing_one_only_if_all_are(
        loads in prop::collection::vec(prop::option::of(load()), 0..9),
        last in 0..9usize,
    ) {
        let mut open = loads.iter().flatten();
        match choose(loads.len(), loads.len(), 8, last, |index| loads[index]) {
            None => prop_assert!(open.next().is_none()),
            Some(index) => {
                let chosen = loads[index].expect("it is open");
                prop_assert_eq!(chosen.failing, open.all(|load| load.failing));
            }
        }
    }

    #[test]
    fn more_before_it_never_makes_a_wait_shorter(load in load(), slots in 1.0..64.0f64) {
        let wait = load.expected_wait_s(slots);
        let more = [
            ShardLoad { incoming: load.incoming + 10, ..load },
            ShardLoad { ready: load.ready + 10, ..load },
            ShardLoad { running: load.running + 10, ..load },
            ShardLoad { commit_s: load.commit_s * 2.0, ..load },
            ShardLoad { service_s: load.service_s * 2.0, ..load },
        ];
        for more in more {
            prop_assert!(more.expected_wait_s(slots) >= wait);
        }
        prop_assert!(load.expected_wait_s(slots * 2.0) <= wait);
    }

    #[test]
    fn nobody_waits_much_less_than_in_the_chosen_shard(
        loads in prop::collection::vec(load(), 1..9),
    ) {
        if let Some(index) = chosen(&loads, 0)
            && !loads[index].failing
        {
            let share = 8.0 / loads.len() as f64;
            let wait = loads[index].expected_wait_s(share);
            let others = loads.iter().filter(|load| !load.failing);
            for other in others.map(|load| load.expected_wait_s(share)) {
                // each of those before it may have been equal to the one before
                let parts = (1.0 - EQUAL_PART).powi(loads.len() as i32);
                prop_assert!(other >= wait * parts - EQUAL_S * loads.len() as f64);
            }
        }
    }
}
