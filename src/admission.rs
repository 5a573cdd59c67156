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
mod tests {
    use super::*;

    fn admission(ready: Option<usize>) -> Admission {
        Admission::new(AdmissionLimits { tasks: 10, bytes: 100 * 1024, ready, cached: 2 })
    }

    fn of(tasks: usize, weight: usize) -> Demand {
        Demand { tasks, weight, cached: 0 }
    }

    fn in_memory(tasks: usize) -> Demand {
        Demand { tasks, weight: 0, cached: tasks }
    }

    fn left(admission: &Admission) -> (usize, usize) {
        (admission.tasks.available_permits(), admission.room.available_permits())
    }

    #[tokio::test]
    async fn permits_are_merged_split_and_given_back() {
        let admission = admission(None);
        let mut permit = admission.enter(of(3, 30)).await.unwrap();
        permit.merge(admission.try_enter(of(1, 0)).unwrap());
        permit.merge(admission.try_enter(of(1, 5)).unwrap());
        assert_eq!(left(&admission), (5, 65));
        let part = permit.split(2, 10).unwrap();
        drop(permit);
        assert_eq!(left(&admission), (8, 90));
        drop(part);
        assert_eq!(left(&admission), (10, 100));
    }

    #[test]
    fn too_heavy_a_submission_is_let_in_when_there_is_no_other() {
        let admission = admission(None);
        let light = admission.try_enter(of(1, 1)).unwrap();
        assert!(admission.try_enter(of(1, 1_000)).is_none());
        assert_eq!(left(&admission), (9, 99), "what was not let in holds nothing");
        drop(light);
        assert!(admission.try_enter(of(1, 1_000)).is_some());
    }

    #[test]
    fn small_arguments_weigh_nothing() {
        assert_eq!([0, 256, 257, 1025, 4096].map(weight), [0, 0, 1, 2, 4]);
    }

    #[tokio::test]
    async fn arguments_keep_their_room_in_memory_when_their_permit_is_back() {
        let admission = admission(None);
        let mut permit = admission.enter(in_memory(2)).await.unwrap();
        let kept = permit.take_cached().unwrap();
        assert!(admission.try_enter(in_memory(1)).is_none());
        assert_eq!(left(&admission), (8, 100), "what was not let in holds nothing");
        assert_eq!(admission.ends_needed(2), 2);
        drop(permit);
        // that of the other was never taken out
        assert_eq!((left(&admission), admission.ends_needed(2)), ((10, 100), 1));
        assert!(admission.try_enter(in_memory(1)).is_some());
        drop(kept);
        assert!(admission.try_enter(in_memory(2)).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_room_in_memory_holds_up_no_other() {
        let admission = Arc::new(admission(Some(4)));
        let mut permit = admission.enter(in_memory(2)).await.unwrap();
        let kept = [permit.take_cached(), permit.take_cached()];
        drop(permit);
        let mut first = caller(admission.clone(), in_memory(2));
        assert!(first.try_now().await.is_none());
        let mut second = caller(admission.clone(), in_memory(1));
        assert!(second.try_now().await.is_none());
        assert_eq!(left(&admission), (10, 100));
        assert!(admission.try_enter(of(4, 100)).is_some());
        drop(kept);
        let entered = first.try_now().await.unwrap().unwrap();
        assert!(second.try_now().await.is_none(), "it stands behind the first");
        drop(entered);
        assert!(second.try_now().await.unwrap().is_ok());
        admission.close();
        assert!(caller(admission, in_memory(1)).try_now().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_is_coming_and_what_is_stored_count_against_the_limit_of_ready_tasks() {
        let admission = admission(Some(4));
        let mut coming = admission.enter(of(3, 0)).await.unwrap();
        assert!(admission.try_enter(of(2, 0)).is_none());
        assert_eq!(left(&admission), (7, 100), "what was not let in holds nothing");
        coming.merge(admission.try_enter(of(1, 0)).unwrap());
        // they are stored, so they count twice until their permits are back
        admission.not_started_moved(0, 4);
        drop(coming.split(3, 0));
        drop(coming);
        assert!(admission.try_enter(of(1, 0)).is_none());
        assert_eq!(admission.starts_needed(3), 3);
        admission.not_started_moved(4, 2);
        assert_eq!(admission.starts_needed(3), 1);
        assert!(admission.try_enter(of(3, 0)).is_none());
        assert!(admission.try_enter(of(2, 0)).is_some());
    }

    #[tokio::test]
    async fn a_bulk_over_the_limit_of_ready_tasks_goes_alone() {
        let admission = admission(Some(4));
        admission.not_started_moved(0, 1);
        assert!(admission.try_enter(of(9, 0)).is_none());
        admission.not_started_moved(1, 0);
        let bulk = admission.try_enter(of(9, 0)).unwrap();
        assert!(admission.try_enter(of(1, 0)).is_none());
        drop(bulk);
        assert!(admission.try_enter(of(1, 0)).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_start_goes_on_in_order_when_tasks_have_started() {
        let admission = Arc::new(admission(Some(4)));
        admission.not_started_moved(0, 4);
        let mut first = caller(admission.clone(), of(3, 0));
        assert!(first.try_now().await.is_none());
        let mut second = caller(admission.clone(), of(1, 0));
        assert!(second.try_now().await.is_none());
        admission.not_started_moved(4, 3);
        assert!(first.try_now().await.is_none());
        assert!(second.try_now().await.is_none(), "it stands behind the first");
        assert!(admission.try_enter(of(1, 0)).is_none(), "nobody overtakes those who wait");
        admission.not_started_moved(3, 1);
        let entered = first.try_now().await.unwrap().unwrap();
        assert!(second.try_now().await.is_none());
        drop(entered);
        assert!(second.try_now().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_for_a_start_leaves_the_line() {
        let admission = Arc::new(admission(Some(4)));
        admission.not_started_moved(0, 4);
        let mut first = caller(admission.clone(), of(4, 0));
        assert!(first.try_now().await.is_none());
        drop(first);
        admission.not_started_moved(4, 3);
        assert!(admission.try_enter(of(1, 0)).is_some());
        admission.not_started_moved(3, 4);
        let mut last = caller(admission.clone(), of(1, 0));
        assert!(last.try_now().await.is_none());
        admission.close();
        assert!(last.try_now().await.unwrap().is_err(), "nobody is let in any more");
    }

    /// One who wants to enter, and can be asked how far it is.
    struct Caller(std::pin::Pin<Box<dyn Future<Output = Result<Permit, AcquireError>>>>);

    fn caller(admission: Arc<Admission>, demand: Demand) -> Caller {
        Caller(Box::pin(async move { admission.enter(demand).await }))
    }

    impl Caller {
        /// What came of it, if it is over.
        async fn try_now(&mut self) -> Option<Result<Permit, AcquireError>> {
            std::future::poll_fn(|context| {
                std::task::Poll::Ready(match self.0.as_mut().poll(context) {
                    std::task::Poll::Ready(entered) => Some(entered),
                    std::task::Poll::Pending => None,
                })
            })
            .await
        }
    }
}
