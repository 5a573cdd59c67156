//! Faults at the start and at the end of a queue: both say what went wrong, and the next start has
//! everything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use message_queue_sqlite::StartError;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite_faults::{Operation, Plan};
use tempfile::TempDir;

use crate::sweep::sweep;
use crate::world::{
    Counts, LIMIT, Sent, World, all, block_on, in_time, output, turn, until_counts,
};

/// What a queue left in its directory, to be copied for each case.
struct Left {
    place: TempDir,
    /// Tasks that are in it, by what they return.
    tasks: Vec<(TaskId, u64)>,
    /// How many tasks of each status there are once all have ended.
    counts: Counts,
}

impl Left {
    /// A directory that isn't there.
    fn nothing() -> Self {
        let counts = [(TaskStatus::Finished, 0), (TaskStatus::Callbacked, 0)].into();
        Left { place: TempDir::new().unwrap(), tasks: Vec::new(), counts }
    }

    /// By a queue that was shut down.
    async fn closed() -> Self {
        let world = World::new();
        let queue = world.start().await;
        let sent = all(world.begin(&queue, 1..7)).await;
        world.judge(&queue, &sent).await;
        let counts = world.judge_these(&queue, &sent).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
        Left::by(&world, &sent, counts)
    }

    /// By a process that died while two tasks ran.
    async fn crashed() -> Self {
        let world = World::new();
        let queue = world.start().await;
        let mut sent = world.hold(&queue, 1..3).await;
        let finished = all(world.begin(&queue, 3..7)).await;
        let mut counts = world.judge_these(&queue, &finished).await;
        counts.insert(TaskStatus::Running, 2);
        until_counts(&queue, counts.clone()).await;
        sent.extend(finished);
        counts.remove(&TaskStatus::Running);
        *counts.entry(TaskStatus::Finished).or_default() += 2;
        let left = Left::by(&world, &sent, counts);
        world.runs.open_gate();
        in_time(queue.shutdown(LIMIT)).await.unwrap();
        left
    }

    /// Copies what is on the disk now.
    fn by(world: &World, sent: &[Sent], counts: Counts) -> Self {
        let tasks = sent.iter().map(|sent| (sent.id(), sent.number)).collect();
        let left = Left { place: TempDir::new().unwrap(), tasks, counts };
        for entry in fs::read_dir(world.dir()).unwrap() {
            let entry = entry.unwrap();
            // the index of the log is memory, and gone with the process
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                fs::copy(entry.path(), left.place.path().join(entry.file_name())).unwrap();
            }
        }
        left
    }

    fn copy_to(&self, world: &World) {
        if self.tasks.is_empty() {
            return;
        }
        fs::create_dir(world.dir()).unwrap();
        fs::set_permissions(world.dir(), Permissions::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(self.place.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), world.dir().join(entry.file_name())).unwrap();
        }
    }

    /// Starts with a fault, and once more without if that didn't do. True if the fault was met.
    async fn start(&self, plan: Plan) -> bool {
        self.start_shards(1, plan).await
    }

    async fn start_shards(&self, shards: usize, plan: Plan) -> bool {
        let world = World::of_shards(shards);
        self.copy_to(&world);
        world.runs.open_gate();
        world.faults.arm(plan);
        let started = world.try_start().await;
        let met = world.faults.fired() > 0;
        world.faults.heal();
        let queue = match started {
            Ok(queue) => queue,
            Err(Error::Start { reasons }) => {
                let opens = |reason| matches!(reason, &StartError::Open { .. });
                assert!(met && reasons.iter().all(opens), "{reasons:?}");
                world.start().await
            }
            Err(error) => panic!("a start fails with {error:?}"),
        };
        for (id, number) in &self.tasks {
            assert_eq!(output(&queue, *id).await, *number);
        }
        let sent = world.until_taken(&queue, &mut (100..)).await;
        let mut counts = world.judge_these(&queue, &sent).await;
        for (status, tasks) in &self.counts {
            *counts.entry(*status).or_default() += tasks;
        }
        until_counts(&queue, counts).await;
        world.judge_restart(queue, &sent).await;
        met
    }
}

#[test]
fn a_first_start_may_fail() {
    let left = Left::nothing();
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth)));
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth).for_ever()));
}

#[test]
fn a_start_that_adds_a_file_may_fail() {
    let left = block_on(Left::closed());
    sweep(10..=120, |nth| left.start_shards(2, Plan::fail_any().at(nth)));
    sweep(10..=120, |nth| left.start_shards(2, Plan::fail_any().at(nth).for_ever()));
}

