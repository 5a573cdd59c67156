//! How many submissions may wait for their commit, how much they may weigh, and how many tasks may
//! wait for their start.

mod ready;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use ready::{Coming, Ready};

/// What a submission may weigh without being weighed, in bytes: so small ones cost one count only.
const LIGHT: usize = 256;

/// What waits in memory for a commit is bounded by two counts: of tasks, and of KiB of arguments
/// that aren't light. What waits on disk for its start is bounded by another, if that is wanted.
#[derive(Debug)]
pub(crate) struct Admission {
    tasks: Arc<Semaphore>,
    room: Arc<Semaphore>,
    room_max: u32,
    ready: Option<Arc<Ready>>,
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
}

/// Leave for some submissions to wait for their commit. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    tasks: OwnedSemaphorePermit,
    /// What most have none of.
    more: Option<Box<More>>,
}

#[derive(Debug)]
struct More {
    room: Option<OwnedSemaphorePermit>,
    /// Until they are among the stored tasks, they count as coming.
    coming: Option<Coming>,
}

/// The KiB that arguments of so many bytes take.
pub(crate) fn weight(bytes: usize) -> usize {
    if bytes <= LIGHT { 0 } else { bytes.div_ceil(1024) }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Self {
        let room_max = u32::try_from(limits.bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Admission {
            tasks: Arc::new(Semaphore::new(limits.tasks)),
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            ready: limits.ready.map(Ready::new),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits until `tasks` submissions of this weight may go on, all at once: of several callers
    /// that each held a part, none would ever have the rest. Dropping the future gives up the place
    /// in the line.
    ///
    /// # Errors
    ///
    /// If nobody may any more.
    pub(crate) async fn enter(&self, tasks: usize, weight: usize) -> Result<Permit, AcquireError> {
        let coming = match &self.ready {
            Some(ready) => Some(ready.enter(tasks).await?),
            None => None,
        };
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        let tasks = self.tasks.clone().acquire_many_owned(tasks).await?;
        let room = match self.capped(weight) {
            0 => None,
            weight => Some(self.room.clone().acquire_many_owned(weight).await?),
        };
        Ok(Permit::new(tasks, room, coming))
    }

    /// Leave for `tasks` submissions of this weight, if there is some at once.
    pub(crate) fn try_enter(&self, tasks: usize, weight: usize) -> Option<Permit> {
        let count = u32::try_from(tasks).unwrap_or(u32::MAX);
        let permit = self.tasks.clone().try_acquire_many_owned(count).ok()?;
        let room = match self.capped(weight) {
            0 => None,
            weight => Some(self.room.clone().try_acquire_many_owned(weight).ok()?),
        };
        let coming = match &self.ready {
            Some(ready) => Some(ready.try_enter(tasks)?),
            None => None,
        };
        Some(Permit::new(permit, room, coming))
    }

    /// What weighs more than all there may be goes alone.
    fn capped(&self, weight: usize) -> u32 {
        u32::try_from(weight).unwrap_or(u32::MAX).min(self.room_max)
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
        if let Some(ready) = &self.ready {
            ready.close();
        }
    }
}

impl Permit {
    fn new(
        tasks: OwnedSemaphorePermit,
        room: Option<OwnedSemaphorePermit>,
        coming: Option<Coming>,
    ) -> Permit {
        let some = room.is_some() || coming.is_some();
        Permit { tasks, more: some.then(|| Box::new(More { room, coming })) }
    }

    pub(crate) fn merge(&mut self, other: Permit) {
        self.tasks.merge(other.tasks);
        match (&mut self.more, other.more) {
            (Some(more), Some(other)) => more.merge(*other),
            (more @ None, other) => *more = other,
            (Some(_), None) => {}
        }
    }

    /// Takes out the leave of `tasks` submissions and, as far as it is there, their weight.
    pub(crate) fn split(&mut self, tasks: usize, weight: usize) -> Option<Permit> {
        let permit = self.tasks.split(tasks)?;
        let (room, coming) = match &mut self.more {
            Some(more) => more.split(tasks, weight),
            None => (None, None),
        };
        Some(Permit::new(permit, room, coming))
    }
}

impl More {
    fn merge(&mut self, other: More) {
        match (&mut self.room, other.room) {
            (Some(room), Some(other)) => room.merge(other),
            (room @ None, other) => *room = other,
            (Some(_), None) => {}
        }
        match (&mut self.coming, other.coming) {
            (Some(coming), Some(other)) => coming.merge(other),
            (coming @ None, other) => *coming = other,
            (Some(_), None) => {}
        }
    }

    fn split(
        &mut self,
        tasks: usize,
        weight: usize,
    ) -> (Option<OwnedSemaphorePermit>, Option<Coming>) {
        let room = self.room.as_mut().and_then(|room| room.split(weight.min(room.num_permits())));
        (room, self.coming.as_mut().map(|coming| coming.split(tasks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(ready: Option<usize>) -> Admission {
        Admission::new(AdmissionLimits { tasks: 10, bytes: 100 * 1024, ready })
    }

    fn left(admission: &Admission) -> (usize, usize) {
        (admission.tasks.available_permits(), admission.room.available_permits())
    }

    #[tokio::test]
    async fn permits_are_merged_split_and_given_back() {
        let admission = admission(None);
        let mut permit = admission.enter(3, 30).await.unwrap();
        permit.merge(admission.try_enter(1, 0).unwrap());
        permit.merge(admission.try_enter(1, 5).unwrap());
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
        let light = admission.try_enter(1, 1).unwrap();
        assert!(admission.try_enter(1, 1_000).is_none());
        assert_eq!(left(&admission), (9, 99), "what was not let in holds nothing");
        drop(light);
        assert!(admission.try_enter(1, 1_000).is_some());
    }

    #[test]
    fn small_arguments_weigh_nothing() {
        assert_eq!([0, 256, 257, 1025, 4096].map(weight), [0, 0, 1, 2, 4]);
    }

    #[tokio::test]
    async fn what_is_coming_and_what_is_stored_count_against_the_limit_of_ready_tasks() {
        let admission = admission(Some(4));
        let mut coming = admission.enter(3, 0).await.unwrap();
        assert!(admission.try_enter(2, 0).is_none());
        assert_eq!(left(&admission), (7, 100), "what was not let in holds nothing");
        coming.merge(admission.try_enter(1, 0).unwrap());
        // they are stored, so they count twice until their permits are back
        admission.not_started_moved(0, 4);
        drop(coming.split(3, 0));
        drop(coming);
        assert!(admission.try_enter(1, 0).is_none());
        assert_eq!(admission.starts_needed(3), 3);
        admission.not_started_moved(4, 2);
        assert_eq!(admission.starts_needed(3), 1);
        assert!(admission.try_enter(3, 0).is_none());
        assert!(admission.try_enter(2, 0).is_some());
    }

    #[tokio::test]
    async fn a_bulk_over_the_limit_of_ready_tasks_goes_alone() {
        let admission = admission(Some(4));
        admission.not_started_moved(0, 1);
        assert!(admission.try_enter(9, 0).is_none());
        admission.not_started_moved(1, 0);
        let bulk = admission.try_enter(9, 0).unwrap();
        assert!(admission.try_enter(1, 0).is_none());
        drop(bulk);
        assert!(admission.try_enter(1, 0).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_start_goes_on_in_order_when_tasks_have_started() {
        let admission = Arc::new(admission(Some(4)));
        admission.not_started_moved(0, 4);
        let mut first = caller(admission.clone(), 3);
        assert!(first.try_now().await.is_none());
        let mut second = caller(admission.clone(), 1);
        assert!(second.try_now().await.is_none());
        admission.not_started_moved(4, 3);
        assert!(first.try_now().await.is_none());
        assert!(second.try_now().await.is_none(), "it stands behind the first");
        assert!(admission.try_enter(1, 0).is_none(), "nobody overtakes those who wait");
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
        let mut first = caller(admission.clone(), 4);
        assert!(first.try_now().await.is_none());
        drop(first);
        admission.not_started_moved(4, 3);
        assert!(admission.try_enter(1, 0).is_some());
        admission.not_started_moved(3, 4);
        let mut last = caller(admission.clone(), 1);
        assert!(last.try_now().await.is_none());
        admission.close();
        assert!(last.try_now().await.unwrap().is_err(), "nobody is let in any more");
    }

    /// One who wants to enter, and can be asked how far it is.
    struct Caller(std::pin::Pin<Box<dyn Future<Output = Result<Permit, AcquireError>>>>);

    fn caller(admission: Arc<Admission>, tasks: usize) -> Caller {
        Caller(Box::pin(async move { admission.enter(tasks, 0).await }))
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
