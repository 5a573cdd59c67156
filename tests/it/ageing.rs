//! Priority and age: how long tasks of a higher priority may keep one waiting.

use message_queue_sqlite::prelude::*;

use crate::tasks::{gated, log};
use crate::world::{World, end, in_time, standing_clock, start};

/// A higher priority goes first for as long as its lead lasts: two levels of 60 seconds each.
#[actix::test]
async fn a_task_waits_for_those_of_higher_priority_that_come_within_its_levels_and_no_longer() {
    let world = World::new();
    let (clock, _) = standing_clock();
    let mut settings = world.narrow();
    settings.tasks.ageing_per_level = Duration::from_secs(60);
    let queue = start(world.builder_with(settings).clock(clock.clone())).await;
    let mut running = in_time(queue.submit(gated::task("high 0".into()))).await.unwrap();
    world.probe.until("high 0 started", 1).await;
    let low = in_time(queue.submit(log::task("low".into()))).await.unwrap();
    // they never stop coming
    let mut before = 0;
    for number in 1.. {
        clock.advance(Duration::from_secs(30));
        let high = gated::task(format!("high {number}")).priority(2);
        let high = in_time(queue.submit(high)).await.unwrap();
        world.probe.open(1);
        in_time(running).await.unwrap();
        world.probe.until(&format!("high {number} started"), 1).await;
        running = high;
        if world.probe.log().iter().any(|line| line == "low") {
            break;
        }
        before = number;
    }
    // those of 30, 60 and 90 seconds; the one of 120 has no lead any more
    assert_eq!(before, 3);
    in_time(low).await.unwrap();
    world.probe.open(1);
    in_time(running).await.unwrap();
    end(queue).await;
}
