//! A shard that has nothing to do.

use super::*;

#[actix::test]
async fn a_shard_at_rest_is_roused_and_rests_again() {
    let world = World::new(2, |_| {}).await;
    let shards = &world.shared().shards;
    for _ in 0..4 {
        // for nothing, and then by a submission
        for ledger in shards {
            world.until("it is at rest and roused", |_| ledger.rouse()).await;
        }
        world.gate.open.add_permits(1);
        let handle = world.queue.submit(gated::task(0)).await.unwrap();
        world.all_end(vec![handle]).await;
    }
}
