//! How many tasks there are of each status, so that counting them scans nothing.

use crate::record::TaskStatus;

const STATUSES: usize = TaskStatus::ALL.len();

/// Where a status stands in the order of their numbers, which begin with 1.
fn index(status: TaskStatus) -> usize {
    usize::from(status.code()) - 1
}

/// How many tasks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; STATUSES]);

impl Counts {
    /// From a number for each status, in the order of theirs. There can't be more tasks than ids.
    pub(super) fn of(numbers: &[u64]) -> Option<Self> {
        let counts = Counts(numbers.try_into().ok()?);
        counts.0.iter().all(|tasks| i64::try_from(*tasks).is_ok()).then_some(counts)
    }

    pub(super) fn get(&self, status: TaskStatus) -> u64 {
        self.0[index(status)]
    }

    /// All of them, in the order of the statuses' numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (TaskStatus, u64)> + '_ {
        TaskStatus::ALL.into_iter().zip(self.0)
    }

    /// What they are after a transaction; `None` if that would be less than none.
    pub(super) fn after(&self, tally: &Tally) -> Option<Self> {
        let mut after = *self;
        for (tasks, by) in after.0.iter_mut().zip(tally.0) {
            *tasks = tasks.checked_add_signed(by)?;
        }
        Some(after)
    }
}

/// How a transaction changes them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally([i64; STATUSES]);

impl Tally {
    pub(super) fn add(&mut self, status: TaskStatus) {
        self.0[index(status)] += 1;
    }

    pub(super) fn remove(&mut self, status: TaskStatus) {
        self.0[index(status)] -= 1;
    }

    pub(super) fn is_changed(&self) -> bool {
        self.0.iter().any(|by| *by != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_never_negative() {
        let mut tally = Tally::default();
        tally.add(TaskStatus::Expired);
        let one = Counts::default().after(&tally).unwrap();
        assert_eq!(one.get(TaskStatus::Expired), 1);
        tally.remove(TaskStatus::Expired);
        assert!(!tally.is_changed());
        tally.remove(TaskStatus::Expired);
        assert_eq!(one.after(&tally), Some(Counts::default()));
        assert_eq!(Counts::default().after(&tally), None);
    }

    #[test]
    fn each_status_has_a_number_and_none_has_more_tasks_than_there_are_ids() {
        assert_eq!(Counts::of(&[0; STATUSES]), Some(Counts::default()));
        assert_eq!(Counts::of(&[0; STATUSES - 1]), None);
        assert_eq!(Counts::of(&[0; STATUSES + 1]), None);
        assert_eq!(Counts::of(&[u64::MAX; STATUSES]), None);
    }
}
