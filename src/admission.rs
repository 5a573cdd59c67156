//! How many submissions may wait for their commit, how much they may weigh, how many tasks may wait
//! for their start, and of how many the arguments may stay in memory.

mod ready;

use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use ready::{Coming, Ready};

/// What a submission may weigh without being weighed, in bytes: so small ones cost one count only.
const LIGHT: usize = 256;

/// What waits in memory for a commit is bounded by two counts: of tasks, and of KiB of arguments
/// that aren't light. What waits on disk for its start is bounded by another, if that is wanted. And
/// so are arguments that stay in memory until their task has ended.
#[derive(Debug)]
pub(crate) struct Admission {
    tasks: Arc<Semaphore>,
    room: Arc<Semaphore>,
    room_max: u32,
    ready: Option<Arc<Ready>>,
    cached: Arc<Semaphore>,
    /// Submissions that weren't let in since the start.
    refused: AtomicU64,
}

/// The limits that submissions are let in by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionLimits {
    /// Submissions that wait for their commit.
    pub(crate) tasks: usize,
    /// Bytes of their arguments.
    pub(crate) bytes: usize,
    /// Tasks that haven't started, in all shards.
    pub(crate) ready: Option<usize>,
    /// Tasks whose arguments stay in memory.
    pub(crate) cached: usize,
}

/// What submissions take of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) tasks: usize,
    /// What their arguments weigh.
    pub(crate) weight: usize,
    /// Those of the tasks whose arguments stay in memory.
    pub(crate) cached: usize,
}

impl Sum for Demand {
    fn sum<I: Iterator<Item = Demand>>(all: I) -> Demand {
        all.fold(Demand::default(), |sum, one| Demand {
            tasks: sum.tasks + one.tasks,
            weight: sum.weight + one.weight,
            cached: sum.cached + one.cached,
        })
    }
}

/// Leave for some submissions to wait for their commit. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    tasks: OwnedSemaphorePermit,
    /// What most have none of.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    room: Option<OwnedSemaphorePermit>,
    /// Until they are among the stored tasks, they count as coming.
    coming: Option<Coming>,
    /// For arguments that stay in memory, as long as nobody has taken it out.
    cached: Option<OwnedSemaphorePermit>,
}

