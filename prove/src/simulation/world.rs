//! The lives of a queue, one after the other on the same files, step by step.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Panics, Point, Simulation};
use message_queue_sqlite::{Clock, TaskRecord, Timestamp};
use message_queue_sqlite_faults::{Faults, File, Operation, Plan as Fault};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::sleep;
use tracing_subscriber::filter::LevelFilter;

use super::client::{Client, QUEUES, records};
use super::known::Known;
use super::model::{KEEP, Model};
use super::tasks::{Kind, Plan};
use crate::case::{Case, Failure};
use crate::scene::{self, Called, START, harness};

const WORKERS: usize = 2;
const CONCURRENCY: usize = 2;
const HOUR: Duration = Duration::from_secs(3_600);

/// How a life of the queue ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything is dropped where it stands.
    Crash,
    /// There was none: the start failed.
    NoStart,
    Shutdown,
    /// A shutdown that couldn't close all files in order: what their shards couldn't store is gone, as
    /// after a crash.
    Unclosed,
    /// All steps are done, and nothing is left to do.
    Over,
}

/// A queue's files, and what is known of them.
pub(crate) struct World {
    random: fastrand::Rng,
    dir: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) known: Arc<Known>,
    pub(crate) model: Arc<Model>,
    panics: Panics,
    faults: Faults,
    simulation: Simulation,
    steps: u64,
    /// After so many steps the records are compared with what clients know.
    check_every: u64,
    /// Nothing fails or is slow on purpose, and nothing did a short while ago.
    calm: bool,
    limited: bool,
    /// Nothing fails and nothing ends in between, and the order is watched.
    ordered: bool,
    pub(crate) crashes: u64,
    pub(crate) failed_starts: u64,
    pub(crate) restarts: u64,
    pub(crate) injected: u64,
    settings: Settings,
}

/// With the variable PROVE_TRACE, prints the events of the queue between those of the case.
pub(crate) fn print_events() {
    static ONCE: Once = Once::new();
    if std::env::var_os("PROVE_TRACE").is_some() {
        ONCE.call_once(|| {
            let events = tracing_subscriber::fmt().without_time().with_ansi(false);
            events.with_max_level(LevelFilter::DEBUG).init();
        });
    }
}

impl World {
    /// Within the runtime whose clock it goes by.
    pub(crate) fn new(case: &Case, dir: &Path) -> Self {
        let mut random = case.random(1);
        let simulation = Simulation::begin(Timestamp::from_micros(START), case.seed);
        let clock = simulation.clock();
        let mut settings = scene::settings(1 + random.usize(..2));
        settings.workers.count = Some(WORKERS);
        settings.workers.concurrency = CONCURRENCY;
        settings.workers.prefetch = random.usize(..9);
        settings.limits.window = [2, 8, 1_000][random.usize(..3)];
        settings.limits.batch = [2, 5, 100][random.usize(..3)];
        settings.tasks.max_crashes = if random.bool() { 3 } else { 100 };
        settings.retention.results = KEEP;
        settings.retention.dead = KEEP * 3;
        if random.u8(..4) > 0 {
            settings.storage.durability = message_queue_sqlite::settings::Durability::Normal;
        }
        World {
            faults: Faults::below(dir),
            panics: Panics::in_directory(&dir.join("files")),
            dir: dir.join("files"),
            known: Known::new(clock.clone(), WORKERS * CONCURRENCY, settings.tasks.max_crashes),
            model: Arc::default(),
            random,
            clock,
            simulation,
            settings,
            steps: 0,
            // all that is under way gets on while they are read: with that after each step, less meets
            check_every: if case.seed.is_multiple_of(2) { 1 } else { 25 },
            calm: true,
            limited: false,
            ordered: false,
            crashes: 0,
            failed_starts: 0,
            restarts: 0,
            injected: 0,
        }
    }

    /// One with a single slot, in which nothing fails: attempts must begin in order.
    pub(crate) fn in_order(case: &Case, dir: &Path) -> Self {
        let mut world = World::new(case, dir);
        world.ordered = true;
        world.settings.shards.count = Some(1);
        world.settings.workers.count = Some(1);
        world.settings.workers.concurrency = 1;
        world.settings.workers.prefetch = 0;
        let max_crashes = world.settings.tasks.max_crashes;
        world.known = Known::new(world.clock.clone(), 1, max_crashes);
        world.known.watch_order();
        world
    }

