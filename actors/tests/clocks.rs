//! Clocks that jump ahead.

use super::*;
use crate::clock::{Clock, Timestamp};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A queue with one shard, after the sweep of its start, and its clock.
async fn world() -> (World, Clock) {
    let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
    let (dir, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let builder = Queue::builder().dir(dir.path().join("queue")).clock(clock.clone()).shards(1);
    let builder = builder.register::<gated::Task>().data(gate.clone());
    let queue = builder.start().await.unwrap();
    let world = World { _dir: dir, queue, gate };
    world.until("the sweep of a start", |world| sweeps(world) == 1).await;
    (world, clock)
}

fn sweeps(world: &World) -> u64 {
    world.shared().shards[0].sweeps.load(Ordering::SeqCst)
}

/// A clock that jumped ahead used to have the shard look for expired records a thousand times a
/// second, until the process had been up for as long as the jump.
#[actix::test]
async fn an_idle_shard_stays_idle_after_the_clock_jumped_ahead() {
    let (world, clock) = world().await;
    clock.advance(YEAR);
    for _ in 0..100 {
        world.shared().shards[0].link.send(Wake);
        // answered behind the wake, so the shard has had its look
        world.queue.counts().await.unwrap();
    }
    assert_eq!(sweeps(&world), 1, "no record has been kept for longer than before");
    world.queue.shutdown(Duration::from_secs(30)).await.unwrap();
}

/// A rebuilt shard used to start anew with what the clock said then, and removed every result.
#[actix::test]
async fn a_shard_that_is_rebuilt_after_the_clock_jumped_ahead_removes_no_result() {
    let (world, clock) = world().await;
    world.gate.open.add_permits(1);
    let handles = world.submit(1).await;
    let id = handles[0].id();
    world.all_end(handles).await;
    clock.advance(YEAR);
    world.shared().shards[0].link.send(Fall);
    world.until("the sweep of a rebuilt shard", |world| sweeps(world) == 2).await;
    assert_eq!(world.queue.record(id).await.unwrap().outcome, Some(Outcome::Finished));
}
