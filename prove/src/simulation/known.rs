//! What the tasks of a simulation find out by themselves while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{Clock, Timestamp};

use super::tasks::Plan;
use crate::case::Failure;
use crate::scene::lock;

/// How long after its time a timer may be, in microseconds.
const TIMER: i64 = 2_000;

/// What is known of a task that has begun.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) plan: Plan,
    claim_no: u32,
    /// At most.
    crashes: u32,
    snoozes: u32,
    /// Whether an attempt has ended it, as far as it knows, and when.
    pub(crate) over: Option<Timestamp>,
    /// Its latest end said so: it may not run before.
    not_before: i64,
}

#[derive(Default)]
struct State {
    /// What runs now.
    live: BTreeSet<TaskId>,
    ran: BTreeMap<TaskId, Ran>,
    paused: BTreeSet<u8>,
    /// How many attempts of a named queue may run at a time.
    limits: BTreeMap<u8, usize>,
    /// Of each key, what is stored and hasn't begun, and how many crashes it may have had.
    behind: BTreeMap<u8, BTreeMap<TaskId, u32>>,
    /// What was cancelled or redriven: its place behind its key is another one.
    touched: BTreeSet<TaskId>,
    /// If the order is watched: tasks that nothing is in the way of, and when that was so.
    waiting: Option<BTreeMap<TaskId, (Plan, i64)>>,
    /// Of each task, the deliveries that have reported it.
    heard: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// How many lives of the queue were cut short.
    cut: u32,
    broken: Option<Failure>,
    attempts: u64,
    trace: u64,
}

/// What tasks find out, over all lives of a queue.
pub(crate) struct Known {
    clock: Clock,
    /// How many may run at a time.
    slots: usize,
    /// How many counted crashes end a task.
    pub(super) max_crashes: u32,
    /// Whether what happens is printed: with the variable PROVE_TRACE.
    prints: bool,
    state: Mutex<State>,
}

impl Known {
    pub(crate) fn new(clock: Clock, slots: usize, max_crashes: u32) -> Arc<Self> {
        let prints = std::env::var_os("PROVE_TRACE").is_some();
        Arc::new(Known { clock, slots, max_crashes, prints, state: Mutex::default() })
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now().as_micros()
    }

