//! Async tasks that hold their worker's thread.

use std::time::Instant;

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;
use crate::world::{World, end, in_time, start};

mod own {
    use super::*;

    pub(super) const PATH: &str = module_path!();

    /// Holds the thread: for a moment, or until the gate opens. A late one has given it back
    /// once before.
    #[task(name = "own.hold")]
    pub(super) async fn hold(gated: bool, late: bool, probe: Data<Probe>) -> Result<(), TaskError> {
        if late {
            tokio::task::yield_now().await;
        }
        if gated {
            probe.note("held");
            probe.pass_blocking();
            return Ok(());
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

/// A queue with one thread for async tasks.
async fn one_worker(world: &World) -> Queue {
    let mut settings = world.settings();
    settings.workers.count = Some(1);
    start(world.builder_with(settings).discover(own::PATH)).await
}

#[actix::test]
async fn the_result_of_an_attempt_does_not_wait_for_one_that_holds_the_thread() {
    for late in [false, true] {
        let world = World::new();
        let queue = one_worker(&world).await;
        // submitted together, so that the worker gets them together
        let tasks = [false, false, true].map(|gated| own::hold::task(gated, late));
        let handles = in_time(queue.submit_all(tasks)).await.unwrap();
        let [first, second, gated] = handles.try_into().unwrap();
        world.probe.until("held", 1).await;
        in_time(first).await.unwrap();
        in_time(second).await.unwrap();
        assert_eq!(gated.status().await.unwrap(), TaskStatus::Running);
        world.probe.open(1);
        in_time(gated).await.unwrap();
        end(queue).await;
    }
}