    /// Lives through so many steps, and lets everything end.
    pub(crate) fn run(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        steps: u64,
    ) -> Result<(), Failure> {
        loop {
            let local = LocalSet::new();
            let end = local.block_on(runtime, self.live(steps));
            // what a crash leaves: whatever was under way is gone
            drop(local);
            self.faults.heal();
            self.model.forget_waiters();
            match end? {
                End::Crash => {
                    self.crashes += 1;
                    self.known.crash();
                }
                End::NoStart => {
                    self.failed_starts += 1;
                    // it may have claimed before it failed
                    self.known.crash();
                }
                End::Shutdown => self.restarts += 1,
                End::Unclosed => {
                    self.restarts += 1;
                    self.known.crash();
                }
                End::Over => return self.known.check(),
            }
        }
    }

    async fn start(&self) -> Result<Queue, Error> {
        let builder = scene::builder(self.settings.clone(), &self.dir, Called::nobody());
        let builder = builder.discover("prove::simulation").data(self.known.clone());
        builder.clock(self.clock.clone()).start().await
    }

    /// Starts a life; `None` if that failed, as it may when something is to panic or to fail.
    async fn client(&mut self) -> Result<Option<Client>, Failure> {
        match self.start().await {
            Ok(queue) => {
                self.known.trace(("started", queue.recovery()));
                let (known, model) = (self.known.clone(), self.model.clone());
                Ok(Some(Client { queue, known, model }))
            }
            Err(error) if self.calm => Err(Failure::new("stuck", format!("no start: {error:?}"))),
            Err(_) => {
                self.calm_down();
                Ok(None)
            }
        }
    }

    /// A life of the queue.
    async fn live(&mut self, steps: u64) -> Result<End, Failure> {
        let Some(client) = self.client().await? else { return Ok(End::NoStart) };
        while self.steps < steps {
            self.steps += 1;
            if let Some(end) = self.step(&client).await? {
                return Ok(end);
            }
            self.known.check()?;
            self.model.check_answers(self.known.now())?;
            if self.steps.is_multiple_of(self.check_every) {
                self.check(&client, false).await?;
            }
        }
        self.drain(&client).await?;
        match self.shut_down(client, HOUR).await? {
            End::Shutdown => Ok(End::Over),
            end => Err(Failure::new("stuck", format!("the last life ended as {end:?}"))),
        }
    }

    async fn step(&mut self, client: &Client) -> Result<Option<End>, Failure> {
        let id = self.any_id();
        let client = client.clone();
        let choice = match self.random.u32(..1_000) {
            555..645 if self.ordered => 645,
            // where nothing is kept for days, they only take time
            970.. if self.ordered => 900,
            choice => choice,
        };
        match choice {
            0..330 => {
                let (plan, reports) = self.plan(true);
                spawn_local(client.submit(plan, reports));
            }
            330..390 => self.submit_bulk(client),
            390..430 => drop(id.map(|id| spawn_local(client.cancel(id)))),
            430..470 => drop(id.map(|id| spawn_local(client.redrive(id)))),
            470..520 => drop(id.map(|id| spawn_local(client.look_up(id)))),
            520..545 => {
                let (index, pauses) = (self.random.u8(..2), self.random.u8(..3) == 0);
                spawn_local(client.pause(index, pauses));
            }
            545..555 => {
                self.limited = self.random.bool();
                let limit = self.limited.then(|| self.random.usize(1..3));
                drop(client.limit(1, limit).await);
            }
            555..580 => self.inject_panic(),
            580..600 => self.inject_fault(),
            600..620 => {
                self.faults.heal();
                let most = if self.random.bool() { self.random.u64(..400) } else { 0 };
                self.simulation.slow_commits(Duration::from_millis(most));
                self.calm &= most == 0;
            }
            620..628 => return Ok(Some(End::Crash)),
            628..632 => {
                // crashes in the middle of its shutdown
                let queue = client.queue.clone();
                spawn_local(async move { queue.shutdown(HOUR).await });
                self.turn(30).await;
                return Ok(Some(End::Crash));
            }
            632..640 => {
                let deadline = Duration::from_millis(self.random.u64(..5_000));
                return self.shut_down(client, deadline).await.map(Some);
            }
            640..645 => self.open_again().await?,
            645..900 => sleep(Duration::from_millis(self.random.u64(..100))).await,
            choice => {
                let time = match choice {
                    900..970 => Duration::from_secs(self.random.u64(11..60)),
                    970..995 => HOUR.mul_f64(self.random.f64() * 3.0),
                    _ => HOUR * self.random.u32(24..72),
                };
                self.rest(&client, time).await?;
            }
        }
        let turns = self.random.u32(..12);
        self.turn(turns).await;
        Ok(None)
    }

