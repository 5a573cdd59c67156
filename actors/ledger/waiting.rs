//! Attempts that wait for a slot of their worker.
//!
//! They start in the order of ranks, in which tasks are claimed, so an urgent one doesn't wait for all
//! that was claimed ahead of it. Each is passed by no more than stood before it when it came: it waits
//! at most twice as long as first come, first served, whatever comes. Otherwise a steady flow of urgent
//! tasks could hold it back for ever while other workers start later ones, and with it its place of a
//! limited queue, its key and its cancellation.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::attempt::Attempt;

/// The attempts that wait, in the order in which they start.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<One>);

#[derive(Debug)]
struct One {
    attempt: Arc<Attempt>,
    /// How many may yet be put before it.
    may_pass: usize,
}

impl Waiting {
    /// Adds attempts, in the order of their ranks, to a worker that runs so many.
    pub(crate) fn add(&mut self, attempts: Vec<Arc<Attempt>>, running: usize) {
        let Some(first) = attempts.first().map(|attempt| attempt.rank) else { return };
        let passed = self.split_off_after(first);
        // how many may be put before each: what is before it is before those behind it, too
        let mut least = usize::MAX;
        let room = passed.iter().rev().map(|one| {
            least = least.min(one.may_pass);
            least
        });
        let room: Vec<usize> = room.collect();
        let (mut attempts, mut before) = (attempts.into_iter().peekable(), 0);
        for (mut one, room) in passed.into_iter().zip(room.into_iter().rev()) {
            while before < room
                && let Some(next) = attempts.next_if(|next| next.rank < one.attempt.rank)
            {
                self.push(next, running);
                before += 1;
            }
            one.may_pass -= before;
            self.0.push_back(one);
        }
        attempts.for_each(|attempt| self.push(attempt, running));
    }

    /// Takes those off the end that an attempt of this rank may be put before.
    fn split_off_after(&mut self, rank: i64) -> VecDeque<One> {
        // the usual case: nothing that waits stands after what comes
        if self.0.back().is_none_or(|last| last.attempt.rank <= rank) {
            return VecDeque::new();
        }
        let open = self.0.iter().rposition(|one| one.may_pass == 0).map_or(0, |at| at + 1);
        // what hasn't been passed as often as it may is in order
        let after = self.0.range(open..).take_while(|one| one.attempt.rank <= rank).count();
        self.0.split_off(open + after)
    }

    fn push(&mut self, attempt: Arc<Attempt>, running: usize) {
        let may_pass = running + self.0.len();
        self.0.push_back(One { attempt, may_pass });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next to start.
    pub(crate) fn pop(&mut self) -> Option<Arc<Attempt>> {
        self.0.pop_front().map(|one| one.attempt)
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Arc<Attempt>> {
        std::mem::take(&mut self.0).into_iter().map(|one| one.attempt)
    }
}

#[cfg(test)]
mod tests;
