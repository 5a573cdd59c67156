//! A queue at work whose files fail, once or for a while: it answers truthfully, goes on by itself,
//! and every task that it took ends well after one attempt.

use message_queue_sqlite_faults::{File, Operation, Plan};

use tokio::task::JoinHandle;

use crate::sweep::sweep;
use crate::world::{World, all, turn};

/// Two attempts are under way when the fault is armed; tasks come in groups and one by one. True if
/// the fault was met.
async fn one_fault(plan: Plan) -> bool {
    let world = World::new();
    let queue = world.start().await;
    let mut numbers = 1..;
    let mut sent = world.hold(&queue, numbers.by_ref().take(2)).await;
    world.faults.arm(plan);
    sent.extend(all(world.begin(&queue, numbers.by_ref().take(6))).await);
    world.runs.open_gate();
    for number in numbers.by_ref().take(4) {
        sent.push(world.send(&queue, number).await);
    }
    sent.extend(all(world.begin(&queue, numbers.by_ref().take(6))).await);
    let met = world.faults.fired() > 0;
    world.faults.heal();
    sent.extend(world.until_taken(&queue, &mut numbers).await);
    world.judge(&queue, &sent).await;
    world.judge_restart(queue, &sent).await;
    met
}

/// As [`one_fault`], but it lasts until some operations have failed. What was submitted meanwhile
/// may have to wait until then.
async fn lasting_fault(plan: Plan) -> bool {
    let world = World::new();
    let queue = world.start().await;
    let mut numbers = 1..;
    let mut sent = world.hold(&queue, numbers.by_ref().take(2)).await;
    world.faults.arm(plan.for_ever());
    let mut begun = world.begin(&queue, numbers.by_ref().take(4));
    world.runs.open_gate();
    for _ in 0..6 {
        let some = world.begin(&queue, numbers.by_ref().take(2));
        turn(|| world.faults.fired() > 0 || some.iter().all(JoinHandle::is_finished)).await;
        begun.extend(some);
    }
    // what is tried again by itself fails some more times
    let answered = |begun: &[_]| begun.iter().all(JoinHandle::is_finished);
    turn(|| world.faults.fired() >= 4 || answered(&begun)).await;
    let met = world.faults.fired() > 0;
    world.faults.heal();
    sent.extend(all(begun).await);
    sent.extend(world.until_taken(&queue, &mut numbers).await);
    world.judge(&queue, &sent).await;
    world.judge_restart(queue, &sent).await;
    met
}

#[test]
fn any_sync_may_fail_once() {
    sweep(6..=100, |nth| one_fault(Plan::fail(Operation::Sync).at(nth)));
}

#[test]
fn any_write_may_fail_once() {
    sweep(20..=60, |nth| one_fault(Plan::fail(Operation::Write).at(nth)));
}

#[test]
fn the_disk_may_break_at_any_write() {
    sweep(20..=60, |nth| one_fault(Plan::broken_disk().at(nth)));
}

#[test]
fn the_disk_may_be_full_at_any_write() {
    sweep(20..=60, |nth| one_fault(Plan::disk_full().at(nth)));
}

#[test]
fn any_operation_may_fail_once() {
    sweep(20..=80, |nth| one_fault(Plan::fail_any().at(nth)));
}

#[test]
fn syncs_may_fail_for_a_while() {
    sweep(4..=40, |nth| lasting_fault(Plan::fail(Operation::Sync).on(File::Log).at(nth)));
}

#[test]
fn writes_may_fail_for_a_while() {
    sweep(10..=40, |nth| lasting_fault(Plan::fail(Operation::Write).on(File::Log).at(nth)));
}

#[test]
fn the_disk_may_be_full_for_a_while() {
    sweep(10..=40, |nth| lasting_fault(Plan::disk_full().at(nth)));
}

#[test]
fn everything_may_fail_for_a_while() {
    sweep(10..=40, |nth| lasting_fault(Plan::fail_any().at(nth)));
}
