//! What a store should hold: every task in a map, and all of it looked at each time.

use super::super::*;
use crate::lifecycle::State;
use crate::order::Place;
use crate::store::Passing;

/// A task as the model knows it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) definition: usize,
    pub(super) queue: QueueIndex,
    pub(super) key: Option<Arc<str>>,
    pub(super) priority: i16,
    pub(super) state: State,
    pub(super) place: Place,
    pub(super) due: Option<Timestamp>,
    pub(super) ended_at: Timestamp,
    pub(super) claim_no: u32,
    pub(super) failures: u32,
    pub(super) crashes: u32,
    pub(super) volatile: bool,
    pub(super) callbacks: usize,
    pub(super) parent: Option<Parent>,
    pub(super) delivery: Delivery,
    /// Whether the delivery to memory is open.
    pub(super) memory: bool,
    pub(super) left: usize,
    /// Why targets will never have the result, one each.
    pub(super) undelivered: Vec<DeadReason>,
}

impl Row {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.delivery, Delivery::Pending | Delivery::Callbacking)
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.crashes >= lifecycle::suspect_at(MAX_CRASHES)
    }

    pub(super) fn status(&self) -> TaskStatus {
        lifecycle::status(self.state, &self.delivery)
    }
}

/// A callback that stands just before where its parent stood.
#[derive(Clone, Debug)]
pub(super) struct Born {
    pub(super) parent: Parent,
    pub(super) definition: usize,
    pub(super) priority: i16,
    pub(super) rank: i64,
}

/// What the store should hold.
#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<TaskId, Row>,
    /// The claims in force, then some that aren't any more.
    pub(super) claims: Vec<Claim>,
    pub(super) late: Vec<Claim>,
    pub(super) late_deliveries: Vec<DeliveryEnd>,
    /// Callbacks that the latest ends caused, in order; the store gives them their ids.
    pub(super) born: Vec<Born>,
    pub(super) now: Timestamp,
}

impl Model {
    pub(super) fn place(&self, due: Timestamp, priority: i16, id: TaskId) -> Place {
        Place { rank: options().ageing.rank(due, priority), sequence: id.sequence() }
    }

    pub(super) fn row(&mut self, id: TaskId) -> &mut Row {
        self.rows.get_mut(&id).unwrap()
    }

    /// A task as its callbacks know it: by the claim whose end they report.
    fn generation(&self, id: TaskId) -> Parent {
        Parent { id, claim_no: Some(self.rows[&id].claim_no) }
    }

    /// Whether a task of this key hasn't ended.
    fn has_live(&self, key: Option<&Arc<str>>) -> bool {
        key.is_some_and(|key| {
            let same = self.rows.values().filter(|row| row.key.as_ref() == Some(key));
            same.into_iter().any(|row| row.state.outcome().is_none())
        })
    }

    /// Lets the first task run that waits behind this key.
    fn release(&mut self, key: &Arc<str>) {
        let now = self.now;
        let held = |row: &&mut Row| row.key.as_ref() == Some(key) && row.state == State::Held;
        if let Some(row) = self.rows.values_mut().find(held) {
            row.due = row.due.filter(|due| *due > now);
            row.state = if row.due.is_some() { State::Waiting } else { State::Ready };
        }
    }

    pub(super) fn again(&mut self, id: TaskId, at: Timestamp) {
        let later = at > self.now;
        let due = at.max(self.now);
        let place = self.place(due, self.rows[&id].priority, id);
        let row = self.row(id);
        row.place = place;
        row.due = later.then_some(at);
        row.state = if later { State::Waiting } else { State::Ready };
    }

    /// Where it stood.
    fn back(&mut self, id: TaskId) {
        let row = self.row(id);
        (row.state, row.due) = (State::Ready, None);
    }

    /// Ends a task; the delivery to memory stays pending.
    pub(super) fn end(&mut self, id: TaskId, outcome: Outcome, notify: bool) {
        let now = self.now;
        let row = self.row(id);
        let subscribers = usize::from(row.definition == AUDITED && row.parent.is_none());
        let key = row.key.clone().filter(|_| row.state != State::Held);
        row.state = State::Ended(outcome);
        (row.due, row.ended_at, row.memory) = (None, now, notify);
        row.left = row.callbacks + subscribers + usize::from(notify);
        row.delivery = match (row.left, notify) {
            (0, _) => Delivery::None,
            (_, true) => Delivery::Pending,
            (_, false) => Delivery::Callbacking,
        };
        let Row { callbacks, parent, priority, place, .. } = *row;
        let rank = place.rank - 1;
        let born = Born { parent: self.generation(id), definition: ON_END, priority, rank };
        self.born.extend(vec![born.clone(); callbacks]);
        self.born.extend(vec![Born { definition: LOG, ..born }; subscribers]);
        if let Some(parent) = parent {
            let reason = (outcome != Outcome::Finished).then_some(DeadReason::CallbackFailed);
            if self.rows.contains_key(&parent.id) && self.generation(parent.id) == parent {
                self.close(parent.id, false, reason);
            }
        }
        if let Some(key) = key {
            self.release(&key);
        }
    }

