//! A disk that takes its time: who submits to it waits, and the other shards go on.

use message_queue_sqlite_faults::{File, Operation, Plan};

use crate::world::{LIMIT, World, all, block_on, in_time, turn};

#[test]
fn a_commit_that_hangs_holds_up_its_own_shard_only() {
    block_on(async {
        let world = World::of_shards(2);
        let queue = world.start().await;
        let mut sent = all(world.begin(&queue, 1..5)).await;
        world.judge(&queue, &sent).await;
        world.faults.arm(Plan::hang(Operation::Sync).on(File::Log));
        let mut begun = world.begin(&queue, 5..6);
        turn(|| world.faults.fired() == 1).await;
        // one after the other, so that time goes on while the commit is under way
        let mut numbers = 6..;
        let stored = async {
            while begun.iter().filter(|sent| sent.is_finished()).count() < 200 {
                let number = numbers.next().unwrap();
                begun.extend(world.begin(&queue, number..number + 1));
                for _ in 0..1_000 {
                    if begun.last().is_some_and(|sent| sent.is_finished()) {
                        break;
                    }
                    std::thread::yield_now();
                    tokio::task::yield_now().await;
                }
            }
        };
        in_time(stored).await;
        assert_eq!(world.faults.fired(), 1);
        assert!(!begun[0].is_finished());
        world.faults.heal();
        let begun = all(begun).await;
        let slow = begun[0].id().shard();
        let waited = begun.iter().filter(|sent| sent.id().shard() == slow).count();
        // not half of them, as it would be if nobody noticed
        assert!(waited < begun.len() / 4, "{waited} of {} waited for it", begun.len());
        sent.extend(begun);
        assert!(sent.iter().all(|sent| sent.answer.is_ok()));
        world.judge(&queue, &sent).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}
