//! Queues that are paused or limited.

use super::*;

// All tasks of other queues went to the other shards, however slow those were.
#[actix::test]
async fn what_may_not_run_counts_for_nothing_when_a_shard_is_chosen() {
    let narrow = |settings: &mut Settings| {
        (settings.workers.count, settings.workers.concurrency) = (Some(1), 1);
        settings.workers.prefetch = 0;
    };
    let world = World::new(1, narrow).await;
    let gauges = &world.shared().shards[0].gauges;
    let ready = || gauges.ready.load(Ordering::SeqCst);
    world.queue.pause_queue("mail").await.unwrap();
    let submissions = (0..10).map(|number| gated::task(number).queue("mail"));
    let handles = world.queue.submit_all(submissions).await.unwrap();
    // answered behind the batch that has stored them
    assert_eq!(world.queue.counts().await.unwrap()[&TaskStatus::NotStarted], 10);
    assert_eq!(ready(), 0);

    world.queue.limit_queue("mail", Some(2)).await.unwrap();
    world.queue.resume_queue("mail").await.unwrap();
    world.until("two may run beside the one that runs", |_| ready() == 2).await;
    world.queue.limit_queue("mail", None).await.unwrap();
    world.until("all may run", |_| ready() == 9).await;
    world.gate.open.add_permits(10);
    world.all_end(handles).await;
}