#[test]
fn a_first_start_may_find_the_disk_full() {
    let left = Left::nothing();
    sweep(10..=120, |nth| left.start(Plan::disk_full().at(nth)));
    sweep(10..=120, |nth| left.start(Plan::disk_full().at(nth).for_ever()));
}

#[test]
fn a_start_after_an_orderly_end_may_fail() {
    let left = block_on(Left::closed());
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth)));
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth).for_ever()));
}

#[test]
fn a_start_after_a_crash_may_fail() {
    let left = block_on(Left::crashed());
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth)));
    sweep(10..=120, |nth| left.start(Plan::fail_any().at(nth).for_ever()));
    sweep(5..=40, |nth| left.start(Plan::disk_full().at(nth)));
}

/// Ends a queue with a fault. An attempt is still under way then if `held`. True if the fault was
/// met.
async fn end(plan: Plan, held: bool) -> bool {
    let world = World::new();
    let queue = world.start().await;
    let mut sent = world.hold(&queue, 1..2).await;
    if !held {
        world.runs.open_gate();
        world.judge_these(&queue, &sent).await;
    }
    let finished = all(world.begin(&queue, 2..8)).await;
    world.judge_these(&queue, &finished).await;
    sent.extend(finished);
    world.faults.arm(plan);
    world.runs.open_gate();
    // on a disk that stays broken it waits for as long for what can't be stored any more
    let report = in_time(queue.shutdown(LIMIT / 3)).await.unwrap();
    drop(queue);
    assert!(report.left_behind.is_empty(), "{report:?}");
    let met = world.faults.fired() > 0;
    world.faults.heal();
    let queue = world.start().await;
    if report.unclosed.is_empty() {
        assert_eq!(queue.recovery(), message_queue_sqlite::Recovery::default());
    }
    world.judge(&queue, &sent).await;
    world.judge_restart(queue, &sent).await;
    met
}

#[test]
fn a_shutdown_may_meet_any_fault() {
    sweep(5..=40, |nth| end(Plan::fail_any().at(nth), true));
    sweep(5..=40, |nth| end(Plan::disk_full().at(nth), true));
}

#[test]
fn a_shutdown_may_meet_faults_that_last() {
    sweep(5..=40, |nth| end(Plan::fail_any().at(nth).for_ever(), false));
    sweep(5..=40, |nth| end(Plan::disk_full().at(nth).for_ever(), false));
}

/// Ends a queue whose only shard is being rebuilt, again and again in vain.
async fn end_without_a_shard(end: impl AsyncFnOnce(Queue)) {
    let world = World::new();
    let queue = world.start().await;
    let mut sent = all(world.begin(&queue, 1..4)).await;
    world.judge(&queue, &sent).await;
    world.faults.arm(Plan::fail_any().for_ever());
    sent.push(world.send(&queue, 4).await);
    turn(|| world.faults.fired() >= 5).await;
    end(queue).await;
    world.faults.heal();
    let queue = world.start_when_free().await;
    world.judge(&queue, &sent).await;
    world.judge_restart(queue, &sent).await;
}

#[test]
fn a_queue_without_its_file_can_be_shut_down() {
    block_on(end_without_a_shard(async |queue| {
        let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
        assert_eq!(report.unclosed.len(), 1, "{report:?}");
    }));
}

#[test]
fn a_queue_without_its_file_can_be_dropped() {
    block_on(end_without_a_shard(async |queue| drop(queue)));
}

#[test]
fn what_cannot_be_stored_does_not_hold_up_a_shutdown() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let held = world.hold(&queue, 1..2).await;
        world.faults.arm(Plan::fail(Operation::Write).for_ever());
        world.runs.open_gate();
        let report = in_time(queue.shutdown(Duration::from_millis(1))).await.unwrap();
        assert_eq!(report.unclosed.len(), 1, "{report:?}");
        drop(queue);
        world.faults.heal();
        // it ran, and nobody could note that
        let queue = world.start().await;
        assert_eq!(queue.recovery().restarted, 1);
        assert_eq!(output(&queue, held[0].id()).await, 1);
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn a_log_that_cannot_be_cut_is_in_the_report() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let sent = all(world.begin(&queue, 1..4)).await;
        world.judge(&queue, &sent).await;
        world.faults.arm(Plan::fail(Operation::Truncate).for_ever());
        let report = in_time(queue.shutdown(LIMIT)).await.unwrap();
        assert!(world.faults.fired() > 0);
        assert_eq!(report.unclosed.len(), 1, "{report:?}");
        world.faults.heal();
        let queue = world.start().await;
        world.judge(&queue, &sent).await;
        world.judge_restart(queue, &sent).await;
    });
}
