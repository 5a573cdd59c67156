//! How many submissions may wait for their commit, and how much they may weigh.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What a submission may weigh without being weighed, in bytes: so small ones cost one count only.
const LIGHT: usize = 1024;

/// What waits in memory for a commit is bounded by two counts: of tasks, and of KiB of arguments
/// beyond the first.
#[derive(Debug)]
pub(crate) struct Admission {
    tasks: Arc<Semaphore>,
    room: Arc<Semaphore>,
    room_max: u32,
}

/// Leave for some submissions to wait for their commit. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    tasks: OwnedSemaphorePermit,
    room: Option<OwnedSemaphorePermit>,
}

/// The KiB that arguments of so many bytes take.
pub(crate) fn weight(bytes: usize) -> usize {
    if bytes <= LIGHT { 0 } else { bytes.div_ceil(1024) }
}

impl Admission {
    pub(crate) fn new(tasks: usize, bytes: usize) -> Self {
        let room_max = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(room_max as usize));
        Admission { tasks: Arc::new(Semaphore::new(tasks)), room, room_max }
    }

    /// Waits until `tasks` submissions of this weight may go on, all at once: of several callers
    /// that each held a part, none would ever have the rest.
    ///
    /// # Errors
    ///
    /// If nobody may any more.
    pub(crate) async fn enter(&self, tasks: usize, weight: usize) -> Result<Permit, AcquireError> {
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        let tasks = self.tasks.clone().acquire_many_owned(tasks).await?;
        let room = match self.capped(weight) {
            0 => None,
            weight => Some(self.room.clone().acquire_many_owned(weight).await?),
        };
        Ok(Permit { tasks, room })
    }

    /// Leave for one submission, if there is some at once.
    pub(crate) fn try_enter(&self, weight: usize) -> Option<Permit> {
        let tasks = self.tasks.clone().try_acquire_owned().ok()?;
        let room = match self.capped(weight) {
            0 => None,
            weight => Some(self.room.clone().try_acquire_many_owned(weight).ok()?),
        };
        Some(Permit { tasks, room })
    }

    /// What weighs more than all there may be goes alone.
    fn capped(&self, weight: usize) -> u32 {
        u32::try_from(weight).unwrap_or(u32::MAX).min(self.room_max)
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.tasks.close();
        self.room.close();
    }
}

impl Permit {
    pub(crate) fn merge(&mut self, other: Permit) {
        self.tasks.merge(other.tasks);
        match (&mut self.room, other.room) {
            (Some(room), Some(other)) => room.merge(other),
            (room @ None, other) => *room = other,
            (Some(_), None) => {}
        }
    }

    /// Takes out the leave of `tasks` submissions and, as far as it is there, their weight.
    pub(crate) fn split(&mut self, tasks: usize, weight: usize) -> Option<Permit> {
        let tasks = self.tasks.split(tasks)?;
        let room = self.room.as_mut().and_then(|room| room.split(weight.min(room.num_permits())));
        Some(Permit { tasks, room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(admission: &Admission) -> (usize, usize) {
        (admission.tasks.available_permits(), admission.room.available_permits())
    }

    #[tokio::test]
    async fn permits_are_merged_split_and_given_back() {
        let admission = Admission::new(10, 100 * 1024);
        let mut permit = admission.enter(3, 30).await.unwrap();
        permit.merge(admission.try_enter(0).unwrap());
        permit.merge(admission.try_enter(5).unwrap());
        assert_eq!(left(&admission), (5, 65));
        let part = permit.split(2, 10).unwrap();
        drop(permit);
        assert_eq!(left(&admission), (8, 90));
        drop(part);
        assert_eq!(left(&admission), (10, 100));
    }

    #[test]
    fn too_heavy_a_submission_is_let_in_when_there_is_no_other() {
        let admission = Admission::new(10, 100 * 1024);
        let light = admission.try_enter(1).unwrap();
        assert!(admission.try_enter(1_000).is_none());
        assert_eq!(left(&admission), (9, 99), "what was not let in holds nothing");
        drop(light);
        assert!(admission.try_enter(1_000).is_some());
    }

    #[test]
    fn small_arguments_weigh_nothing() {
        assert_eq!([0, 1024, 1025, 4096].map(weight), [0, 0, 2, 4]);
    }
}