    /// Adds to what must be the same in a second run with the same seed.
    pub(crate) fn trace(&self, what: impl std::fmt::Debug) {
        let text = format!("{what:?} at {}", self.now());
        let mut state = lock(&self.state);
        if self.prints {
            #[expect(clippy::print_stdout, reason = "somebody asked for it")]
            {
                println!("{text}");
            }
        }
        for byte in text.bytes() {
            state.trace = (state.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn traced(&self) -> u64 {
        lock(&self.state).trace
    }

    pub(crate) fn attempts(&self) -> u64 {
        lock(&self.state).attempts
    }

    pub(crate) fn running(&self) -> usize {
        lock(&self.state).live.len()
    }

    /// What tasks have found to be wrong, if anything.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        lock(&self.state).broken.clone().map_or(Ok(()), Err)
    }

    /// Notes that something is wrong; the first is what counts.
    pub(super) fn fail(&self, failure: Failure) {
        lock(&self.state).broken.get_or_insert(failure);
    }

    pub(crate) fn ran(&self, id: TaskId) -> Option<Ran> {
        lock(&self.state).ran.get(&id).cloned()
    }

    /// A delivery reports the task.
    pub(super) fn hears(&self, id: TaskId, delivery: TaskId) {
        lock(&self.state).heard.entry(id).or_default().insert(delivery);
    }

    /// How many deliveries of this task's ends there were.
    pub(crate) fn heard(&self, id: TaskId) -> usize {
        lock(&self.state).heard.get(&id).map_or(0, BTreeSet::len)
    }

    /// From now on none of the queue's tasks may start, or they may.
    pub(crate) fn pause(&self, queue: u8, paused: bool) {
        let mut state = lock(&self.state);
        if paused {
            state.paused.insert(queue);
        } else {
            state.paused.remove(&queue);
        }
    }

    /// From now on no attempt of the queue may begin beside so many; `None` if none is kept from it, or
    /// nobody knows.
    pub(super) fn limit(&self, queue: u8, tasks: Option<usize>) {
        let mut state = lock(&self.state);
        state.limits.remove(&queue);
        state.limits.extend(tasks.map(|tasks| (queue, tasks)));
    }

    pub(crate) fn is_paused(&self, queue: u8) -> bool {
        lock(&self.state).paused.contains(&queue)
    }

    /// What attempts said at their end may not have been stored, and a task that so many crashes end
    /// may have ended.
    pub(crate) fn crash(&self) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.cut += 1;
        for ran in state.ran.values_mut() {
            ran.not_before = i64::MIN;
            // it may have been claimed once more, and not have begun
            ran.crashes += 1;
            if ran.crashes >= self.max_crashes {
                ran.over.get_or_insert(now);
            }
        }
        for behind in state.behind.values_mut() {
            behind.retain(|_, crashes| {
                *crashes += 1;
                *crashes < self.max_crashes
            });
        }
    }

    /// Whether there were enough crashes to end any task.
    pub(super) fn may_end_by_crashes(&self) -> bool {
        lock(&self.state).cut >= self.max_crashes
    }

    /// It is cancelled or redriven: it needn't wait for its turn.
    pub(crate) fn touch(&self, id: TaskId) {
        let mut state = lock(&self.state);
        state.touched.insert(id);
        state.leaves_line(id);
        if let Some(waiting) = &mut state.waiting {
            waiting.remove(&id);
        }
        if let Some(ran) = state.ran.get_mut(&id) {
            ran.not_before = i64::MIN;
        }
    }

    /// From now on attempts must begin in the queue's order. Holds for a queue with one shard and one
    /// slot, with nothing claimed ahead: there a task is claimed and begins at the same moment.
    pub(crate) fn watch_order(&self) {
        lock(&self.state).waiting = Some(BTreeMap::new());
    }

    /// It was acknowledged. `again`: its id was given long before, and others may have overtaken it.
    pub(crate) fn stored(&self, id: TaskId, plan: Plan, again: bool) {
        let (state, now) = (&mut *lock(&self.state), self.now());
        let begun = state.ran.contains_key(&id) || state.touched.contains(&id);
        // what else may be in the way of those isn't known here
        if let Some(waiting) = &mut state.waiting
            && !begun
            && plan.key.is_none()
            && plan.queue.is_none()
        {
            waiting.insert(id, (plan, now));
        }
        if let Some(key) = plan.key
            && !begun
            && !again
        {
            let overtaken = state.begun_behind(id, key).map(|other| {
                Failure::new("order", format!("{other} has begun before {id}, of the same key"))
            });
            state.broken = state.broken.take().or(overtaken);
            state.behind.entry(key).or_default().insert(id, 0);
        }
    }

    /// An attempt begins; what must be true of it.
    pub(super) fn begin(self: &Arc<Self>, ctx: &TaskContext, plan: Plan) -> Attempt {
        let (id, claim_no, now) = (ctx.id(), ctx.claim_no(), self.now());
        self.trace(("begins", id, claim_no));
        let mut state = lock(&self.state);
        state.attempts += 1;
        if let Some(waiting) = &mut state.waiting {
            waiting.remove(&id);
        }
        state.leaves_line(id);
        let broken = state.wrong(id, claim_no, plan, now).or_else(|| {
            let all = state.live.len() + 1;
            (all > self.slots).then(|| Failure::new("credit", format!("{all} attempts at a time")))
        });
        let broken =
            broken.or_else(|| state.overtaken(id, plan.rank(ctx.submitted_at().as_micros()), now));
        state.broken = state.broken.take().or(broken);
        state.live.insert(id);
        let crashes = ctx.crashes();
        let new = Ran { plan, claim_no, crashes, snoozes: 0, over: None, not_before: i64::MIN };
        let ran = state.ran.entry(id).or_insert(new);
        (ran.claim_no, ran.over, ran.not_before) = (claim_no, None, i64::MIN);
        ran.crashes = crashes;
        Attempt { known: self.clone(), id }
    }
}

impl State {
    /// What is wrong about an attempt that begins.
    fn wrong(&self, id: TaskId, claim_no: u32, plan: Plan, now: i64) -> Option<Failure> {
        if self.live.contains(&id) {
            return Some(Failure::new("twice", format!("{id} runs beside itself")));
        }
        if now < plan.due && !self.touched.contains(&id) {
            return Some(Failure::new("early", format!("{id} runs {} µs early", plan.due - now)));
        }
        if let Some(before) = self.ran.get(&id) {
            if claim_no <= before.claim_no {
                let what = format!("{id} runs with claim {claim_no} after {}", before.claim_no);
                return Some(Failure::new("stale", what));
            }
            if now < before.not_before {
                let early = before.not_before - now;
                return Some(Failure::new("early", format!("{id} runs again {early} µs early")));
            }
        }
        if plan.queue.is_some_and(|queue| self.paused.contains(&queue)) {
            return Some(Failure::new("paused", format!("{id} starts in a paused queue")));
        }
        if let Some(failure) = self.over_limit(id, plan) {
            return Some(failure);
        }
        let open = plan.key.and_then(|_| self.open_before(id, plan.key));
        open.map(|other| {
            Failure::new("order", format!("{id} starts before {other}, of the same key, has ended"))
        })
    }

