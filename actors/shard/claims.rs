//! From a claim to an attempt in a worker's hands.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::ShardActor;
use crate::actors::incoming::Incoming;
use crate::actors::ledger::{Done, FinishBatch};
use crate::actors::messages::Run;
use crate::actors::outbox::Once;
use crate::actors::slots::{Ahead, Behind, First, Grant, UNKNOWN_NS, Wanted, kept_for};
use crate::attempt::{Attempt, AttemptEnd, Input};
use crate::clock::Timestamp;
use crate::queues::QueueIndex;
use crate::record::{FailureKind, RetryPolicy, TaskFailure};
use crate::registry::Definition;
use crate::result::TaskResult;
use crate::settings::Settings;
use crate::store::{Claim, ClaimBudget, ClaimInput, Overrides, ShardStore, Takes, Threads};

/// What a turnaround takes beside two commits: one may have begun when an attempt ends, the next
/// stores the claim that follows it. One of them is taken to be slow: a slot is to be free for a short
/// time also then.
const HANDING_OVER: Duration = Duration::from_micros(200);

/// What is claimed ahead lasts for at least so long: a disk that commits within a millisecond takes ten
/// now and then, for the syncs of a checkpoint or another program's writes, and nothing tells when.
const STALL: Duration = Duration::from_millis(15);

/// Something may wait behind slots if a worker that is full of such tasks frees one within two
/// turnarounds or this time, whichever is longer: by then a slot of another worker may be free.
const FREES_WITHIN: Duration = Duration::from_millis(5);

/// Nor may it if it takes longer than so many turnarounds and than this time, however many slots there
/// are: they may have begun together, and then end together. Without it a slot stands empty for a
/// twentieth of the time at most.
const LONG: Duration = Duration::from_millis(100);
const LONG_TURNAROUNDS: u64 = 20;

/// Targets that have taken nothing for so long don't lag, they stand still.
const LAGS_FOR: Duration = Duration::from_millis(500);

/// How many tasks are asked for when nobody knows how many there are.
const GUESS: usize = 64;

impl<S: ShardStore> ShardActor<S> {
    /// Takes credits for what could be claimed now.
    ///
    /// `moved` says that rows may become ready in this batch that nobody knows of yet.
    pub(super) fn take_credits(&mut self, incoming: &Incoming, moved: bool) -> Option<Grant> {
        self.lacked_thread = false;
        if self.ends_only || !self.shared.is_claiming() {
            return None;
        }
        let store = self.store.as_ref()?;
        let (slots, queues) = (&self.shared.slots, &self.shared.queues);
        let runnable = store.runnable();
        let ahead = self.ahead();
        let mut wanted =
            Wanted::of(&runnable, queues, GUESS, &ahead).kept_for(kept_for(self.commit_time()));
        if runnable.iter().any(|one| one.suspects && !wanted.is_paused(one.queue)) {
            return slots.take_alone(self.ledger.id, wanted);
        }
        self.shared.wake(slots.give_up_alone(self.ledger.id));
        let now = self.shared.clock.now();
        if let Some((priority, definition)) = incoming.first() {
            let rank = self.shared.ageing().rank(now, priority);
            let first = First { rank, ahead: ahead(definition) };
            if wanted.is_unrestrained() {
                wanted.add(QueueIndex::DEFAULT, incoming.len(), first);
            } else {
                incoming.queues().for_each(|queue| wanted.add(queue, 1, first));
            }
        }
        let due = store.outlook().next_due.is_some_and(|due| due <= now);
        if due || moved {
            wanted.guess(GUESS);
        }
        drop(ahead);
        self.lacked_thread = wanted.ahead() == Ahead::ButOthers;
        Some(slots.take(self.ledger.id, &wanted, self.behind()))
    }

    /// Whether tasks of a definition may wait behind slots, blocking ones if they have a thread soon.
    pub(super) fn ahead(&self) -> impl Fn(usize) -> Ahead {
        let (takes, threads) = (self.takes(), self.threads());
        move |definition| {
            let Takes { quick_ns, blocking } = takes(self.shared.registry.definition(definition));
            match quick_ns {
                Some(_) if !blocking || threads.any() => Ahead::Quick,
                _ if blocking => Ahead::ButOthers,
                _ => Ahead::Never,
            }
        }
    }

    /// Tells of a definition what its attempts take, and how long if they may wait behind slots, and
    /// others behind them: that is known, and a worker that is full of them frees a slot soon. Blocking
    /// ones keep a thread of the pool instead.
    fn takes(&self) -> impl Fn(&Definition) -> Takes + use<S> {
        let (quick_most_ns, long_ns) = (self.quick_most_ns(), self.long_ns());
        move |definition| {
            let blocking = definition.blocking;
            let most_ns = if blocking { long_ns } else { quick_most_ns };
            let lasts_ns = definition.service.ns().map(NonZeroU64::get);
            Takes { quick_ns: lasts_ns.filter(|lasts_ns| *lasts_ns <= most_ns), blocking }
        }
    }