/// The KiB that arguments of so many bytes take.
pub(crate) fn weight(bytes: usize) -> usize {
    if bytes <= LIGHT { 0 } else { bytes.div_ceil(1024) }
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Self {
        let room_max = u32::try_from(limits.bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Admission {
            tasks: Arc::new(Semaphore::new(limits.tasks)),
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            ready: limits.ready.map(Ready::new),
            cached: Arc::new(Semaphore::new(limits.cached)),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits until submissions may go on, all at once: of several callers that each held a part, none
    /// would ever have the rest. Dropping the future gives up the place in the line.
    ///
    /// More arguments than may ever stay in memory would wait for ever.
    ///
    /// # Errors
    ///
    /// If nobody may any more.
    pub(crate) async fn enter(&self, demand: Demand) -> Result<Permit, AcquireError> {
        // what comes first is kept from others while the rest is waited for: so what few want, and
        // lasts longest
        let cached = match saturated(demand.cached) {
            0 => None,
            cached => Some(self.cached.clone().acquire_many_owned(cached).await?),
        };
        let coming = match &self.ready {
            Some(ready) => Some(ready.enter(demand.tasks).await?),
            None => None,
        };
        let tasks = self.tasks.clone().acquire_many_owned(saturated(demand.tasks)).await?;
        let room = match self.capped(demand.weight) {
            0 => None,
            weight => Some(self.room.clone().acquire_many_owned(weight).await?),
        };
        Ok(Permit::new(tasks, More { room, coming, cached }))
    }

    /// Leave for submissions, if there is some at once.
    pub(crate) fn try_enter(&self, demand: Demand) -> Option<Permit> {
        let tasks = self.tasks.clone().try_acquire_many_owned(saturated(demand.tasks)).ok()?;
        let room = match self.capped(demand.weight) {
            0 => None,
            weight => Some(self.room.clone().try_acquire_many_owned(weight).ok()?),
        };
        let cached = match saturated(demand.cached) {
            0 => None,
            cached => Some(self.cached.clone().try_acquire_many_owned(cached).ok()?),
        };
        let coming = match &self.ready {
            Some(ready) => Some(ready.try_enter(demand.tasks)?),
            None => None,
        };
        Some(Permit::new(tasks, More { room, coming, cached }))
    }

    /// What weighs more than all there may be goes alone.
    fn capped(&self, weight: usize) -> u32 {
        saturated(weight).min(self.room_max)
    }

    /// A shard has `now` tasks that haven't started, where it had `before`. Told before the permits
    /// of what was just stored go back, so that no task is missing from the count in between.
    pub(crate) fn not_started_moved(&self, before: usize, now: usize) {
        if let Some(ready) = &self.ready {
            ready.moved(before, now);
        }
    }

    /// How many tasks have to start before `tasks` more fit in.
    pub(crate) fn starts_needed(&self, tasks: usize) -> usize {
        self.ready.as_ref().map_or(0, |ready| ready.excess(tasks))
    }

    /// How many tasks have to end before the arguments of `cached` more fit into memory.
    pub(crate) fn ends_needed(&self, cached: usize) -> usize {
        cached.saturating_sub(self.cached.available_permits())
    }

    /// Counts submissions that weren't let in.
    pub(crate) fn count_refused(&self, tasks: usize) {
        self.refused.fetch_add(tasks as u64, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.tasks.close();
        self.room.close();
        self.cached.close();
        if let Some(ready) = &self.ready {
            ready.close();
        }
    }
}

impl Permit {
    fn new(tasks: OwnedSemaphorePermit, more: More) -> Permit {
        let some = more.room.is_some() || more.coming.is_some() || more.cached.is_some();
        Permit { tasks, more: some.then(|| Box::new(more)) }
    }

    /// Takes out the leave of one task's arguments to stay in memory. It lasts as long as they do.
    pub(crate) fn take_cached(&mut self) -> Option<OwnedSemaphorePermit> {
        self.more.as_mut()?.cached.as_mut()?.split(1)
    }

    pub(crate) fn merge(&mut self, other: Permit) {
        self.tasks.merge(other.tasks);
        match (&mut self.more, other.more) {
            (Some(more), Some(other)) => more.merge(*other),
            (more @ None, other) => *more = other,
            (Some(_), None) => {}
        }
    }

    /// Takes out the leave of `tasks` submissions and, as far as it is there, their weight. That of
    /// arguments to stay in memory stays here.
    pub(crate) fn split(&mut self, tasks: usize, weight: usize) -> Option<Permit> {
        let permit = self.tasks.split(tasks)?;
        let more = self.more.as_mut().map(|more| more.split(tasks, weight));
        Some(Permit::new(permit, more.unwrap_or_default()))
    }
}

impl More {
    fn merge(&mut self, other: More) {
        merge(&mut self.room, other.room);
        merge(&mut self.cached, other.cached);
        match (&mut self.coming, other.coming) {
            (Some(coming), Some(other)) => coming.merge(other),
            (coming @ None, other) => *coming = other,
            (Some(_), None) => {}
        }
    }

    fn split(&mut self, tasks: usize, weight: usize) -> More {
        let room = self.room.as_mut().and_then(|room| room.split(weight.min(room.num_permits())));
        let coming = self.coming.as_mut().map(|coming| coming.split(tasks));
        More { room, coming, cached: None }
    }
}

fn merge(all: &mut Option<OwnedSemaphorePermit>, other: Option<OwnedSemaphorePermit>) {
    match (all, other) {
        (Some(all), Some(other)) => all.merge(other),
        (all @ None, other) => *all = other,
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests;
