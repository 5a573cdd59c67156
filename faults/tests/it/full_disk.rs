//! A disk without space: callers are told so, and the ballast lets ends be stored.

use std::time::Instant;

use message_queue_sqlite::StoreErrorKind;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite_faults::{File, Plan};

use crate::world::{LIMIT, World, all, block_on, in_time, turn};

#[test]
fn a_full_disk_is_named_to_those_who_submit() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let mut sent = all(world.begin(&queue, 1..2)).await;
        world.judge(&queue, &sent).await;
        world.faults.arm(Plan::disk_full().on(File::Log).for_ever());
        sent.extend(all(world.begin(&queue, 2..6)).await);
        assert!(world.faults.fired() > 0);
        for sent in &sent[1..] {
            assert!(matches!(sent.answer, Err(Error::DiskFull { .. })), "{sent:?}");
        }
        world.faults.heal();
        world.judge(&queue, &sent).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn a_full_disk_gets_the_ballast() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let ballast = world.dir().join("ballast");
        assert!(ballast.exists());
        let held = world.hold(&queue, 1..3).await;
        world.faults.arm(Plan::disk_full().on(File::Log).for_ever());
        world.runs.open_gate();
        turn(|| !ballast.exists()).await;
        world.faults.heal();
        world.judge(&queue, &held).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn a_shard_whose_batch_was_refused_pauses_whoever_wakes_it() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let held = world.hold(&queue, 1..2).await;
        world.faults.arm(Plan::disk_full().on(File::Log).for_ever());
        let began = Instant::now();
        world.runs.open_gate();
        turn(|| world.faults.fired() > 0).await;
        // each of them wakes the shard
        let mut sent = Vec::new();
        for number in 2..8 {
            sent.extend(all(world.begin(&queue, number..number + 1)).await);
            for _ in 0..100 {
                in_time(queue.status(held[0].id())).await.unwrap();
            }
        }
        // a pause is 250 ms; a batch is tried twice before it at the most: ends alone, then all
        let pauses = began.elapsed().as_millis() as u64 / 250 + 2;
        let tried = world.faults.fired();
        assert!(tried <= 4 * pauses, "tried {tried} times in {pauses} pauses");
        world.faults.heal();
        world.judge(&queue, &held.into_iter().chain(sent).collect::<Vec<_>>()).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}

#[test]
fn a_write_that_the_disk_broke_is_not_taken_for_a_full_disk() {
    block_on(async {
        let world = World::new();
        let queue = world.start().await;
        let mut sent = all(world.begin(&queue, 1..2)).await;
        world.judge(&queue, &sent).await;
        let (ballast, before) = (world.dir().join("ballast"), world.faults.fired());
        world.faults.arm(Plan::broken_disk().on(File::Log));
        sent.push(world.send(&queue, 2).await);
        assert!(world.faults.fired() > before);
        let Err(Error::Store { source, .. }) = &sent[1].answer else { panic!("{:?}", sent[1]) };
        assert_eq!(source.kind(), StoreErrorKind::Io, "{source}");
        assert!(ballast.exists());
        sent.extend(world.until_taken(&queue, &mut (3..)).await);
        world.judge(&queue, &sent).await;
        in_time(queue.shutdown(LIMIT)).await.unwrap();
    });
}
