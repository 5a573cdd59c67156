//! P13: a disk that is really full, and has space again, over and over. A child plays in a mount
//! namespace of its own, with a small file system in memory. Where that isn't allowed, a limit on the size
//! of files takes its place: a weaker test, as a commit that fails for it is of unknown outcome, and no
//! space can be kept for ends. What is counted says which one ran.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use message_queue_sqlite::TaskHandle;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::child;
use crate::image;
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, in_time};

/// The row, with the control arm of the disk that there is.
pub(crate) fn row() -> Row {
    let controls = if matches!(*DISK, Disk::FileSystem(_)) { FILE_SYSTEM } else { SIZE_LIMIT };
    Row { controls, ..FULL_DISK }
}

const FULL_DISK: Row = Row {
    name: "P13",
    promise: "a full disk refuses submissions, stores ends, and is left behind",
    test: "a file system of 8 MB, or a limit of file sizes, is filled and freed under a working queue",
    goals: &[Goal::new("cycles", 100)],
    never: &["acknowledged tasks lost", "ends that weren't stored", "queues that needed help"],
    case: |case| full_disk(case, ""),
    controls: &[],
    side_by_side: 2,
};

const FILE_SYSTEM: &[Control] = &[Control {
    without: "the reserve for ends",
    fails: "stuck",
    within: 1,
    case: |case| full_disk(case, "ballast"),
}];

const SIZE_LIMIT: &[Control] = &[Control {
    without: "the failure of a COMMIT",
    fails: "lost or stuck",
    within: 3,
    case: |case| {
        full_disk(case, "commit").map_err(|failure| match failure.kind {
            "lost" | "stuck" => Failure::new("lost or stuck", failure.what),
            _ => failure,
        })
    },
}];

const CYCLES: u64 = 5;

/// More than a full disk can still take, in bytes.
const SPACE: usize = 16 << 20;

const MOUNT: &str = "mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\"";

/// Else the first write over the limit ends the process.
const IGNORE: &str = "trap '' XFSZ; exec \"$@\"";

/// The variables that tell a child its seed, and what its disk is. The last one can be set to `limit` by
/// hand, too.
const SEED: &str = "PROVE_SEED";
const DISK_IS: &str = "PROVE_DISK";

/// What can be filled here.
enum Disk {
    /// One that is mounted in a namespace which `unshare` makes with these arguments.
    FileSystem(&'static [&'static str]),
    /// A limit on the size of files.
    SizeLimit,
}

static DISK: LazyLock<Disk> = LazyLock::new(|| {
    let spaces: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    let may_mount = |space: &&[&str]| {
        let Ok(place) = tempfile::tempdir() else { return false };
        let mut tried = Command::new("unshare");
        tried.args(*space).args(["sh", "-c", MOUNT]).arg(place.path()).arg("true");
        tried.output().is_ok_and(|tried| tried.status.success())
    };
    let by_hand = std::env::var(DISK_IS).is_ok_and(|disk| disk == "limit");
    let space = spaces.into_iter().find(|space| !by_hand && may_mount(space));
    space.map_or(Disk::SizeLimit, Disk::FileSystem)
});

/// Runs until the gate lets it end; its result is so large.
#[task(name = "prove.run")]
async fn run(number: usize, size: usize, gate: Data<Arc<Semaphore>>) -> Result<String, TaskError> {
    gate.acquire().await?.forget();
    Ok(format!("{number:0size$}"))
}

/// A task that isn't run during the test.
#[task(name = "prove.bring")]
async fn bring(text: String) {
    drop(text);
}

fn full_disk(case: &Case, without: &str) -> CaseOutcome {
    let (disk, log) = (case.scratch().join("disk"), case.scratch().join("log"));
    fs::create_dir(&disk).map_err(harness)?;
    let (mut child, kind, cycles) = match &*DISK {
        Disk::FileSystem(space) => {
            let mut child = Command::new("unshare");
            child.args(*space).args(["sh", "-c", MOUNT]).arg(&disk);
            (child, "file system", "cycles on a file system")
        }
        Disk::SizeLimit => {
            let mut child = Command::new("sh");
            child.args(["-c", IGNORE, "sh"]);
            (child, "limit", "cycles at a limit of file sizes")
        }
    };
    child.arg(std::env::current_exe().map_err(harness)?).args(["child", "full disk"]).arg(&disk);
    child.env(child::WITHOUT, without).env(SEED, case.seed.to_string()).env(DISK_IS, kind);
    let output = File::create(&log).map_err(harness)?;
    let status = child.stdout(Stdio::null()).stderr(output).status().map_err(harness)?;
    let said = fs::read_to_string(&log).map_err(harness)?;
    if status.success() {
        let ends = said.lines().rev().find_map(|line| line.strip_prefix("ends stored: "));
        let ends = ends.and_then(|ends| ends.parse().ok()).ok_or_else(|| harness(&said))?;
        let seen = Seen::default().count("cycles", CYCLES).count(cycles, CYCLES);
        return Ok(seen.count("tasks whose end was stored", ends));
    }
    Err(child::failure(status, &said, &["stuck", "lost", "corrupt", "untyped"]))
}

