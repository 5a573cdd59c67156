//! Stale attempts' ends, thrown at a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::codec::Codec;
use crate::lifecycle::{Next, Transition};
use crate::order::Ageing;
use crate::queues::{QueueIndex, Queues};
use crate::record::{FailureKind, Outcome, ShardId, TaskFailure, TaskId, TaskRecord, TaskStatus};
use crate::store::{
    Batch, Claim, ClaimBudget, DeliveryEnd, Directory, DirectoryOptions, Lookup, NewTask, OpenKind,
    OpenOptions, Settled, Settlement, ShardStore, SqliteStore, StoreOptions, open_shard,
    open_store,
};

/// What became of the stale ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fences {
    /// How many were thrown at the store: ends of attempts, and of deliveries.
    pub ends: u64,
    /// How many of these ends met a later attempt of their task that was running.
    pub ends_of_running: u64,
    /// See `ends`.
    pub deliveries: u64,
}

const START: i64 = 1_800_000_000_000_000;

const BYTES: u64 = 1 << 20;

/// A store and what is known of it.
struct World {
    directory: Option<Directory>,
    store: Option<SqliteStore>,
    random: fastrand::Rng,
    now: Timestamp,
    live: Vec<Claim>,
    /// Attempts that are over for the store: whatever they write is refused.
    stale: Vec<Claim>,
    /// Deliveries that are under way, and those that are over.
    delivering: Vec<(TaskId, u32)>,
    delivered: Vec<(TaskId, u32)>,
    failed: Vec<TaskId>,
    seen: Fences,
}

