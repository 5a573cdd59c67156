//! Bulks whose ordering keys are in several shards.

use super::*;
use crate::keys::{SLOTS, slot_of};

/// Keys of three slots.
const KEYS: [&str; 3] = ["user-7", "a", "b"];

impl World {
    /// Has the three keys go to these shards from now on.
    fn place(&self, shards: [u16; 3]) {
        let mut placed = vec![0; SLOTS];
        for (key, shard) in KEYS.iter().zip(shards) {
            placed[usize::from(slot_of(key))] = shard;
        }
        self.shared().set_shard_of_slot(placed);
    }
}

/// Where they were when it was submitted doesn't count. It used to be refused, as a mistake or as busy.
#[actix::test]
async fn a_bulk_goes_where_its_keys_are_when_there_is_room_for_it() {
    for before in [[0, 0, 0], [0, 0, 1]] {
        let world = World::new(2, |settings| settings.limits.ready_tasks = Some(3)).await;
        world.place(before);
        let later = (0..2).map(|number| gated::task(number).delay(Duration::from_secs(3_600)));
        let later = world.queue.submit_all(later).await.unwrap();
        let queue = world.queue.clone();
        let bulk = (0..).zip(KEYS).map(|(number, key)| gated::task(number).key(key));
        let waiting = actix::spawn(async move { queue.submit_all(bulk).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        world.place([0, 1, 1]);
        for handle in later {
            handle.cancel().await.unwrap();
        }
        let answer = timeout(Duration::from_secs(30), waiting).await.expect("an answer").unwrap();
        let handles = answer.unwrap();
        let shards: Vec<_> = handles.iter().map(|handle| handle.id().shard().0).collect();
        assert_eq!(shards, [0, 1, 1]);
        assert_eq!(world.queue.refused(), 0);
        world.gate.open.add_permits(3);
        world.all_end(handles).await;
    }
}

/// How many tasks are stored.
async fn stored(world: &World) -> u64 {
    world.queue.counts().await.unwrap().values().sum()
}

#[actix::test]
async fn a_bulk_of_which_a_part_has_nowhere_to_go_is_refused_whole() {
    let world = World::new(2, |_| {}).await;
    world.place([0, 1, 1]);
    let elsewhere = TaskId::new(ShardId(0), 1);
    let bulk = [gated::task(0).key(KEYS[0]), gated::task(1).key(KEYS[1]).with_id(elsewhere)];
    let refused = world.queue.submit_all(bulk).await;
    let mistake = matches!(refused, Err(Error::InvalidOption { option: "with_id", .. }));
    assert!(mistake, "{refused:?}");
    // nor is a part of it on its way with what comes next
    world.submit(1).await;
    assert_eq!(stored(&world).await, 1);
}

#[actix::test]
async fn a_part_that_its_shard_refuses_keeps_the_others_from_nothing() {
    let world = World::new(2, |_| {}).await;
    world.place([0, 1, 1]);
    let never = TaskId::new(ShardId(0), 1_000_000);
    let bulk = (0..).zip(KEYS).map(|(number, key)| match number {
        0 => gated::task(number).key(key).with_id(never),
        _ => gated::task(number).key(key),
    });
    let refused = world.queue.submit_all(bulk).await;
    assert!(matches!(refused, Err(Error::NotFound { id }) if id == never), "{refused:?}");
    assert_eq!(stored(&world).await, 2, "those of the other shard");
}
