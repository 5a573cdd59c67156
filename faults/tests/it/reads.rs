//! A queue whose rows don't fit into memory, so that its batches read: what can't be read now is
//! done later.

use message_queue_sqlite_faults::{Operation, Plan};

use crate::sweep::sweep;
use crate::world::{World, all, turn};

/// How many operations of a kind are tried. There are more of them, but they are like these.
const CASES: u64 = 16;

/// Thirty tasks wait in the file while the first fault comes. True if it was met.
async fn backlog(plan: Plan, lasting: bool) -> bool {
    let world = World::cold();
    let queue = world.start().await;
    let mut numbers = 1..;
    let mut sent = world.hold(&queue, numbers.by_ref().take(1)).await;
    sent.extend(all(world.begin(&queue, numbers.by_ref().take(30))).await);
    world.faults.arm(plan);
    world.runs.open_gate();
    let begun = world.begin(&queue, numbers.by_ref().take(4));
    if lasting {
        turn(|| world.faults.fired() >= 3).await;
        world.faults.heal();
    }
    sent.extend(all(begun).await);
    world.judge(&queue, &sent).await;
    let met = world.faults.fired() > 0;
    world.faults.heal();
    world.judge_restart(queue, &sent).await;
    met
}

#[test]
fn any_read_may_fail_once() {
    sweep(CASES..=CASES, |nth| backlog(Plan::fail(Operation::Read).at(nth), false));
}

#[test]
fn reads_may_fail_for_a_while() {
    sweep(8..=8, |nth| backlog(Plan::fail(Operation::Read).at(nth * 5).for_ever(), true));
}

#[test]
fn any_operation_of_a_large_backlog_may_fail_once() {
    sweep(CASES..=CASES, |nth| backlog(Plan::fail_any().at(nth * 25), false));
}
