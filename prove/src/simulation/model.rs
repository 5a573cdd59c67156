//! What was submitted and answered, and what must be true of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{TaskRecord, Timestamp};

use super::known::Known;
use super::tasks::Plan;
use crate::case::Failure;
use crate::scene::lock;

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None so far, or never: its queue is gone.
    None,
    Stored(TaskId),
    /// Nothing was stored.
    Refused,
    /// It may have been.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) plan: Plan,
    pub(crate) reports: bool,
    pub(crate) answer: Answer,
}

#[derive(Default)]
struct State {
    sent: BTreeMap<u64, Sent>,
    cancelled: BTreeSet<TaskId>,
    redriven: BTreeMap<TaskId, usize>,
    /// What each task's record said last.
    seen: BTreeMap<TaskId, (Option<Outcome>, u32)>,
    /// Who waits for an answer or an end now, and what for.
    waiting: BTreeMap<u64, (String, i64)>,
    next_wait: u64,
}

/// What clients know.
#[derive(Default)]
pub(crate) struct Model(Mutex<State>);

/// In microseconds. Submissions wait for a shard that is being rebuilt for 10 s, and for its next life
/// if it was committing them.
const ANSWERED_WITHIN: i64 = 20_000_000;

/// How it is called that somebody waits for a task to end.
pub(crate) const END: &str = "the end of";

/// How long results are kept; dead ones three times as long.
pub(crate) const KEEP: Duration = Duration::from_secs(20 * 86_400);

impl Model {
    pub(crate) fn send(&self, plan: Plan, reports: bool) -> u64 {
        let mut state = lock(&self.0);
        let number = state.sent.len() as u64 + 1;
        state.sent.insert(number, Sent { plan, reports, answer: Answer::None });
        number
    }

    pub(crate) fn plan(&self, number: u64) -> Option<Plan> {
        lock(&self.0).sent.get(&number).map(|sent| sent.plan)
    }

    pub(crate) fn answer(&self, number: u64, answer: Answer) {
        if let Some(sent) = lock(&self.0).sent.get_mut(&number) {
            sent.answer = answer;
        }
    }

    /// A waiter's number, until it has what it waits for, from now on.
    pub(crate) fn wait(&self, what: String, now: i64) -> u64 {
        let mut state = lock(&self.0);
        state.next_wait += 1;
        let number = state.next_wait;
        state.waiting.insert(number, (what, now));
        number
    }

    pub(crate) fn got(&self, waiter: u64) {
        lock(&self.0).waiting.remove(&waiter);
    }

    /// The queue is gone, and so is who waited for it.
    pub(crate) fn forget_waiters(&self) {
        lock(&self.0).waiting.clear();
    }

    pub(crate) fn first_waiter(&self) -> Option<String> {
        lock(&self.0).waiting.values().next().map(|(what, _)| what.clone())
    }

