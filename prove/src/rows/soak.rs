//! P17: an hour in one process, with everything that a program does with a queue, and a look at what the
//! process holds.
//!
//! The process is a child whose allocator has one arena. glibc's has up to eight for each core, and
//! keeps what is free in each: threads that come and go, as with each restart, meet other arenas, and
//! what is resident creeps to many times what is in use, for hours, before it stays there. That would
//! hide a leak, and look like one.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::Actor;
use message_queue_sqlite::SubscriptionGuard;
use message_queue_sqlite::prelude::*;

use crate::case::{Case, Failure, Outcome, Seen};
use crate::child;
use crate::row::{Control, Goal, Row};
use crate::scene::{self, Called, LIMIT, block_on, harness, in_time, lock};

pub(crate) const SOAK: Row = Row {
    name: "P17",
    promise: "a process that runs for long doesn't grow",
    test: "an hour of submissions, failures, delays, keys, callbacks, cancellations, lookups, pauses, backups and restarts in one process",
    goals: &[Goal { what: "minutes", full: 60, tenth: Some(60) }],
    never: &[
        "memory that grows by 1 MB an hour",
        "file descriptors or threads more",
        "logs over their limit",
    ],
    case: |case| soak(case, ""),
    controls: &[
        Control {
            without: "the end of results (all are kept)",
            fails: "memory",
            within: 1,
            case: |case| soak(case, RESULTS),
        },
        Control {
            without: "the end of descriptors (one a second stays open)",
            fails: "descriptors",
            within: 1,
            case: |case| soak(case, DESCRIPTORS),
        },
    ],
    side_by_side: 1,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// So much of the time is warm-up.
const WARM_UP: u32 = 6;

const TICK: Duration = Duration::from_millis(20);
const PER_TICK: u64 = 10;

/// In ticks: a second, half a minute, a minute.
const LOOK_EVERY: u64 = 50;
const PAUSE_EVERY: u64 = 1_500;
const RESTART_EVERY: u64 = 3_000;

/// glibc's variable, and musl and others ignore it.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Where the child notes what it holds: a sample a line.
const SAMPLES: &str = "samples";

const WAL_LIMIT: u64 = 1 << 20;

/// What one batch can add to a log before it is folded back.
const BATCH: u64 = 1 << 20;

/// In bytes an hour.
const SLOPE: f64 = 1e6;
/// A few pages more or less are no slope.
const NOISE: f64 = 256.0 * 1_024.0;
/// In the minute of a control arm more than that is still warm-up.
const WARMING: f64 = 8.0 * 1_048_576.0;

/// What a control arm's child lets grow.
const RESULTS: &str = "results";
const DESCRIPTORS: &str = "descriptors";

/// What the process holds at a moment.
struct Sample {
    at: Duration,
    resident: u64,
    descriptors: u64,
    threads: u64,
    log: u64,
}

type Kept = Arc<Mutex<Vec<(TaskResult, Vec<u8>)>>>;

struct Soak<'c> {
    dir: &'c Path,
    queue: Queue,
    next: u64,
    ids: Vec<TaskId>,
    /// Results that nobody needs any more, made larger.
    kept: Option<Kept>,
    samples: File,
}

fn time(without: &str) -> Duration {
    if without.is_empty() { HOUR } else { HOUR / 60 }
}

fn soak(case: &Case, without: &str) -> Outcome {
    let log = case.scratch().join("log");
    let mut process = child::command("soak", case.scratch(), without)?;
    process.env(ARENAS, "1").stderr(File::create(&log).map_err(harness)?);
    let status = process.status().map_err(harness)?;
    if !status.success() {
        let said = fs::read_to_string(&log).map_err(harness)?;
        return Err(child::failure(status, &said, &["stuck"]));
    }
    let samples = fs::read_to_string(case.scratch().join(SAMPLES)).map_err(harness)?;
    let samples: Option<Vec<Sample>> = samples.lines().map(Sample::from_line).collect();
    let samples = samples.ok_or_else(|| harness("a sample that can't be read"))?;
    let time = time(without);
    let noise = if without.is_empty() { NOISE } else { WARMING };
    let figures = judge(&samples, time / WARM_UP, noise)?;
    let seen = Seen::default().count("minutes", time.as_secs() / 60);
    let seen = seen.count("samples", samples.len() as u64);
    Ok(figures.into_iter().fold(seen, |seen, (what, number)| seen.count(what, number)))
}