    /// Lets others run.
    async fn turn(&mut self, most: u32) {
        for _ in 0..self.random.u32(..=most) {
            yield_now().await;
        }
    }

    fn any_id(&mut self) -> Option<TaskId> {
        let ids = self.model.stored();
        // mostly one of the latest
        let from = if self.random.bool() { ids.len().saturating_sub(10) } else { 0 };
        (!ids.is_empty()).then(|| ids[self.random.usize(from..ids.len())])
    }

    fn plan(&mut self, keyed: bool) -> (Plan, bool) {
        let random = &mut self.random;
        let kind = match random.u32(..20) {
            0..3 => Kind::Recovers(random.u32(1..4)),
            3 => Kind::Panics(1),
            4 => Kind::Fails,
            5 => Kind::FailsForGood,
            6 => Kind::Snoozes(random.u32(1..3)),
            7..10 => Kind::Takes(random.u64(1..300)),
            10 => Kind::Takes(random.u64(1_000..60_000)),
            _ => Kind::Succeeds,
        };
        let delay = match random.u32(..10) {
            0 => random.i64(1..5_000_000),
            1 if self.ordered => random.i64(1..600_000_000),
            1 => random.i64(1..86_400_000_000),
            _ => 0,
        };
        let due = if delay > 0 { self.known.now() + delay } else { 0 };
        let key = (keyed && random.u8(..4) == 0).then(|| random.u8(..3));
        let queue = (random.u8(..3) == 0).then(|| random.u8(..2));
        let priority = random.i16(-2..3);
        (Plan { kind, due, key, queue, priority }, random.u8(..3) == 0)
    }

    fn submit_bulk(&mut self, client: Client) {
        let tasks = (0..self.random.usize(2..8)).map(|_| {
            let (plan, reports) = self.plan(false);
            client.prepare(plan, reports)
        });
        let tasks = tasks.collect();
        spawn_local(client.submit_all(tasks));
    }

    fn inject_panic(&mut self) {
        self.injected += self.panics.fired();
        let point = Point::ALL[self.random.usize(..Point::ALL.len())];
        let times = if self.random.u8(..8) == 0 { 8 } else { 1 };
        self.panics.arm(point, self.random.u64(1..4), times);
        self.calm = false;
    }

    fn inject_fault(&mut self) {
        let operation =
            [Operation::Write, Operation::Sync, Operation::Read][self.random.usize(..3)];
        let mut fault = match self.random.u8(..3) {
            0 => Fault::disk_full(),
            1 => Fault::broken_disk(),
            _ => Fault::fail(operation),
        };
        fault = fault.on([File::Log, File::Database][self.random.usize(..2)]);
        fault = fault.at(self.random.u64(1..8));
        self.faults.arm(if self.random.u8(..4) == 0 { fault.for_ever() } else { fault });
        self.calm = false;
    }

    /// A second owner is refused.
    async fn open_again(&self) -> Result<(), Failure> {
        let builder = scene::builder(self.settings.clone(), &self.dir, Called::nobody());
        match builder.start().await {
            Err(Error::Locked { .. }) => Ok(()),
            other => Err(Failure::new("owners", format!("a second start: {other:?}"))),
        }
    }

