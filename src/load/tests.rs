use proptest::prelude::*;

use super::*;

/// Idle, with an ordinary disk.
const IDLE: ShardLoad = ShardLoad {
    failing: false,
    incoming: 0,
    incoming_kib: 0,
    ready: 0,
    running: 0,
    commit_s: 0.001,
    sync_s: 0.0,
    commit_rows: 100.0,
    age_s: 0.0,
    service_s: 0.001,
};

/// So many shards, all of them active.
fn common(shards: usize) -> Common {
    Common { shards, active: shards, slots: 8, batch: 1_000 }
}

fn chosen(loads: &[ShardLoad], last: usize) -> Option<usize> {
    choose(common(loads.len()), last, |index| Some(loads[index]))
}

fn load() -> impl Strategy<Value = ShardLoad> {
    let counts = (0..5_000usize, 0..100_000usize, 0..100_000usize, 0..5_000usize);
    let times = (0.0..2.0f64, 0.0..1.5f64, 0.0..5_000.0f64, 0.0..10.0f64, 0.0..60.0f64);
    (any::<bool>(), counts, times).prop_map(|(failing, counts, times)| {
        let (incoming, incoming_kib, ready, running) = counts;
        let (commit_s, sync_part, commit_rows, age_s, service_s) = times;
        let sync_s = commit_s * sync_part;
        ShardLoad {
            failing,
            incoming,
            incoming_kib,
            ready,
            running,
            commit_s,
            sync_s,
            commit_rows,
            age_s,
            service_s,
        }
    })
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
    assert_eq!(choose(common(3), 0, |_| None), None);
    let one = Common { active: 1, ..common(3) };
    assert_eq!(choose(one, 0, |index| (index == 2).then_some(IDLE)), Some(2));
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
        let wait = load.expected_wait_s(slots, 100);
        assert!((wait - expected).abs() < 1e-9, "{wait} s, not {expected}");
    };
    // its commit, 30 rows of 2 ms each, and what 52 tasks take in 4 slots
    waits(busy, 4.0, 0.1 + 0.06 + 6.5);
    waits(busy, 0.5, 0.1 + 0.06 + 0.5 * 55.5);
    waits(ShardLoad { age_s: 2.0, ..busy }, 4.0, 0.025 + 0.015 + 6.5);
    waits(ShardLoad { commit_rows: 0.5, ..busy }, 4.0, 0.1 + 3.0 + 6.5);
    waits(ShardLoad { running: 4, ..IDLE }, 4.0, 0.001);
    // 30 rows of 0.4 ms each, and of a hundredth of a sync
    waits(ShardLoad { sync_s: 0.08, ..busy }, 4.0, 0.1 + 30.0 * (0.02 / 50.0 + 0.000_8) + 6.5);
    waits(ShardLoad { sync_s: 0.2, ..busy }, 4.0, 0.1 + 30.0 * 0.002 + 6.5);
    // 80 KiB are 20 rows more
    waits(ShardLoad { incoming_kib: 80, ..busy }, 4.0, 0.1 + 50.0 * 0.002 + 6.5);
}

#[test]
fn large_arguments_on_their_way_count() {
    let few = ShardLoad { incoming: 10, incoming_kib: 10_000, service_s: 0.0, ..IDLE };
    let many = ShardLoad { incoming: 1_000, incoming_kib: 0, ..few };
    assert_eq!(chosen(&[few, many], 0), Some(1));
    assert_eq!(chosen(&[ShardLoad { incoming_kib: 0, ..few }, many], 0), Some(0));
}

#[test]
fn a_batch_of_large_rows_is_one_of_many_rows() {
    let mut commits = Commits::default();
    commits.add(Duration::from_millis(10), Duration::ZERO, 10, 360);
    assert_eq!(commits.rows.get(), Some(100.0));
}

#[test]
fn hardly_a_batch_takes_longer_than_its_mean_and_four_deviations() {
    let (mut steady, mut varying) = (Commits::default(), Commits::default());
    assert_eq!(steady.most(), Duration::ZERO);
    for round in 0..1_000 {
        steady.add(Duration::from_millis(3), Duration::ZERO, 1, 0);
        let long = if round % 10 == 0 { 12 } else { 2 };
        varying.add(Duration::from_millis(long), Duration::ZERO, 1, 0);
    }
    assert_eq!(steady.most(), Duration::from_millis(3));
    let most = varying.most();
    assert!((Duration::from_millis(5)..Duration::from_millis(20)).contains(&most), "{most:?}");
    varying.add(Duration::from_secs(100), Duration::ZERO, 1, 0);
    assert_eq!(varying.most(), Duration::from_secs(1));
}