/// What a child does.
#[expect(clippy::print_stderr, reason = "a child says what it has counted")]
pub(crate) fn child(disk: &Path) -> Result<(), Failure> {
    let without = child::without();
    let _without = match without.as_str() {
        "ballast" => Some(Without::the(Safeguard::Ballast)),
        "commit" => Some(Without::the(Safeguard::FailedCommit)),
        _ => None,
    };
    let seed = std::env::var(SEED).map_err(harness)?.parse().map_err(harness)?;
    let mut scene = Scene {
        disk: disk.to_path_buf(),
        limits: std::env::var(DISK_IS).is_ok_and(|disk| disk == "limit"),
        before: getrlimit(Resource::Fsize),
        gate: Arc::new(Semaphore::new(0)),
        random: fastrand::Rng::with_seed(seed),
        waiting: Vec::new(),
        ended: Vec::new(),
    };
    block_on(async {
        let queue = scene.start().await?;
        for _ in 0..CYCLES {
            scene.cycle(&queue).await?;
        }
        let report = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        let report = report.map_err(harness)?;
        if !report.unclosed.is_empty() {
            return Err(Failure::new("stuck", format!("{report:?}")));
        }
        image::integrity(&disk.join("queue"))?;
        let queue = scene.start().await?;
        let (waiting, ended) = (&scene.waiting, &scene.ended);
        for (ids, expected) in [(waiting, TaskStatus::NotStarted), (ended, TaskStatus::Finished)] {
            for id in ids {
                let found = queue.status(*id).await.map_err(|error| Failure::new("lost", error))?;
                if found != expected {
                    return Err(Failure::new("lost", format!("{id} is {found:?}")));
                }
            }
        }
        drop(queue.shutdown(LIMIT).await);
        Ok(())
    })?;
    eprintln!("ends stored: {}", scene.ended.len());
    Ok(())
}

/// A disk, and the tasks of the queue on it.
struct Scene {
    disk: PathBuf,
    /// Whether it is a limit of file sizes.
    limits: bool,
    before: Rlimit,
    gate: Arc<Semaphore>,
    random: fastrand::Rng,
    waiting: Vec<TaskId>,
    ended: Vec<TaskId>,
}

impl Scene {
    async fn start(&self) -> Result<Queue, Failure> {
        let mut settings = scene::settings(1);
        settings.supervision.probe = Duration::from_millis(50);
        let builder = Queue::builder().settings(settings).dir(self.disk.join("queue"));
        let builder = builder.discover(module_path!()).data(self.gate.clone());
        builder.start().await.map_err(|error| Failure::new("stuck", error))
    }

    /// Fills the disk while tasks run, lets them end, and frees it.
    async fn cycle(&mut self, queue: &Queue) -> Result<(), Failure> {
        let mut running = Vec::new();
        for number in 0..self.random.usize(1..=12) {
            let size = self.random.usize(10..20_000);
            running.push(queue.submit(run::task(number, size)).await.map_err(harness)?);
        }
        for task in &running {
            let runs = async || matches!(task.status().await, Ok(TaskStatus::Running));
            until("a task's start", runs).await?;
        }
        self.fill()?;
        let size = self.random.usize(100..30_000);
        let mut taken = 0;
        while let Some(id) = self.bring_one(queue, "x".repeat(size)).await? {
            self.waiting.push(id);
            taken += size;
            if taken > SPACE {
                return Err(Failure::new("lost", "more is acknowledged than there is space"));
            }
        }
        self.gate.add_permits(running.len());
        // no space is kept for them below a limit
        if !self.limits {
            ends(&running).await?;
        }
        self.free()?;
        let freed = Instant::now();
        loop {
            if let Some(id) = self.bring_one(queue, "y".into()).await? {
                self.waiting.push(id);
                break;
            }
            if freed.elapsed() > LIMIT {
                return Err(Failure::new("stuck", "no task is taken any more"));
            }
            scene::pause().await;
        }
        ends(&running).await?;
        self.ended.extend(running.iter().map(TaskHandle::id));
        let ballast = self.disk.join("queue/ballast");
        until("the reserve's return", async || ballast.exists()).await
    }

    /// Submits a task that waits for a day; `None` if there is no space.
    async fn bring_one(&self, queue: &Queue, text: String) -> Result<Option<TaskId>, Failure> {
        let task = bring::task(text).delay(Duration::from_secs(86_400));
        match queue.submit(task).await {
            Ok(handle) => Ok(Some(handle.id())),
            Err(Error::DiskFull { .. }) => Ok(None),
            Err(Error::Unknown { .. } | Error::ShardUnavailable { .. }) if self.limits => Ok(None),
            Err(error) => Err(Failure::new("untyped", error)),
        }
    }

    /// Leaves no space at all; with a limit, no file can become larger than the largest is.
    fn fill(&self) -> Result<(), Failure> {
        if self.limits {
            let files = fs::read_dir(self.disk.join("queue")).map_err(harness)?;
            let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
            let current = Some(sizes.max().unwrap_or(0).min(1 << 20));
            return setrlimit(Resource::Fsize, Rlimit { current, ..self.before }).map_err(harness);
        }
        fill(&self.disk.join("filler"))
    }

    fn free(&self) -> Result<(), Failure> {
        if self.limits {
            return setrlimit(Resource::Fsize, self.before).map_err(harness);
        }
        fs::remove_file(self.disk.join("filler")).map_err(harness)
    }
}

/// Waits until the ends of these tasks are stored.
async fn ends(running: &[TaskHandle<run::Task>]) -> Result<(), Failure> {
    for task in running {
        let ended = async || matches!(task.status().await, Ok(TaskStatus::Finished));
        until("a task's end", ended).await?;
    }
    Ok(())
}

/// Writes a file until nothing more can be written.
fn fill(filler: &Path) -> Result<(), Failure> {
    let mut filler = File::create(filler).map_err(harness)?;
    for size in [65_536, 4_096, 1] {
        let chunk = vec![0; size];
        loop {
            match filler.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(other) => return Err(harness(other)),
            }
        }
    }
    Ok(())
}

/// Asks until it is so.
async fn until(what: &str, is: impl AsyncFn() -> bool) -> Result<(), Failure> {
    let asking = async {
        while !is().await {
            scene::pause().await;
        }
    };
    in_time("stuck", what, asking).await
}
