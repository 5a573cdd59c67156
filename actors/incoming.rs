//! Submissions on their way to a shard's file.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Answer, ShardLedger, Waiter};
use crate::admission::{self, Permit};
use crate::attempt::CachedInput;
use crate::clock::Timestamp;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::keys;
use crate::panic_message::OneByOne;
use crate::queues::QueueIndex;
use crate::record::{ShardId, TaskId};
use crate::store::NewTask;
use crate::submission::{Accepted, Target};

/// Submissions of one shard, in order, in groups that are stored and answered as a whole.
///
/// They count in the shard's load from the moment they come until this is dropped, so one that is
/// lost on its way (its actor died, its shard is quarantined) isn't counted for ever. An answer that
/// is dropped tells its caller the truth, too.
pub(crate) struct Incoming {
    ledger: Arc<ShardLedger>,
    /// The rows to be; absent while a batch has them.
    tasks: Vec<NewTask>,
    /// How many KiB the large ones have.
    kib: usize,
    kept: Vec<Kept>,
    groups: Vec<Group>,
    /// Since when they wait: one entry for all that came together, so that the clock isn't read for
    /// each of them.
    came: VecDeque<Came>,
    /// Permits to wait for a commit, one per task.
    permit: Option<Permit>,
    /// Whether a commit may be storing them, and what stays in memory isn't in the ledger yet.
    committing: bool,
}

/// What stays in memory beside a task's row.
#[derive(Debug)]
pub(crate) struct Kept {
    /// How long after it is stored the task may start at the earliest.
    delay: Option<Duration>,
    /// Whether its caller chose its id: then it may be stored already, and have ended.
    named: bool,
    cached: Option<Arc<dyn CachedInput>>,
    targets: Vec<Target>,
}

/// Tasks whose callers chose their ids, and of which something stays in memory.
pub(crate) struct Known {
    /// They may have ended before: that has to be looked up, or nobody would let go of it.
    pub(crate) ids: Vec<TaskId>,
    /// Arguments of those that have some already.
    pub(crate) spare: OneByOne<Arc<dyn CachedInput>>,
}

/// How many tasks are stored in one transaction, and who waits for their ids.
#[derive(Debug)]
struct Group {
    len: usize,
    answer: Answer,
}

/// So many tasks that came together, and when the first of them did.
#[derive(Debug)]
struct Came {
    len: usize,
    at: Instant,
}

/// What the arguments of a task weigh, if they are large.
pub(super) fn kib(task: &NewTask) -> usize {
    task.payload.as_ref().map_or(0, |bytes| admission::weight(bytes.len()))
}

impl Incoming {
    pub(crate) fn new(ledger: Arc<ShardLedger>) -> Self {
        let (tasks, kept, groups, came) = Default::default();
        Incoming { ledger, tasks, kib: 0, kept, groups, came, permit: None, committing: false }
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The highest priority among the tasks, and the definition of the first that has it.
    pub(crate) fn first(&self) -> Option<(i16, usize)> {
        let tasks = self.tasks.iter().rev().map(|task| (task.priority, task.definition));
        tasks.max_by_key(|(priority, _)| *priority)
    }

    /// The named queue of each task.
    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueIndex> + '_ {
        self.tasks.iter().map(|task| task.queue)
    }