    /// Closes one open delivery of a task, if there is one.
    pub(super) fn close(&mut self, id: TaskId, memory: bool, reason: Option<DeadReason>) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.is_open()) else { return };
        row.left -= 1;
        row.undelivered.extend(reason);
        row.memory &= !memory;
        row.delivery = match (row.left, row.undelivered.first()) {
            (0, None) => Delivery::Callbacked,
            (0, Some(reason)) => Delivery::Dead(*reason),
            _ if memory => Delivery::Callbacking,
            _ => row.delivery.clone(),
        };
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) {
        let counters = settlement.transition.counters;
        let row = self.row(settlement.id);
        (row.failures, row.crashes) = (counters.failures, counters.crashes);
        match settlement.transition.next {
            Next::Again { at } => self.again(settlement.id, at),
            Next::Back => self.back(settlement.id),
            Next::Ended(outcome) => self.end(settlement.id, outcome, settlement.notify),
        }
    }

    pub(super) fn cancel(&mut self, cancellation: Cancellation) -> CancelOutcome {
        let Cancellation { id, notify } = cancellation;
        let row = &self.rows[&id];
        match row.state {
            State::Running => CancelOutcome::Requested,
            State::Ended(_) => CancelOutcome::AlreadyFinished(row.status()),
            State::Waiting | State::Ready | State::Held => {
                let notify = row.volatile || notify;
                self.end(id, Outcome::Cancelled, notify);
                CancelOutcome::Removed
            }
        }
    }

    pub(super) fn redrive(&mut self, id: TaskId) -> RedriveOutcome {
        let row = &self.rows[&id];
        let dead = matches!(row.state, State::Ended(outcome) if outcome != Outcome::Finished);
        if !dead || row.is_open() {
            return RedriveOutcome::NotDead(row.status());
        }
        let held = self.has_live(row.key.clone().as_ref());
        let row = self.row(id);
        (row.failures, row.crashes, row.undelivered) = (0, 0, Vec::new());
        (row.volatile, row.delivery) = (false, Delivery::None);
        let parent = row.parent;
        self.again(id, self.now);
        if held {
            self.row(id).state = State::Held;
        }
        if let Some(Parent { id, claim_no }) = parent
            && let Some(parent) = self.rows.get_mut(&id)
            && claim_no == Some(parent.claim_no)
            && let failed = DeadReason::CallbackFailed
            && let Some(at) = parent.undelivered.iter().position(|reason| *reason == failed)
        {
            parent.left += 1;
            parent.undelivered.remove(at);
            if parent.left == 1 {
                parent.delivery = Delivery::Callbacking;
            }
        }
        RedriveOutcome::Redriven
    }

    pub(super) fn promote(&mut self) {
        for row in self.rows.values_mut() {
            if row.state == State::Waiting && row.due.is_some_and(|due| due <= self.now) {
                (row.state, row.due) = (State::Ready, None);
            }
        }
    }

    pub(super) fn insert(&mut self, id: TaskId, task: &NewTask, parent: Option<Parent>) {
        let held = self.has_live(task.key.as_ref());
        let row = Row {
            definition: task.definition,
            queue: task.queue,
            key: task.key.clone(),
            priority: task.priority,
            state: State::Ready,
            place: Place { rank: 0, sequence: 0 },
            due: None,
            ended_at: self.now,
            claim_no: 0,
            failures: 0,
            crashes: 0,
            volatile: task.volatile,
            callbacks: task.callbacks.as_ref().map_or(0, |names| names.len()),
            parent,
            delivery: Delivery::None,
            memory: false,
            left: 0,
            undelivered: Vec::new(),
        };
        assert!(self.rows.insert(id, row).is_none(), "{id} was given out twice");
        self.again(id, task.due_at.unwrap_or(self.now));
        if held {
            self.row(id).state = State::Held;
        }
    }

    /// Gives the callbacks that ends caused the ids that the store gave them.
    pub(super) fn adopt(&mut self, all: &[TaskRecord]) {
        let unknown = all.iter().filter(|record| !self.rows.contains_key(&record.id));
        let ids: Vec<TaskId> = unknown.map(|record| record.id).collect();
        let born = std::mem::take(&mut self.born);
        assert_eq!(ids.len(), born.len(), "as many callbacks as ends that want them");
        for (id, Born { parent, definition, priority, rank }) in ids.into_iter().zip(born) {
            let callback = NewTask { priority, ..task(definition) };
            self.insert(id, &callback, Some(parent));
            self.row(id).place.rank = rank;
        }
    }

    /// What may run, in order.
    pub(super) fn runnable(&self, suspects: bool) -> Vec<TaskId> {
        let ready = self.rows.iter().filter(|(_, row)| row.state == State::Ready);
        let mut ready: Vec<_> = ready.filter(|(_, row)| row.is_suspect() == suspects).collect();
        ready.sort_by_key(|(_, row)| row.place);
        ready.into_iter().map(|(id, _)| *id).collect()
    }

    /// What the budget allows of it.
    pub(super) fn claimable(&self, budget: &ClaimBudget) -> Vec<TaskId> {
        let (mut queues, mut all_quick) = (budget.queues.clone(), true);
        let mut claimed_ranks = Vec::new();
        let mut claimable = Vec::new();
        for id in self.runnable(false) {
            let row = &self.rows[&id];
            if queues.left(row.queue) == 0 {
                continue;
            }
            let rank = row.place.rank;
            let may_pass = |at: &Passing| {
                let passed = claimed_ranks.iter().filter(|other| **other > at.rank).count();
                rank <= at.rank || passed < at.tasks
            };
            if !budget.passing.iter().all(may_pass) {
                break;
            }
            all_quick &= row.definition == QUICK;
            let free = claimable.len() < budget.slots;
            // each takes 5 ns of the 6 that there are: one may go over
            let most = budget.prefetch.min(2);
            let behind = claimable.len() < budget.slots + most && all_quick;
            if !free && !behind {
                break;
            }
            queues.take(row.queue);
            claimable.push(id);
            claimed_ranks.push(rank);
        }
        claimable
    }

    pub(super) fn pending(&self) -> Vec<TaskId> {
        let pending = self.rows.iter().filter(|(_, row)| row.delivery == Delivery::Pending);
        pending.map(|(id, _)| *id).collect()
    }

    pub(super) fn on_their_way(&self) -> Vec<TaskId> {
        let sent = self.rows.iter();
        let sent = sent.filter(|(_, row)| row.memory && row.delivery == Delivery::Callbacking);
        sent.map(|(id, _)| *id).collect()
    }

    pub(super) fn forget_claims(&mut self, lives: impl Fn(TaskId) -> bool) {
        let (alive, gone) = self.claims.drain(..).partition(|claim| lives(claim.id));
        self.claims = alive;
        self.late.extend::<Vec<Claim>>(gone);
    }

    /// The death of the process; returns what recovery should say.
    pub(super) fn crash(&mut self) -> Recovered {
        let mut recovered = Recovered::default();
        self.forget_claims(|_| false);
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            let row = self.row(id);
            if row.state == State::Running {
                row.crashes += 1;
                let (last, volatile) = (row.crashes >= MAX_CRASHES, row.volatile);
                if last {
                    recovered.failed += 1;
                    self.end(id, Outcome::Failed, volatile);
                } else {
                    recovered.restarted += 1;
                    self.back(id);
                }
            } else {
                recovered.subscribers_gone += u64::from(row.memory);
            }
            if self.rows[&id].memory {
                self.close(id, true, Some(DeadReason::SubscriberGone));
            }
        }
        recovered.callbacks = self.rows.values().filter(|row| row.is_open()).count() as u64;
        recovered
    }

    pub(super) fn rebuild(&mut self, memory: &Lives) {
        self.forget_claims(|id| memory.0.contains(&id));
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            if memory.0.contains(&id) {
                continue;
            }
            let row = self.row(id);
            if row.state == State::Running {
                self.back(id);
            } else if row.memory {
                row.delivery = Delivery::Pending;
            }
        }
    }

    pub(super) fn purge(&mut self) {
        let (now, options) = (self.now, options());
        self.rows.retain(|_, row| {
            let State::Ended(outcome) = row.state else { return true };
            let dead = outcome != Outcome::Finished || matches!(row.delivery, Delivery::Dead(_));
            let keep = if dead { options.keep_dead } else { options.keep_results };
            row.is_open() || row.ended_at.saturating_add(keep) > now
        });
    }
}

/// What lives in memory at a rebuild.
pub(super) struct Lives(pub(super) Vec<TaskId>);

impl Memory for Lives {
    fn attempt_lives(&self, id: TaskId, _: u32) -> bool {
        self.0.contains(&id)
    }

    fn delivery_lives(&self, id: TaskId) -> bool {
        self.0.contains(&id)
    }
}