/// Lets a store in this empty directory live through so many random steps, with stale ends thrown at
/// it in between.
///
/// # Errors
///
/// One that wasn't refused, or that changed something.
pub fn throw_stale_ends(directory: &Path, seed: u64, steps: u64) -> Result<Fences, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let mut world = World {
            directory: None,
            store: None,
            random: fastrand::Rng::with_seed(seed),
            now: Timestamp::from_micros(START),
            live: Vec::new(),
            stale: Vec::new(),
            delivering: Vec::new(),
            delivered: Vec::new(),
            failed: Vec::new(),
            seen: Fences::default(),
        };
        world.open(directory)?;
        for _ in 0..steps {
            world.now = world.now.saturating_add(Duration::from_millis(world.random.u64(0..50)));
            world.step(directory).await?;
            world.throw().await?;
        }
        Ok(world.seen)
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl World {
    fn open(&mut self, path: &Path) -> Result<(), String> {
        // the old one first: it holds the lock
        self.store = None;
        self.directory = None;
        let options = DirectoryOptions { allow_network_filesystem: true, ballast_bytes: 0 };
        let directory = Directory::open(path, &options);
        let directory = directory.map_err(|failure| format!("{failure:?}"))?;
        directory.ensure_shards(1).map_err(text)?;
        let options = OpenOptions {
            synced_commits: false,
            busy_timeout: Duration::from_secs(1),
            cache_bytes: BYTES,
            wal_limit_bytes: 4 * BYTES,
            row_bytes_max: 4 * BYTES,
            quick_check: false,
        };
        let shard = ShardId(0);
        let opened = open_shard(&directory, shard, &options, OpenKind::First).map_err(text)?;
        let options = StoreOptions {
            clock: Clock::default(),
            syncs: true,
            names: vec![Arc::from("task")].into(),
            queue_of: vec![QueueIndex::DEFAULT].into(),
            queues: Queues::new(),
            subscribers: vec![Vec::new()].into(),
            ageing: Ageing::new(Duration::from_secs(60)),
            max_crashes: 1_000,
            window: 50,
            keep_results: Duration::from_secs(3_600),
            keep_dead: Duration::from_secs(3_600),
            sweep: Duration::from_secs(60),
        };
        let opened = open_store(opened, shard, options, self.now, OpenKind::First, None);
        self.store = Some(opened.map_err(text)?.0);
        self.directory = Some(directory);
        Ok(())
    }

    async fn apply(&mut self, batch: Batch) -> Result<Vec<Settled>, String> {
        let batch = Batch { now: self.now, ..batch };
        let store = self.store.as_mut().ok_or("the store is open")?;
        let result = store.apply(&batch).await.map_err(|error| format!("{error:?}"))?;
        self.live.extend(result.claims);
        for record in result.deliver {
            self.delivering.push((record.id, record.counters.claim_no));
        }
        for (settlement, settled) in batch.settlements.iter().zip(&result.settled) {
            if let Settled::Recorded { deliver: true } = settled {
                self.delivering.push((settlement.id, settlement.claim_no));
            }
        }
        Ok(result.settled)
    }

    /// Something that a store lives through.
    async fn step(&mut self, path: &Path) -> Result<(), String> {
        match self.random.u8(..12) {
            0..=3 => {
                let tasks = 1 + self.random.usize(..3);
                let submissions = (0..tasks).map(|_| self.new_task()).collect();
                let claim = ClaimBudget { slots: self.random.usize(..4), ..Default::default() };
                self.apply(Batch { submissions, claim, ..Batch::default() }).await?;
            }
            4 => {
                let claim = ClaimBudget { slots: 3, ..ClaimBudget::default() };
                self.apply(Batch { claim, ..Batch::default() }).await?;
            }
            5..=8 if !self.live.is_empty() => {
                let claim = self.live.swap_remove(self.random.usize(..self.live.len()));
                let settlement = self.end_of(&claim);
                if settlement.transition.next == Next::Ended(Outcome::Failed) {
                    self.failed.push(claim.id);
                }
                let settlements = vec![settlement];
                let settled = self.apply(Batch { settlements, ..Batch::default() }).await?;
                if settled == [Settled::Stale] {
                    return Err(format!("the end of {} was refused, and it ran", claim.id));
                }
                self.stale.push(claim);
            }
            9 if !self.delivering.is_empty() => {
                let index = self.random.usize(..self.delivering.len());
                let (id, claim_no) = self.delivering.swap_remove(index);
                let deliveries = vec![DeliveryEnd { id, claim_no, dead: None }];
                self.apply(Batch { deliveries, ..Batch::default() }).await?;
                self.delivered.push((id, claim_no));
            }
            10 if !self.failed.is_empty() => {
                let id = self.failed.swap_remove(self.random.usize(..self.failed.len()));
                self.apply(Batch { redrives: vec![id], ..Batch::default() }).await?;
            }
            11 if self.random.u8(..10) == 0 => {
                self.open(path)?;
                self.stale.append(&mut self.live);
                self.delivered.append(&mut self.delivering);
            }
            _ => {}
        }
        Ok(())
    }

    /// Throws a stale end, if there is one, and looks that it changes nothing.
    async fn throw(&mut self) -> Result<(), String> {
        // what happens by itself at this time has happened then
        self.apply(Batch { deliver: 3, ..Batch::default() }).await?;
        if let Some(claim) = self.stale_claim() {
            let runs_again = self.runs_again(&claim).await?;
            let settlement = self.end_of(&claim);
            let before = self.look(claim.id).await?;
            let settlements = vec![settlement.clone()];
            let settled = self.apply(Batch { settlements, ..Batch::default() }).await?;
            if settled != [Settled::Stale] || self.look(claim.id).await? != before {
                return Err(format!("a stale end was taken: {settlement:?}, of {before}"));
            }
            self.seen.ends += 1;
            self.seen.ends_of_running += u64::from(runs_again);
        }
        if !self.delivered.is_empty() {
            let (id, claim_no) = self.delivered[self.random.usize(..self.delivered.len())];
            let before = self.look(id).await?;
            let deliveries = vec![DeliveryEnd { id, claim_no, dead: None }];
            self.apply(Batch { deliveries, ..Batch::default() }).await?;
            if self.look(id).await? != before {
                return Err(format!("a stale delivery was taken: claim {claim_no} of {before}"));
            }
            self.seen.deliveries += 1;
        }
        Ok(())
    }

    /// An attempt that is over, every second time of a task that has another one under way.
    fn stale_claim(&mut self) -> Option<Claim> {
        let again = |claim: &&Claim| self.live.iter().any(|live| live.id == claim.id);
        let again: Vec<&Claim> = self.stale.iter().filter(again).collect();
        let from = if self.random.bool() { again } else { Vec::new() };
        let from = if from.is_empty() { self.stale.iter().collect() } else { from };
        self.random.choice(from).cloned()
    }

    /// Whether a later attempt of the task is running, as the store has it.
    async fn runs_again(&mut self, claim: &Claim) -> Result<bool, String> {
        let record = self.record(claim.id).await?;
        let later = record.counters.claim_no > claim.counters.claim_no;
        Ok(later && record.status == TaskStatus::Running)
    }

    async fn look(&mut self, id: TaskId) -> Result<String, String> {
        self.record(id).await.map(|record| format!("{record:?}"))
    }

    async fn record(&mut self, id: TaskId) -> Result<TaskRecord, String> {
        let store = self.store.as_mut().ok_or("the store is open")?;
        match store.get(id).await.map_err(text)? {
            Lookup::Found(record) => Ok(*record),
            Lookup::Gone | Lookup::Never => Err(format!("{id} is gone")),
        }
    }

    fn new_task(&mut self) -> NewTask {
        let payload: Arc<[u8]> = Arc::from(&self.random.u64(..).to_le_bytes()[..]);
        NewTask {
            id: None,
            definition: 0,
            queue: QueueIndex::DEFAULT,
            key: None,
            codec: Codec::default(),
            payload: Some(payload),
            priority: self.random.i16(-2..3),
            due_at: None,
            volatile: self.random.bool(),
            callbacks: None,
            overrides: None,
        }
    }

    /// One of the ends that an attempt can have: success, failure, a retry, a snooze, a release.
    fn end_of(&mut self, claim: &Claim) -> Settlement {
        let mut counters = claim.counters;
        let (next, failure) = match self.random.u8(..5) {
            0 | 1 => (Next::Ended(Outcome::Finished), None),
            2 => {
                counters.failures += 1;
                let failure = TaskFailure::new(FailureKind::Error, "so it is");
                (Next::Ended(Outcome::Failed), Some(failure))
            }
            3 => (Next::Back, None),
            _ => (Next::Again { at: self.now.saturating_add(Duration::from_millis(20)) }, None),
        };
        let finished = next == Next::Ended(Outcome::Finished);
        Settlement {
            id: claim.id,
            claim_no: claim.counters.claim_no,
            definition: claim.definition,
            kind: claim.kind,
            key: claim.key.clone(),
            priority: claim.priority,
            transition: Transition { next, counters, failure },
            output: finished.then(|| Arc::from(&b"output"[..])),
            started_at: self.now,
            ended_at: self.now,
            notify: claim.volatile,
            callbacks: claim.callbacks.clone(),
            parent: claim.parent,
        }
    }
}