    /// The slots of the tasks with an ordering key.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        self.tasks.iter().filter_map(|task| task.key.as_deref().map(keys::slot_of))
    }

    /// How many groups, so how many answers.
    pub(crate) fn answers(&self) -> usize {
        self.groups.len()
    }

    /// Adds a group.
    pub(crate) fn push(
        &mut self,
        accepted: impl IntoIterator<Item = Accepted>,
        permit: Permit,
        waiter: Waiter,
    ) {
        let (before, kib_before) = (self.len(), self.kib);
        for Accepted { task, delay, mut cached, mut targets } in accepted {
            let (cached, targets) = (cached.0.pop(), std::mem::take(&mut targets.0));
            self.kib += kib(&task);
            self.kept.push(Kept { delay, named: task.id.is_some(), cached, targets });
            self.tasks.push(task);
        }
        self.admit(Some(permit));
        let len = self.len() - before;
        match self.came.back_mut() {
            Some(came) => came.len += len,
            None => self.came.push_back(Came { len, at: Instant::now() }),
        }
        self.ledger.gauges.incoming.fetch_add(len, Ordering::AcqRel);
        if self.kib > kib_before {
            let more = self.kib - kib_before;
            self.ledger.gauges.incoming_kib.fetch_add(more, Ordering::AcqRel);
        }
        self.groups.push(Group { len, answer: Answer::new(self.ledger.id, waiter) });
    }

    fn admit(&mut self, permit: Option<Permit>) {
        match (&mut self.permit, permit) {
            (Some(all), Some(permit)) => all.merge(permit),
            (all @ None, permit) => *all = permit,
            (Some(_), None) => {}
        }
    }

    /// Says who waits for the group that came last.
    pub(crate) fn set_last_waiter(&mut self, waiter: Waiter) {
        if let Some(group) = self.groups.last_mut() {
            group.answer.set_waiter(waiter);
        }
    }

    /// Adds what came later.
    pub(crate) fn append(&mut self, mut later: Incoming) {
        if self.is_empty() {
            std::mem::swap(self, &mut later);
            return;
        }
        self.tasks.append(&mut later.tasks);
        self.kib += std::mem::take(&mut later.kib);
        self.kept.append(&mut later.kept);
        self.groups.append(&mut later.groups);
        self.came.append(&mut later.came);
        let permit = later.permit.take();
        self.admit(permit);
    }

    pub(crate) fn take_all(&mut self) -> Incoming {
        let none = Incoming::new(self.ledger.clone());
        std::mem::replace(self, none)
    }

    /// Takes the first groups, of at most `max` tasks in all, but at least one: a bulk submission is
    /// stored at once.
    pub(crate) fn take_first(&mut self, max: usize) -> Incoming {
        let mut first = self.take_all();
        if first.len() <= max {
            return first;
        }
        let (mut groups, mut len) = (0, 0);
        for group in &first.groups {
            if groups > 0 && len + group.len > max {
                break;
            }
            (groups, len) = (groups + 1, len + group.len);
        }
        self.tasks = first.tasks.split_off(len);
        self.kept = first.kept.split_off(len);
        self.groups = first.groups.split_off(groups);
        self.came = split_off(&mut first.came, len);
        self.kib = self.tasks.iter().map(kib).sum();
        first.kib -= self.kib;
        self.permit =
            first.permit.as_mut().and_then(|permit| permit.split(self.kept.len(), self.kib));
        first
    }

    /// Since when its first tasks wait.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.came.front().map(|came| came.at)
    }

    /// How long all of its tasks together have waited until `now`.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        let waited = self.came.iter().map(|came| {
            let len = u32::try_from(came.len).unwrap_or(u32::MAX);
            now.saturating_duration_since(came.at).saturating_mul(len)
        });
        waited.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Takes out each group with an id that its shard never gave out, `next` being the next it will
    /// give: whole, because the store refuses single tasks.
    pub(crate) fn take_strangers(&mut self, next: u64) -> Vec<(Incoming, TaskId)> {
        let never_given = |id: &TaskId| !(1..next).contains(&id.sequence());
        let stranger =
            |tasks: &[NewTask]| tasks.iter().filter_map(|task| task.id).find(never_given);
        let mut strangers = Vec::new();
        if stranger(&self.tasks).is_none() {
            return strangers;
        }
        let mut rest = self.take_all();
        while let Some(group) = rest.groups.first() {
            let len = group.len;
            let group = rest.take_first(len);
            match stranger(&group.tasks) {
                Some(id) => strangers.push((group, id)),
                None => self.append(group),
            }
        }
        strangers
    }

    /// The rows to store now. A delay counts from its submission time as it is stored, so that no
    /// record shows a start that was early.
    pub(crate) fn take_tasks(&mut self, now: Timestamp) -> Vec<NewTask> {
        let mut tasks = std::mem::take(&mut self.tasks);
        for (task, kept) in tasks.iter_mut().zip(&self.kept) {
            if let Some(delay) = kept.delay {
                task.due_at = Some(now.saturating_add(delay));
            }
        }
        tasks
    }

    /// Takes the rows back that weren't stored. They have no ids yet.
    pub(crate) fn put_back(&mut self, tasks: Vec<NewTask>) {
        self.tasks = tasks;
        self.committing = false;
        for group in &mut self.groups {
            group.answer.expect_none();
        }
    }

    /// Notes in each answer which ids its tasks will have: should this be dropped unanswered, the
    /// caller is told that they may be stored.
    pub(crate) fn expect_ids(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        self.committing = true;
        let mut ids = ids.into_iter();
        for group in &mut self.groups {
            group.answer.expect(ids.by_ref().take(group.len));
        }
    }

    /// Gives what stays in memory of the stored tasks to the shard's ledger.
    pub(crate) fn keep(&mut self, submitted: &[Result<TaskId, StoreError>]) -> Known {
        self.committing = false;
        let mut known = Known { ids: Vec::new(), spare: OneByOne(Vec::new()) };
        let mut targets = self.ledger.targets();
        let mut cached = self.ledger.cached();
        for (kept, stored) in self.kept.iter_mut().zip(submitted) {
            let Ok(id) = stored else { continue };
            let keeps = !kept.targets.is_empty() || kept.cached.is_some();
            known.ids.extend((keeps && kept.named).then_some(*id));
            if !kept.targets.is_empty() {
                // those of an earlier submission hear of it, too, but no mailbox twice
                let there = targets.entry(id.sequence()).or_default();
                Target::merge(there, kept.targets.drain(..));
            }
            let Some(input) = kept.cached.take() else { continue };
            match cached.entry(id.sequence()) {
                Entry::Vacant(free) => drop(free.insert(input)),
                // what is stored already is left as it is
                Entry::Occupied(_) => known.spare.0.push(input),
            }
        }
        known
    }

    /// Tells everyone what became of their tasks, now that it is durable.
    pub(crate) fn answer(mut self, submitted: &[Result<TaskId, StoreError>]) {
        let mut submitted = submitted.iter();
        let mut refusals = Refusals::default();
        for group in self.groups.drain(..) {
            let mut group_submitted = submitted.by_ref().take(group.len);
            let refused = group_submitted.find_map(|stored| stored.as_ref().err());
            // the rest of the group isn't looked at one by one
            group_submitted.for_each(drop);
            match refused {
                None => group.answer.stored(),
                Some(error) => {
                    refusals.refuse(group, error.clone().on(self.ledger.id, "store a task"));
                }
            }
        }
        refusals.count(&self.ledger);
    }

    /// Tells everyone that nothing was stored, and why.
    pub(crate) fn refuse(&mut self, error: impl Fn() -> Error) {
        let mut refusals = Refusals::default();
        for group in self.groups.drain(..) {
            refusals.refuse(group, error());
        }
        refusals.count(&self.ledger);
    }

    /// Whether it holds closures or arguments of the caller's, whose `Drop` is the caller's code.
    pub(crate) fn holds_values(&self) -> bool {
        self.kept.iter().any(|kept| kept.cached.is_some() || !kept.targets.is_empty())
    }

    /// The answers to tasks of which nobody knows whether they are stored. What stays in memory of
    /// them is in the shard's ledger by then.
    pub(crate) fn into_unanswered(mut self) -> Vec<Answer> {
        self.take_unanswered()
    }

    fn take_unanswered(&mut self) -> Vec<Answer> {
        let ids = self.groups.iter().flat_map(|group| group.answer.ids());
        let maybe: Vec<_> = ids.map(|id| Ok(*id)).collect();
        // a rebuilt shard looks up all that it has
        drop(self.keep(&maybe));
        self.groups.drain(..).map(|group| group.answer).collect()
    }
}

