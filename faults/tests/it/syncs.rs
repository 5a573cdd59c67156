//! What `Queue::commits` counts, beside what SQLite asks of its files.

use message_queue_sqlite_faults::{File, Operation};

use crate::world::{World, all, block_on, turn};

#[test]
fn each_commit_syncs_the_log_once_and_only_checkpoints_sync_more() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let seen = |file| world.faults.seen(Operation::Sync, file);
        let (log, database, commits) = (seen(File::Log), seen(File::Database), queue.commits());
        let mut sent = Vec::new();
        for number in 1..=40 {
            sent.extend(all(world.begin(&queue, number..=number)).await);
        }
        world.judge(&queue, &sent).await;
        // a checkpoint syncs the log before it and the log's new header after it
        turn(|| {
            let (log, database) = (seen(File::Log) - log, seen(File::Database) - database);
            let commits = queue.commits() - commits;
            commits >= 40 && commits <= log && log <= commits + 2 * database
        })
        .await;
        world.judge_restart(queue, &sent).await;
    });
}