    /// This shard's part of the threads that come free in the time that is covered: the others may
    /// claim at the same time.
    fn threads(&self) -> Threads {
        self.shared.pool.within(self.covered_ns()).share(self.shared.present().count())
    }

    /// How long attempts take at most that may wait behind slots.
    fn quick_most_ns(&self) -> u64 {
        let turnaround_ns = self.turnaround_ns();
        let slots = self.shared.settings.workers.concurrency as u64;
        let soon_ns = turnaround_ns.saturating_mul(2).max(FREES_WITHIN.as_nanos() as u64);
        soon_ns.saturating_mul(slots).min(self.long_ns())
    }

    /// How long attempts take at most that may wait behind slots, however many there are.
    fn long_ns(&self) -> u64 {
        self.turnaround_ns().saturating_mul(LONG_TURNAROUNDS).max(LONG.as_nanos() as u64)
    }

    /// How long it takes from the end of an attempt until the next one is with its worker, in
    /// nanoseconds.
    fn turnaround_ns(&self) -> u64 {
        let turnaround = self.commit_time() + self.commit.most() + HANDING_OVER;
        u64::try_from(turnaround.as_nanos()).unwrap_or(u64::MAX)
    }

    /// For how long the slots are to have enough behind them, in nanoseconds: for a turnaround, and for
    /// a stall of the disk.
    fn covered_ns(&self) -> u64 {
        self.turnaround_ns().max(STALL.as_nanos() as u64)
    }

    /// How long a batch takes of late, at most a second.
    pub(super) fn commit_time(&self) -> Duration {
        Duration::from_secs_f64(self.commit.commit_s.get().unwrap_or(0.0).clamp(0.0, 1.0))
    }

    /// What may be claimed ahead.
    ///
    /// Where results are delivered, only as many as keep the deliveries within a part of their
    /// credits: a result that finds none costs a read and a write more, and a queue that only runs
    /// tasks would never catch up. Targets that take nothing at all hold up nobody.
    fn behind(&self) -> Behind {
        let covered_ns = self.covered_ns();
        let some_wait = self.store.as_ref().is_some_and(|store| store.outlook().undelivered);
        let delivering = self.ledger.delivering().len();
        let idle = delivering == 0 && !some_wait;
        if idle || self.delivered_at.elapsed() > LAGS_FOR {
            return Behind { covered_ns, max: usize::MAX };
        }
        let under_way = delivering + self.ledger.attempts().len();
        let room = (self.shared.settings.delivery.in_flight / 2).saturating_sub(under_way);
        Behind { covered_ns, max: if some_wait { 0 } else { room } }
    }

    /// What the store may claim against these credits.
    pub(super) fn budget(&self, grant: Option<&Grant>) -> ClaimBudget {
        let Some(grant) = grant else { return ClaimBudget::default() };
        let queues = grant.queues();
        if grant.is_alone() {
            return ClaimBudget { suspect: true, queues, ..ClaimBudget::default() };
        }
        let definitions = self.shared.registry.definitions();
        let takes = self.takes();
        ClaimBudget {
            slots: grant.slots(),
            prefetch: grant.places_behind(),
            takes: definitions.iter().map(|definition| takes(definition)).collect(),
            // what all slots get through in that time
            behind_ns: self.covered_ns().saturating_mul(self.shared.slots.all() as u64),
            threads: self.threads(),
            queues,
            passing: grant.passing().to_vec(),
            suspect: false,
        }
    }

