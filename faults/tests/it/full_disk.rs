//! A disk without space: callers are told so, and the ballast lets ends be stored.

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
