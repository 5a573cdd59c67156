//! Checkpoints: who waits for them, and what one that fails does.

use message_queue_sqlite_faults::{File, Operation, Plan};
use tokio::task::spawn_local;

use crate::world::{Sent, World, block_on, in_time, turn};

/// Submits one task after the other until a fault is met; each is answered before the next, and
/// whatever its shard does after that has come to an end, if no fault keeps it from it.
async fn until_met(world: &World, queue: &message_queue_sqlite::Queue) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut numbers = 1..;
    while world.faults.fired() == 0 {
        sent.push(world.send(queue, numbers.next().unwrap()).await);
        let asked = queue.clone();
        let over = spawn_local(async move { drop(asked.counts().await) });
        turn(|| world.faults.fired() > 0 || over.is_finished()).await;
    }
    sent
}

#[test]
fn nobody_waits_for_the_checkpoint_after_his_own_batch() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        // nothing else commits then
        in_time(queue.pause_queue("default")).await.unwrap();
        world.faults.arm(Plan::hang(Operation::Sync).on(File::Database));
        let sent = until_met(&world, &queue).await;
        assert!(sent.iter().all(|sent| sent.answer.is_ok()));
        world.faults.heal();
        in_time(queue.resume_queue("default")).await.unwrap();
        world.judge(&queue, &sent).await;
        world.judge_restart(queue, &sent).await;
    });
}

#[test]
fn a_checkpoint_that_fails_has_the_file_opened_anew() {
    for plan in [Plan::broken_disk(), Plan::fail(Operation::Sync)] {
        block_on(async {
            let world = World::new();
            let queue = world.start().await;
            let opened = || world.faults.seen(Operation::Open, File::Database);
            let before = opened();
            world.faults.arm(plan.on(File::Database));
            let mut sent = until_met(&world, &queue).await;
            turn(|| opened() > before).await;
            let mut numbers = 1_000_000..;
            sent.extend(world.until_taken(&queue, &mut numbers).await);
            world.judge(&queue, &sent).await;
            world.judge_restart(queue, &sent).await;
        });
    }
}