/// The process that works for an hour.
pub(super) fn child(dir: &Path) -> Result<(), Failure> {
    let without = child::without();
    block_on(async {
        let mut soak = Soak {
            dir,
            queue: start(dir).await?,
            next: 0,
            ids: Vec::new(),
            kept: (without == RESULTS).then(Kept::default),
            samples: File::create(dir.join(SAMPLES)).map_err(harness)?,
        };
        soak.work(time(&without), without == DESCRIPTORS).await?;
        in_time("stuck", "the shutdown", soak.queue.shutdown(LIMIT)).await?.map_err(harness)?;
        Ok(())
    })
}

async fn start(dir: &Path) -> Result<Queue, Failure> {
    let mut settings = scene::settings(2);
    settings.storage.wal_limit = WAL_LIMIT;
    // so many records that they fill the page caches however slow the machine is: else a pace that
    // rises fills them later
    settings.retention.results = Duration::from_secs(60);
    settings.retention.dead = Duration::from_secs(60);
    settings.retention.sweep = Duration::from_secs(5);
    let builder = scene::builder(settings, &dir.join("queue"), Called::nobody());
    in_time("stuck", "the start", builder.start()).await?.map_err(harness)
}

impl Soak<'_> {
    async fn work(&mut self, time: Duration, leaves_open: bool) -> Result<(), Failure> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut open = Vec::new();
        let mut subscription = Some(self.subscribe().await?);
        for tick in 1_u64.. {
            ticks.tick().await;
            if began.elapsed() >= time {
                break;
            }
            self.submit(tick).await?;
            if tick.is_multiple_of(LOOK_EVERY) {
                self.look(began.elapsed()).await?;
                if leaves_open {
                    open.push(File::open("/proc/self/statm").map_err(harness)?);
                }
            }
            if tick.is_multiple_of(PAUSE_EVERY) {
                self.pause_and_copy().await?;
            }
            if tick.is_multiple_of(RESTART_EVERY) {
                drop(subscription.take());
                self.restart().await?;
                subscription = Some(self.subscribe().await?);
            }
        }
        Ok(())
    }

    /// Hears of each end in memory.
    async fn subscribe(&self) -> Result<SubscriptionGuard, Failure> {
        let kept = self.kept.clone();
        let hear = move |result| {
            if let Some(kept) = &kept {
                lock(kept).push((result, vec![1; 1_024]));
            }
        };
        let listener = scene::Listener(hear).start().recipient();
        let subscribed = self.queue.subscribe::<scene::step::Task>(listener);
        subscribed.await.map_err(harness)
    }

    async fn submit(&mut self, tick: u64) -> Result<(), Failure> {
        let tasks = (0..PER_TICK).map(|_| {
            self.next += 1;
            scene::submission(self.next)
        });
        let tasks: Vec<_> = tasks.collect();
        if tick.is_multiple_of(2) {
            let handles = self.queue.submit_all(tasks).await.map_err(harness)?;
            self.ids = handles.iter().map(TaskHandle::id).collect();
            return Ok(());
        }
        for (task, number) in tasks.into_iter().zip(0_u64..) {
            let handle = self.queue.submit(task).await.map_err(harness)?;
            if number == 0 {
                in_time("stuck", "an end", handle.result()).await?.map_err(harness)?;
            }
        }
        Ok(())
    }

    /// Lookups and cancellations, and what the process holds.
    async fn look(&mut self, at: Duration) -> Result<(), Failure> {
        for id in self.ids.split_off(self.ids.len().min(5)) {
            self.queue.cancel(id).await.map_err(harness)?;
        }
        self.queue.counts().await.map_err(harness)?;
        self.queue.list(ListTasks::default()).await.map_err(harness)?;
        let sample = Sample::now(&self.dir.join("queue"), at)?;
        writeln!(self.samples, "{}", sample.to_line()).map_err(harness)
    }

    async fn pause_and_copy(&self) -> Result<(), Failure> {
        self.queue.pause_queue("default").await.map_err(harness)?;
        let copy = self.dir.join("copy");
        self.queue.backup(&copy).await.map_err(harness)?;
        fs::remove_dir_all(&copy).map_err(harness)?;
        self.queue.resume_queue("default").await.map_err(harness)?;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Failure> {
        in_time("stuck", "a shutdown", self.queue.shutdown(LIMIT)).await?.map_err(harness)?;
        self.queue = start(self.dir).await?;
        Ok(())
    }
}

