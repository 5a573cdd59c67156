//! A shard that has nothing to do.

use super::*;

impl World {
    /// How often each shard was roused.
    fn roused(&self) -> Vec<usize> {
        let shards = self.shared().shards.iter();
        shards.map(|ledger| ledger.roused.load(Ordering::SeqCst)).collect()
    }

    /// Rouses each shard for nothing, and waits until all sleep again.
    async fn rest(&self) {
        for ledger in &self.shared().shards {
            self.until("it sleeps and is roused", |_| ledger.rouse()).await;
            self.until("it sleeps again", |_| ledger.rouse()).await;
        }
    }
}

#[actix::test]
async fn a_shard_that_is_roused_for_nothing_sleeps_again() {
    let world = World::new(2, |_| {}).await;
    for _ in 0..3 {
        world.rest().await;
    }
    let roused = world.roused();
    assert!(roused.iter().all(|times| *times >= 6), "{roused:?}");
}

#[actix::test]
async fn a_lone_submission_rouses_the_shard_that_it_goes_to_and_no_other() {
    let world = World::new(2, |_| {}).await;
    let mut roused = 0;
    for number in 0..20 {
        // where it goes isn't a guess
        let key = format!("key {number}");
        let own = world.shared().shard_of_key(&key).index();
        let sleep = |world: &World| world.shared().shards.iter().all(|ledger| ledger.is_asleep());
        world.until("all sleep", sleep).await;
        let before = world.roused();
        let handle = world.queue.submit(gated::task(0).key(key)).await.unwrap();
        let after = world.roused();
        assert_eq!(before[1 - own], after[1 - own], "it isn't about the other");
        roused += after[own] - before[own];
        world.gate.open.add_permits(1);
        world.all_end(vec![handle]).await;
    }
    // something else may have woken it between the look and the submission
    assert!((10..=20).contains(&roused), "{roused} of 20");
}
