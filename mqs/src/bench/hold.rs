//! Keeping ready tasks from being claimed, so that they pile up.

use std::sync::Arc;

use message_queue_sqlite::Submission;
use message_queue_sqlite::prelude::*;
use tokio::sync::watch;

use super::AnyError;
use super::world::slots;

/// What the tasks that hold slots wait for. Clones are the same.
#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
    /// How many tasks wait at it.
    waiting: Arc<watch::Sender<usize>>,
}

impl Gate {
    pub(crate) fn open() -> Self {
        Gate { open: Arc::new(watch::Sender::new(true)), waiting: Arc::default() }
    }

    async fn pass(&self) {
        let mut open = self.open.subscribe();
        let _waits = Waits::at(self);
        // the sender is the gate's own
        let _ = open.wait_for(|open| *open).await;
    }
}

/// One task that waits at a gate; also one that is dropped meanwhile stops waiting.
struct Waits<'g>(&'g Gate);

impl<'g> Waits<'g> {
    fn at(gate: &'g Gate) -> Self {
        gate.waiting.send_modify(|waiting| *waiting += 1);
        Waits(gate)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

/// Takes a worker's slot until the gate opens.
#[task(name = "bench.hold_slot")]
pub(crate) async fn hold_slot(gate: Data<Gate>) -> Result<(), std::io::Error> {
    gate.pass().await;
    Ok(())
}

/// Keeps the queue from claiming anything: tasks that wait take every slot, and behind those no
/// task is claimed ahead. What is submitted then is stored as ready, with its entry in the index, as
/// it is behind any backlog.
///
/// Everything that holds tasks goes through this and [`release`].
pub(crate) async fn hold(queue: &Queue, gate: &Gate) -> Result<(), AnyError> {
    hold_slots(queue, gate, slots()).await
}

/// [`hold`] for a queue with so many slots.
pub(crate) async fn hold_slots(queue: &Queue, gate: &Gate, slots: usize) -> Result<(), AnyError> {
    gate.open.send_replace(false);
    // before everything else that is ready
    let holder = || -> Submission<hold_slot::Task> { hold_slot::task().priority(i16::MAX) };
    queue.submit_all((0..slots).map(|_| holder())).await?;
    gate.waiting.subscribe().wait_for(|waiting| *waiting == slots).await?;
    Ok(())
}

/// Lets the queue go on.
pub(crate) fn release(gate: &Gate) {
    gate.open.send_replace(true);
}