    /// Hands claimed tasks to workers. Those that can't run end here.
    pub(super) fn hand_out(&mut self, claims: Vec<Claim>, grant: Option<Grant>, now: Timestamp) {
        let Some(mut grant) = grant else { return };
        grant.claimed(claims.iter().map(|claim| claim.rank));
        let alone = grant.run_alone();
        let mut runs: Vec<Vec<Arc<Attempt>>> = vec![Vec::new(); self.shared.workers.len()];
        let mut stillborn = Vec::new();
        let mut assigned = false;
        let (mut blocking, mut blocking_ns) = (0, 0);
        for claim in claims {
            let attempt = self.attempt(claim, now);
            let (mut attempt, prefetched) = match attempt {
                (Ok(attempt), prefetched) => (attempt, prefetched),
                (Err(done), _) => {
                    stillborn.push(done);
                    continue;
                }
            };
            let slot_ns = attempt.slot_ns();
            let worker = grant.assign(prefetched, slot_ns);
            let Some(worker) = worker.or_else(|| grant.assign(!prefetched, slot_ns)) else {
                debug_assert!(false, "every claim has a credit");
                continue;
            };
            if let Some(thread_ns) = attempt.thread_ns() {
                blocking += 1;
                blocking_ns += thread_ns;
            }
            assigned = true;
            grant.assign_place(attempt.queue);
            if alone.is_some() {
                let (task, name) = (attempt.id, &attempt.definition.name);
                let crashes = attempt.counters.crashes;
                tracing::warn!(%task, %name, crashes, "a task runs alone: the process died with it");
            }
            attempt.worker = worker.into();
            attempt.alone = alone;
            runs[worker].push(Arc::new(attempt));
        }
        if blocking > 0 {
            self.shared.pool.add_claimed(blocking, blocking_ns);
        }
        self.shared.wake(grant.give_back(assigned));
        {
            let mut attempts = self.ledger.attempts();
            for attempt in runs.iter().flatten() {
                attempts.insert(attempt.id.sequence(), attempt.clone());
            }
            for done in &stillborn {
                attempts.insert(done.attempt.id.sequence(), done.attempt.clone());
            }
        }
        if !stillborn.is_empty() {
            let parcel = self.ledger.finishes.post(FinishBatch { done: stillborn });
            self.inbox.finishes.push(parcel);
        }
        for (worker, run) in runs.into_iter().enumerate().filter(|(_, run)| !run.is_empty()) {
            let ledger = &self.shared.workers[worker];
            ledger.link.send(Run(ledger.runs.post(Once::new(run))));
        }
    }

    /// Makes an attempt of a claim, or its end if it can't run.
    fn attempt(&self, claim: Claim, now: Timestamp) -> (Result<Attempt, Done>, bool) {
        let definition = self.shared.registry.definition(claim.definition).clone();
        let failure = |kind, message: &str| Err(TaskFailure::new(kind, message));
        let input = match claim.input {
            ClaimInput::Encoded(encoded) => Ok(Input::Encoded(encoded.into())),
            ClaimInput::Cached => {
                let cached = self.ledger.cached().get(&claim.id.sequence()).cloned();
                match cached {
                    Some(input) => Ok(Input::Cached(Some(input))),
                    None => failure(
                        FailureKind::LostArguments,
                        "the arguments were kept in memory, and the process has ended since",
                    ),
                }
            }
            ClaimInput::Parent(record) => {
                let registry = &self.shared.registry;
                let result = record.and_then(|record| {
                    TaskResult::of_record(&record, registry.get(&record.name).cloned())
                });
                match result {
                    Some(result) => Ok(Input::Parent(result)),
                    None => failure(
                        FailureKind::LostArguments,
                        "the record of the task that this callback reports is gone",
                    ),
                }
            }
            ClaimInput::Corrupt => {
                failure(FailureKind::Corrupt, "the stored row doesn't match its checksum")
            }
        };
        let (input, failure) = match input {
            Ok(input) => (input, None),
            Err(failure) => (Input::Cached(None), Some(failure)),
        };
        let overrides = claim.overrides.as_deref().copied().unwrap_or_default();
        let attempt = Attempt {
            lasts_ns: definition.service.ns().map_or(UNKNOWN_NS, NonZeroU64::get),
            id: claim.id,
            counters: claim.counters,
            priority: claim.priority,
            rank: claim.rank,
            submitted_at: claim.submitted_at,
            retry: retry_policy(&definition, &overrides, &self.shared.settings),
            timeout: overrides.timeout.or(definition.options.timeout).or(self
                .shared
                .settings
                .tasks
                .timeout),
            definition,
            input,
            callbacks: claim.callbacks,
            volatile: claim.volatile,
            parent: claim.parent,
            kind: claim.kind,
            queue: claim.queue,
            key: claim.key,
            cancel: crate::attempt::CancelToken::new(),
            index: claim.definition,
            worker: 0.into(),
            alone: None,
            cancel_requested: false.into(),
            overdue: false.into(),
        };
        match failure {
            None => (Ok(attempt), claim.prefetched),
            Some(failure) => {
                let end = AttemptEnd::Failed { failure, retry_in: None };
                let attempt = Arc::new(attempt);
                let done = Done { attempt, end: Some(end), started_at: now, ended_at: now };
                (Err(done), claim.prefetched)
            }
        }
    }
}

/// The submission's policy, else its definition's, else the queue's.
fn retry_policy(
    definition: &Definition,
    overrides: &Overrides,
    settings: &Settings,
) -> RetryPolicy {
    let options = &definition.options;
    let tasks = &settings.tasks;
    let backoff = overrides.backoff.or(options.backoff);
    let (backoff_min, backoff_max) = backoff.unwrap_or((tasks.backoff_min, tasks.backoff_max));
    RetryPolicy {
        max_attempts: overrides.max_attempts.or(options.max_attempts).unwrap_or(tasks.max_attempts),
        backoff_min,
        backoff_max,
    }
}