    /// Whatever fails, an answer comes soon. Only an end may take long.
    pub(crate) fn check_answers(&self, now: i64) -> Result<(), Failure> {
        let state = lock(&self.0);
        let late = |(what, since): &&(String, i64)| {
            now - since > ANSWERED_WITHIN && !what.starts_with(END)
        };
        match state.waiting.values().find(late) {
            Some((what, since)) => {
                let seconds = (now - since) / 1_000_000;
                Err(Failure::new("hangs", format!("for {seconds} s nobody has told {what}")))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn stored(&self) -> Vec<TaskId> {
        let state = lock(&self.0);
        let ids = state.sent.values().filter_map(|sent| match sent.answer {
            Answer::Stored(id) => Some(id),
            _ => None,
        });
        ids.collect()
    }

    pub(crate) fn cancel(&self, id: TaskId) {
        lock(&self.0).cancelled.insert(id);
    }

    /// It may end once more.
    pub(crate) fn redrive(&self, id: TaskId) {
        let mut state = lock(&self.0);
        *state.redriven.entry(id).or_default() += 1;
        state.seen.remove(&id);
    }

    pub(crate) fn figures(&self) -> (u64, u64) {
        let state = lock(&self.0);
        let stored = state.sent.values().filter(|sent| matches!(sent.answer, Answer::Stored(_)));
        (state.sent.len() as u64, stored.count() as u64)
    }

    /// A stored task whose record isn't there has ended long ago.
    pub(crate) fn check_missing(
        &self,
        id: TaskId,
        known: &Known,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let state = lock(&self.0);
        let lost = || Failure::new("lost", format!("{id} is not there"));
        let failed = state.seen.get(&id).is_some_and(|(end, _)| *end == Some(Outcome::Failed));
        if state.cancelled.contains(&id) || failed {
            return Ok(());
        }
        let over = known.ran(id).and_then(|ran| ran.over).ok_or_else(lost)?;
        if now.since(over) < KEEP { Err(lost()) } else { Ok(()) }
    }

    /// Compares with the records of all tasks. `ended`: nothing is left to do.
    pub(crate) fn check(
        &self,
        records: &BTreeMap<TaskId, TaskRecord>,
        known: &Known,
        ended: bool,
    ) -> Result<(), Failure> {
        let mut state = lock(&self.0);
        let mut numbers = BTreeMap::new();
        for (id, record) in records {
            let number = number_of(record)?;
            let Some(sent) = state.sent.get(&number).copied() else {
                return Err(Failure::new("unexpected", format!("nobody submitted {number}")));
            };
            if numbers.insert(number, *id).is_some() {
                return Err(Failure::new("twice", format!("{number} was stored twice")));
            }
            state.check_record(record, &sent, known)?;
            if ended {
                state.check_end(record, &sent, known)?;
            }
        }
        for (number, sent) in &state.sent {
            match (sent.answer, numbers.get(number)) {
                (Answer::Stored(id), Some(found)) if id != *found => {
                    return Err(Failure::new("corrupt", format!("{number} is {found}, not {id}")));
                }
                (Answer::Refused, Some(id)) => {
                    return Err(Failure::new("untrue", format!("{id} was refused, and is stored")));
                }
                (Answer::Stored(_) | Answer::Refused | Answer::None | Answer::Unknown, _) => {}
            }
        }
        Ok(())
    }
}

impl State {
    /// What is true of a record at any time.
    fn check_record(
        &mut self,
        record: &TaskRecord,
        sent: &Sent,
        known: &Known,
    ) -> Result<(), Failure> {
        let id = record.id;
        let now = (record.outcome, record.counters.claim_no);
        if let Some((outcome, claim_no)) = self.seen.insert(id, now) {
            let may_change = self.redriven.contains_key(&id) && outcome != Some(Outcome::Finished);
            if outcome.is_some() && outcome != record.outcome && !may_change {
                let what = format!("{id} was {outcome:?} and is {:?}", record.outcome);
                return Err(Failure::new("overwritten", what));
            }
            if record.counters.claim_no < claim_no {
                return Err(Failure::new("stale", format!("the fence of {id} has gone back")));
            }
        }
        let wrong = |what: &str| Err(Failure::new("untrue", format!("{id}: {what}: {record:?}")));
        match record.outcome {
            None => {}
            Some(Outcome::Finished) => {
                let output = record.output.as_ref().map(|output| output.decode::<u64>());
                if !matches!(output, Some(Ok(output)) if output == number_of(record)?) {
                    return wrong("another output");
                }
                if !sent.plan.kind.ends_well() || known.ran(id).is_none_or(|ran| ran.over.is_none())
                {
                    return wrong("it can't be finished");
                }
                if record.counters.failures != sent.plan.kind.failures() {
                    return wrong("another number of failures");
                }
            }
            Some(Outcome::Failed) => {
                let crashed = record.counters.crashes >= known.max_crashes;
                if sent.plan.kind.ends_well() && !crashed {
                    return wrong("it can't have failed");
                }
            }
            Some(Outcome::Cancelled) if self.cancelled.contains(&id) => {}
            Some(_) => return wrong("nobody cancelled it"),
        }
        Ok(())
    }

    /// What is true of a task when nothing is left to do.
    fn check_end(&self, record: &TaskRecord, sent: &Sent, known: &Known) -> Result<(), Failure> {
        let id = record.id;
        if record.outcome.is_none() {
            return Err(Failure::new("stuck", format!("{record:?}")));
        }
        if !sent.reports {
            return Ok(());
        }
        let heard = known.heard(id);
        let cut = self.cancelled.contains(&id);
        // at its second attempt the callback succeeds: only crashes end it before
        let dead = matches!(record.delivery, Delivery::Dead(_));
        if dead && !known.may_end_by_crashes() {
            return Err(Failure::new("missed", format!("{id} can't be dead: {record:?}")));
        }
        if heard == 0 && record.delivery != Delivery::None && !dead {
            return Err(Failure::new("missed", format!("nobody heard of {id}: {record:?}")));
        }
        if record.delivery == Delivery::None && !cut {
            return Err(Failure::new("missed", format!("{id} has no delivery: {record:?}")));
        }
        let redriven = self.redriven.get(&id).copied().unwrap_or(0);
        if heard > 1 + redriven {
            let what = format!("{heard} deliveries have reported {id}, redriven {redriven} times");
            return Err(Failure::new("twice", what));
        }
        Ok(())
    }
}

/// The number that a task was given.
fn number_of(record: &TaskRecord) -> Result<u64, Failure> {
    let corrupt = |why: String| Failure::new("corrupt", format!("{}: {why}", record.id));
    let payload = record.payload.as_ref().ok_or_else(|| corrupt("no arguments".into()))?;
    let decoded = payload.decode::<(u64, Plan)>().map_err(|error| corrupt(error.to_string()))?;
    Ok(decoded.0)
}