    async fn shut_down(&mut self, client: Client, deadline: Duration) -> Result<End, Failure> {
        let report = client.queue.shutdown(deadline).await.map_err(harness)?;
        self.known.trace(("shut down", &report));
        if self.known.running() > 0 {
            return Err(Failure::new("stuck", format!("attempts go on after {report:?}")));
        }
        Ok(if report.unclosed.is_empty() { End::Shutdown } else { End::Unclosed })
    }

    /// Lets time pass and, if nothing was to fail, looks that no task was left waiting.
    async fn rest(&mut self, client: &Client, time: Duration) -> Result<(), Failure> {
        // days of a disk that fails are many minutes of opening files again
        sleep(if self.calm { time } else { time.min(HOUR / 10) }).await;
        let was_calm = self.calm;
        self.calm_down();
        if was_calm && !self.limited && self.known.running() == 0 {
            self.look_for_forgotten(client).await?;
        }
        Ok(())
    }

    /// From now on nothing fails, and nothing is slow.
    fn calm_down(&mut self) {
        self.calm = true;
        self.injected += self.panics.fired();
        self.panics.arm(Point::ShardWake, 1, 0);
        self.faults.heal();
        self.simulation.slow_commits(Duration::ZERO);
    }

    /// With every slot free, a task that may run doesn't wait.
    async fn look_for_forgotten(&mut self, client: &Client) -> Result<(), Failure> {
        let Some(records) = records(&client.queue).await else { return Ok(()) };
        let now = self.known.now();
        let idle = |record: &&TaskRecord| {
            let due = record.due_at.is_none_or(|due| due.as_micros() + 1_000_000 < now);
            let old = record.submitted_at.as_micros() + 1_000_000 < now;
            let paused = (0..2_u8).any(|queue| {
                self.known.is_paused(queue) && *record.queue == *QUEUES[usize::from(queue)]
            });
            let waits = record.status == TaskStatus::NotStarted;
            waits && due && old && !paused && record.key.is_none()
        };
        let running = records.values().any(|record| record.status == TaskStatus::Running);
        match records.values().find(idle) {
            Some(record) if !running && self.known.running() == 0 => {
                Err(Failure::new("idle", format!("at {now}, with free slots, waits {record:?}")))
            }
            _ => Ok(()),
        }
    }

    async fn check(&self, client: &Client, ended: bool) -> Result<(), Failure> {
        // what comes meanwhile may be in the part that has been read
        let acknowledged = self.model.stored();
        match records(&client.queue).await {
            Some(records) => {
                let mut missing = acknowledged.iter().filter(|id| !records.contains_key(id));
                let now = self.clock.now();
                missing.try_for_each(|id| self.model.check_missing(*id, &self.known, now))?;
                self.model.check(&records, &self.known, ended)
            }
            None if ended => Err(Failure::new("stuck", "the records can't be read")),
            None => Ok(()),
        }
    }

    /// Lets everything end, with nothing that fails any more.
    async fn drain(&mut self, client: &Client) -> Result<(), Failure> {
        self.calm_down();
        for (index, name) in QUEUES.into_iter().enumerate() {
            self.known.pause(index as u8, false);
            client.queue.resume_queue(name).await.map_err(harness)?;
            client.limit(index as u8, None).await.map_err(harness)?;
        }
        let open = [TaskStatus::NotStarted, TaskStatus::Running, TaskStatus::Callbacking];
        for _ in 0..24 * 6 {
            sleep(HOUR).await;
            self.known.check()?;
            let counts = client.queue.counts().await.unwrap_or_default();
            let left = |status| counts.get(status).is_none_or(|tasks| *tasks > 0);
            if open.iter().any(left) {
                continue;
            }
            if let Some(what) = self.model.first_waiter() {
                return Err(Failure::new("hangs", format!("nobody has told {what}")));
            }
            return self.check(client, true).await;
        }
        let counts = client.queue.counts().await;
        let records = records(&client.queue).await.unwrap_or_default();
        let first = records.values().find(|record| open.contains(&record.status));
        Err(Failure::new("stuck", format!("after six days: {counts:?}, {first:?}")))
    }
}