/// What is refused of a batch: counted, and said once where nobody waits for the answers.
#[derive(Default)]
struct Refusals {
    tasks: usize,
    unheard: usize,
    error: Option<Error>,
}

impl Refusals {
    fn refuse(&mut self, group: Group, error: Error) {
        self.tasks += group.len;
        if !group.answer.refuse(error.clone()) {
            self.unheard += group.len;
            self.error = Some(error);
        }
    }

    fn count(self, ledger: &ShardLedger) {
        ledger.gauges.refused.fetch_add(self.tasks as u64, Ordering::Relaxed);
        if let Some(error) = self.error {
            let tasks = self.unheard;
            tracing::warn!(tasks, %error, "submissions that nobody waits for are refused");
        }
    }
}

/// Leaves the first `len` tasks and returns the rest.
fn split_off(came: &mut VecDeque<Came>, mut len: usize) -> VecDeque<Came> {
    let mut rest = VecDeque::new();
    let mut whole = 0;
    while let Some(first) = came.get_mut(whole).filter(|_| len > 0) {
        if first.len > len {
            rest.push_back(Came { len: first.len - len, at: first.at });
            first.len = len;
        }
        len -= first.len;
        whole += 1;
    }
    // a part of the last one is in front of it by now
    rest.extend(came.drain(whole..));
    rest
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.committing && std::thread::panicking() {
            // the actor dies with the batch; the next one sees in the file what became of it
            let why = "the shard's actor panicked during the commit";
            let why = StoreError::new(StoreErrorKind::Io, why);
            let unanswered = self.take_unanswered().into_iter();
            self.ledger.unanswered().extend(unanswered.map(|answer| (answer, why.clone())));
        }
        // those of whom nothing is on its way to the file: the others are told the truth one by one
        let mut refusals = Refusals::default();
        let shard = self.ledger.id;
        for group in self.groups.extract_if(.., |group| group.answer.ids().is_empty()) {
            refusals.refuse(group, Error::ShardUnavailable { shard });
        }
        refusals.count(&self.ledger);
        self.ledger.gauges.incoming.fetch_sub(self.kept.len(), Ordering::AcqRel);
        if self.kib > 0 {
            self.ledger.gauges.incoming_kib.fetch_sub(self.kib, Ordering::AcqRel);
        }
        if self.holds_values() {
            let targets = self.kept.iter_mut().flat_map(|kept| kept.targets.drain(..));
            drop(OneByOne(targets.collect()));
            drop(OneByOne(self.kept.drain(..).map(|kept| kept.cached).collect()));
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard: ShardId = self.ledger.id;
        write!(f, "Incoming(shard {shard}, {} tasks)", self.len())
    }
}

#[cfg(test)]
mod tests;