#[test]
fn a_service_time_follows_its_measurements_slowly() {
    let (service, ms) = (ServiceTime::default(), Duration::from_millis);
    assert_eq!(service.ns(), None);
    service.add(ms(8));
    assert_eq!(service.ns(), NonZeroU64::new(8_000_000));
    service.add(ms(16));
    assert_eq!(service.ns(), NonZeroU64::new(9_000_000));
    service.add(Duration::ZERO);
    assert!(service.ns().is_some_and(|ns| ns.get() < 9_000_000));
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

/// As on a disk on which a sync is most of a commit of a hundred rows.
const SYNCED: ShardLoad = ShardLoad { commit_s: 0.003, sync_s: 0.002, service_s: 0.0, ..IDLE };

#[test]
fn a_sync_more_is_dearer_than_a_longer_batch() {
    let with = |incoming, running| ShardLoad { incoming, running, ..SYNCED };
    // 10 us a row, so 2 ms are 200 rows, and some more because a full batch syncs again
    assert_eq!(chosen(&[with(1, 0), SYNCED], 0), Some(0));
    assert_eq!(chosen(&[with(150, 0), SYNCED], 0), Some(0));
    assert_eq!(chosen(&[with(250, 0), SYNCED], 0), Some(1));
    // the end of what runs there needs a commit anyway
    assert_eq!(chosen(&[SYNCED, with(0, 1), SYNCED], 1), Some(1));
    assert_eq!(chosen(&[with(100, 0), with(0, 1)], 0), Some(1));
    let long = ShardLoad { service_s: 1.0, ..with(0, 1) };
    assert_eq!(chosen(&[with(100, 0), long], 0), Some(0), "its end is far off");
}

#[test]
fn what_comes_together_stays_together() {
    // where both commit anyway, equal ones take turns only if nothing is on its way
    let some = ShardLoad { incoming: 5, running: 5, ..SYNCED };
    let more = ShardLoad { incoming: 15, ..some };
    assert_eq!(chosen(&[some, more], 0), Some(0));
    assert_eq!(chosen(&[some, more], 1), Some(1));
    let none = ShardLoad { incoming: 0, ..some };
    assert_eq!(chosen(&[none, none], 0), Some(1));
    assert_eq!(chosen(&[none, none], 1), Some(0));
}

/// Clients that send the next submission when theirs is stored; returns how many shards store some.
fn used(clients: usize, rounds: usize) -> usize {
    let (mut loads, mut last) = ([SYNCED; 4], 0);
    for round in 0..rounds {
        for _ in 0..clients {
            last = chosen(&loads, last).unwrap();
            loads[last].incoming += 1;
        }
        if round + 1 < rounds {
            for load in &mut loads {
                (load.running, load.incoming) = (load.incoming, 0);
            }
        }
    }
    loads.iter().filter(|load| load.incoming > 0).count()
}

#[test]
fn few_submissions_use_one_shard_and_many_use_all() {
    assert_eq!(used(1, 10), 1);
    assert_eq!(used(16, 10), 1);
    assert_eq!(used(2_048, 10), 4);
}

#[test]
fn the_shards_that_are_active_share_the_slots() {
    let tasks = ShardLoad { ready: 6, service_s: 1.0, ..IDLE };
    let choose_of = |other: f64, active| {
        let loads = [tasks, ShardLoad { commit_s: other, ..IDLE }];
        choose(Common { active, ..common(2) }, 1, |index| Some(loads[index]))
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
        match choose(common(loads.len()), last, |index| loads[index]) {
            None => prop_assert!(open.next().is_none()),
            Some(index) => {
                let chosen = loads[index].expect("it is open");
                prop_assert_eq!(chosen.failing, open.all(|load| load.failing));
            }
        }
    }

    #[test]
    fn more_before_it_never_makes_a_wait_shorter(load in load(), slots in 1.0..64.0f64) {
        let wait = load.expected_wait_s(slots, 1_000);
        let more = [
            ShardLoad { incoming: load.incoming + 10, ..load },
            ShardLoad { incoming_kib: load.incoming_kib + 10, ..load },
            ShardLoad { ready: load.ready + 10, ..load },
            ShardLoad { running: load.running + 10, ..load },
            ShardLoad { commit_s: load.commit_s * 2.0, ..load },
            ShardLoad { service_s: load.service_s * 2.0, ..load },
        ];
        for more in more {
            prop_assert!(more.expected_wait_s(slots, 1_000) >= wait);
        }
        prop_assert!(load.expected_wait_s(slots * 2.0, 1_000) <= wait);
    }

    #[test]
    fn nobody_waits_much_less_than_in_the_chosen_shard(
        loads in prop::collection::vec(load(), 1..9),
    ) {
        if let Some(index) = chosen(&loads, 0)
            && !loads[index].failing
        {
            let share = 8.0 / loads.len() as f64;
            let cost = loads[index].cost_s(share, 1_000);
            let others = loads.iter().filter(|load| !load.failing);
            for other in others.map(|load| load.cost_s(share, 1_000)) {
                // each of those before it may have been equal to the one before
                let parts = (1.0 - EQUAL_PART).powi(loads.len() as i32);
                prop_assert!(other >= cost * parts - EQUAL_S * loads.len() as f64);
            }
        }
    }
}