    /// With an attempt that begins, too many of its queue run.
    fn over_limit(&self, id: TaskId, plan: Plan) -> Option<Failure> {
        let queue = plan.queue?;
        let limit = *self.limits.get(&queue)?;
        let others = self.live.iter().filter_map(|other| self.ran.get(other));
        let running = others.filter(|ran| ran.plan.queue == Some(queue)).count() + 1;
        (running > limit).then(|| {
            let what = format!("{id} is number {running} of a queue limited to {limit}");
            Failure::new("limit", what)
        })
    }

    /// What an attempt that begins, of at least this rank, leaves behind though it comes first: by its
    /// rank, and among equals by its id.
    fn overtaken(&self, id: TaskId, rank: i64, now: i64) -> Option<Failure> {
        if self.touched.contains(&id) {
            // its rank is of another time
            return None;
        }
        let mut waiting = self.waiting.iter().flatten();
        let first = waiting.find(|(other, (plan, since))| {
            // what has a lower id was stored before this one was claimed, even at the same moment
            let there = *since < now || **other < id;
            there && plan.due + TIMER < now && (plan.rank(*since), **other) < (rank, id)
        });
        first.map(|(other, (plan, since))| {
            let behind = rank - plan.rank(*since);
            let what = format!("{id} begins before {other}, whose rank is {behind} µs lower");
            Failure::new("order", what)
        })
    }

    /// It has begun, or its place behind its key is another one.
    fn leaves_line(&mut self, id: TaskId) {
        for behind in self.behind.values_mut() {
            behind.remove(&id);
        }
    }

    /// Another task of the key that runs, or has begun and not ended, or came first.
    fn open_before(&self, id: TaskId, key: Option<u8>) -> Option<TaskId> {
        let key = key?;
        let same =
            self.ran.iter().filter(|(other, ran)| **other != id && ran.plan.key == Some(key));
        let mut open = same.filter(|(other, ran)| {
            let kept = ran.over.is_none() && !self.touched.contains(other);
            kept || self.live.contains(other)
        });
        let begun = open.next().map(|(other, _)| *other);
        // all that is open of a key is in one shard, in order of ids, however late the first is due
        let comes_first = |other: &&TaskId| **other < id || other.shard() != id.shard();
        let first = || self.behind.get(&key)?.keys().find(comes_first).copied();
        begun.or_else(first)
    }

    /// A task of the key that came after this one and has begun, though this one hasn't. Told only
    /// when this one is acknowledged: the other may have begun before that.
    fn begun_behind(&self, id: TaskId, key: u8) -> Option<TaskId> {
        // the key may have been in another shard before
        let same = |(other, ran): &(&TaskId, &Ran)| {
            other.shard() == id.shard() && ran.plan.key == Some(key)
        };
        let mut behind = self.ran.range(id..).filter(same);
        behind.next().map(|(other, _)| *other)
    }
}

/// An attempt in progress, until it is dropped.
pub(super) struct Attempt {
    known: Arc<Known>,
    id: TaskId,
}

impl Attempt {
    /// It is the last, as far as it knows.
    pub(super) fn is_over(&self) {
        let now = self.known.clock.now();
        self.known.trace(("is over", self.id));
        if let Some(ran) = lock(&self.known.state).ran.get_mut(&self.id) {
            ran.over = Some(now);
        }
    }

    pub(super) fn again_in(&self, micros: i64) {
        let at = self.known.now() + micros;
        if let Some(ran) = lock(&self.known.state).ran.get_mut(&self.id) {
            ran.not_before = at;
            ran.snoozes += 1;
        }
    }

    pub(super) fn snoozes(&self) -> u32 {
        lock(&self.known.state).ran.get(&self.id).map_or(0, |ran| ran.snoozes)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        lock(&self.known.state).live.remove(&self.id);
    }
}