impl Sample {
    fn now(dir: &Path, at: Duration) -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status").map_err(harness)?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            number.ok_or_else(|| harness(format!("the system doesn't tell {name}")))
        };
        let mut log = 0;
        for entry in fs::read_dir(dir).map_err(harness)? {
            let path = entry.map_err(harness)?.path();
            if path.extension().is_some_and(|extension| extension == "db-wal") {
                log = log.max(fs::metadata(&path).map_or(0, |found| found.len()));
            }
        }
        Ok(Sample {
            at,
            resident: of("VmRSS:")? * 1_024,
            descriptors: fs::read_dir("/proc/self/fd").map_err(harness)?.count() as u64,
            threads: of("Threads:")?,
            log,
        })
    }

    fn to_line(&self) -> String {
        let Sample { at, resident, descriptors, threads, log } = self;
        format!("{} {resident} {descriptors} {threads} {log}", at.as_millis())
    }

    fn from_line(line: &str) -> Option<Self> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let [at, resident, descriptors, threads, log] = numbers.ok()?[..] else { return None };
        Some(Sample { at: Duration::from_millis(at), resident, descriptors, threads, log })
    }
}

/// Compares what there was before with what there is in the end.
fn judge(
    samples: &[Sample],
    warm_up: Duration,
    noise: f64,
) -> Result<Vec<(&'static str, u64)>, Failure> {
    let warm: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= warm_up).collect();
    let part = warm.len() / 5;
    if part == 0 {
        return Err(harness("there are too few samples"));
    }
    let (first, last) = (&warm[..part], &warm[warm.len() - part..]);
    let median = |part: &[&Sample], of: fn(&Sample) -> u64| {
        let mut numbers: Vec<u64> = part.iter().map(|sample| of(sample)).collect();
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    };
    // what is free for a moment isn't there at another one, what leaks always is
    let resident = |part: &[&Sample]| part.iter().map(|sample| sample.resident).min().unwrap_or(0);
    let growth = resident(last) as f64 - resident(first) as f64;
    let hours = (last[0].at - first[0].at).as_secs_f64() / 3_600.0;
    if growth > noise && growth / hours > SLOPE {
        let what = format!("{growth} bytes more after {hours:.2} h: {} an hour", growth / hours);
        return Err(Failure::new("memory", what));
    }
    let flat = |kind, of: fn(&Sample) -> u64| {
        let (before, now) = (median(first, of), median(last, of));
        if now > before {
            return Err(Failure::new(kind, format!("{before} before, {now} in the end")));
        }
        Ok(now)
    };
    let descriptors = flat("descriptors", |sample| sample.descriptors)?;
    let threads = flat("threads", |sample| sample.threads)?;
    let log = samples.iter().map(|sample| sample.log).max().unwrap_or(0);
    if log > WAL_LIMIT + BATCH {
        return Err(Failure::new("log", format!("a log of {log} bytes, the limit is {WAL_LIMIT}")));
    }
    Ok(vec![
        ("resident KiB after the warm-up", resident(first) / 1_024),
        ("resident KiB in the end", resident(last) / 1_024),
        ("file descriptors", descriptors),
        ("threads", threads),
        ("KiB of the longest log", log / 1_024),
    ])
}
