//! A disk that is really full, again and again: submissions are told so, running tasks' ends are
//! stored all the same, and the queue goes on by itself when there is space.
//!
//! The test plays in a process of its own: this binary again, running [`child`] alone, in a mount
//! namespace with a small file system in memory. Where that isn't allowed, a limit on the size of
//! files takes the disk's place: a smaller test, as no space can be kept for ends then, and a commit
//! that fails for it is of unknown outcome. It says which one ran.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]
#![expect(clippy::print_stderr, reason = "a run by hand shows what was measured")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{StartError, StoreErrorKind, TaskHandle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

/// What takes the place of the disk, and where.
const DISK: &str = "MQS_FULL_DISK_TEST_DISK";
const DIR: &str = "MQS_FULL_DISK_TEST_DIR";

/// When a test gives up. Only a failing one ever gets there.
const LIMIT: Duration = Duration::from_secs(60);

const CYCLES: usize = 3;
const RUNNING: usize = 8;
const DISK_SIZE: &str = "size=48m";

/// Twice this is kept for ends, and 8 MiB of free space beside that are enough to go on.
const LOG: u64 = 6 << 20;

/// Less than what is kept: there isn't as much again.
const A_LITTLE: u64 = 10 << 20;

/// Runs until the gate lets it end; its result is larger than a page.
#[task(name = "full.run")]
async fn run(number: usize, gate: Data<Arc<Semaphore>>) -> Result<String, TaskError> {
    gate.acquire().await?.forget();
    Ok(format!("{number:020000}"))
}

/// A task that brings much and isn't run during the test.
#[task(name = "full.bring")]
async fn bring(text: String) {
    drop(text);
}

#[test]
fn a_full_disk_refuses_submissions_stores_ends_and_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mount = ["mount", "-t", "tmpfs", "-o", DISK_SIZE, "none"];
    let spaces = [&["--mount"][..], &["--mount", "--user", "--map-root-user"]];
    let may_mount = |space: &&&[&str]| {
        let tried = Command::new("unshare").args(**space).args(mount).arg(dir.path()).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let binary = std::env::current_exe().unwrap();
    let mut command = match spaces.iter().find(may_mount) {
        Some(space) => {
            let mut command = Command::new("unshare");
            let script = format!("{} \"$0\" && exec \"$@\"", mount.join(" "));
            command.args(*space).args(["sh", "-c", &script]).arg(dir.path()).arg(&binary);
            command.env(DISK, "file system");
            command
        }
        None => {
            let mut command = Command::new("sh");
            // else the first write over the limit ends the process
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(&binary);
            command.env(DISK, "limit");
            command
        }
    };
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    command.args(["--exact", "child", "--nocapture"]).env(DIR, dir.path());
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let status = command.status().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{status}\n{said}");
    assert!(said.contains("cycle 3"), "the child did nothing: {said}");
    eprintln!("{said}");
}

/// Not a test: what the child does.
#[test]
fn child() {
    let (Ok(disk), Some(dir)) = (std::env::var(DISK), std::env::var_os(DIR)) else { return };
    let disk =
        Disk { dir: dir.into(), limits: disk == "limit", before: getrlimit(Resource::Fsize) };
    eprintln!("full disk: by a {}", if disk.limits { "limit of file sizes" } else { "tmpfs" });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        start_on_a_full_disk(&disk).await;
        cycles(&disk).await;
    });
}

/// A disk that can be filled and freed.
struct Disk {
    dir: PathBuf,
    limits: bool,
    before: Rlimit,
}

impl Disk {
    /// Whether the error is what such a disk gives.
    fn gives(&self, error: &Error) -> bool {
        match error {
            Error::DiskFull { .. } => true,
            Error::Unknown { .. } | Error::ShardUnavailable { .. } => self.limits,
            _ => false,
        }
    }

    fn queue_dir(&self) -> PathBuf {
        self.dir.join("queue")
    }

    /// Leaves no space at all; with a limit, no file can become larger than the largest is.
    fn fill(&self) {
        if self.limits {
            let files = fs::read_dir(self.queue_dir()).into_iter().flatten();
            let largest = files.map(|file| file.unwrap().metadata().unwrap().len()).max();
            let current = Some(largest.unwrap_or(0).min(1 << 20));
            setrlimit(Resource::Fsize, Rlimit { current, ..self.before }).unwrap();
            return;
        }
        let mut filler = File::create(self.dir.join("filler")).unwrap();
        for size in [65_536, 4_096, 1] {
            let chunk = vec![0; size];
            loop {
                match filler.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }

    fn free(&self) {
        if self.limits {
            setrlimit(Resource::Fsize, self.before).unwrap();
        } else {
            fs::remove_file(self.dir.join("filler")).unwrap();
        }
    }

    /// Only so many bytes, if it isn't a limit.
    fn free_bytes(&self, bytes: u64) {
        if !self.limits {
            let filler = OpenOptions::new().write(true).open(self.dir.join("filler")).unwrap();
            filler.set_len(filler.metadata().unwrap().len() - bytes).unwrap();
        }
    }
}

async fn start(disk: &Disk, gate: &Arc<Semaphore>) -> Result<Queue, Error> {
    let mut settings = Settings::default();
    settings.storage.dir = disk.queue_dir();
    settings.storage.wal_limit = LOG;
    settings.storage.cache = 1 << 20;
    settings.workers.count = Some(1);
    settings.supervision.probe = Duration::from_millis(100);
    let builder = Queue::builder().settings(settings).discover(module_path!());
    builder.data(gate.clone()).start().await
}

async fn start_on_a_full_disk(disk: &Disk) {
    disk.fill();
    let refused = start(disk, &Arc::new(Semaphore::new(0))).await;
    let Err(Error::Start { reasons }) = refused else { panic!("{refused:?}") };
    let full = |reason: &StartError| matches!(reason, StartError::Open { source, .. } if source.kind() == StoreErrorKind::Full);
    assert!(!reasons.is_empty() && reasons.iter().all(full), "{reasons:?}");
    disk.free();
}

/// Submits what isn't run, again and again, until it is refused; gives back what was taken.
async fn submit_until_full(disk: &Disk, queue: &Queue) -> Vec<TaskHandle<bring::Task>> {
    let (mut taken, since) = (Vec::new(), Instant::now());
    loop {
        let task = bring::task("x".repeat(50_000)).delay(Duration::from_secs(86_400));
        match queue.submit(task).await {
            Ok(handle) => taken.push(handle),
            Err(error) if disk.gives(&error) => return taken,
            Err(other) => panic!("{other}"),
        }
        assert!(since.elapsed() < LIMIT, "the disk is never full");
    }
}

/// Asks until it is so.
async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !is().await {
        assert!(since.elapsed() < LIMIT, "it never happens that {what}");
        tokio::task::yield_now().await;
    }
}

async fn cycles(disk: &Disk) {
    let gate = Arc::new(Semaphore::new(0));
    let queue = start(disk, &gate).await.unwrap();
    let ballast = disk.queue_dir().join("ballast");
    let (mut waiting, mut ended) = (Vec::new(), Vec::new());
    for cycle in 1..=CYCLES {
        assert!(ballast.exists(), "there is space for ends");
        let mut running = Vec::new();
        for number in 0..RUNNING {
            running.push(queue.submit(run::task(number)).await.unwrap());
        }
        for task in &running {
            until("it runs", async || task.status().await.unwrap() == TaskStatus::Running).await;
        }
        disk.fill();
        disk.free_bytes(1 << 20);
        let taken = submit_until_full(disk, &queue).await;
        assert!(disk.limits || !taken.is_empty(), "there was some space");
        gate.add_permits(RUNNING);
        if !disk.limits {
            for task in &running {
                until("an end is stored", async || {
                    task.status().await.unwrap() == TaskStatus::Finished
                })
                .await;
            }
            // what the ballast has freed isn't for them
            let more = submit_until_full(disk, &queue).await;
            assert!(more.is_empty(), "{} were taken", more.len());
        }
        goes_on(disk, &queue, cycle).await;
        for (number, task) in running.iter().enumerate() {
            let output: String = task.wait(LIMIT).await.unwrap();
            assert_eq!(output.parse::<usize>().unwrap(), number);
        }
        eprintln!("cycle {cycle}: {} taken until full", taken.len());
        waiting.extend(taken.iter().map(TaskHandle::id));
        ended.extend(running.iter().map(TaskHandle::id));
    }
    let report = queue.shutdown(LIMIT).await.unwrap();
    assert!(report.unclosed.is_empty(), "{report:?}");
    check_integrity(&disk.queue_dir().join("shard-000.db"));
    let queue = start(disk, &gate).await.unwrap();
    assert_eq!(queue.recovery(), message_queue_sqlite::Recovery::default());
    for id in waiting {
        assert_eq!(queue.status(id).await.unwrap(), TaskStatus::NotStarted);
    }
    for id in ended {
        assert_eq!(queue.status(id).await.unwrap(), TaskStatus::Finished);
    }
    queue.shutdown(LIMIT).await.unwrap();
}

/// Nothing but the disk changes: it has space again, in the second cycle a little only. The first
/// submission is taken, or nobody submits and an idle queue goes on by itself.
async fn goes_on(disk: &Disk, queue: &Queue, cycle: usize) {
    let ballast = disk.queue_dir().join("ballast");
    let again = || queue.submit(bring::task("y".into()).delay(Duration::from_secs(86_400)));
    match cycle {
        _ if disk.limits => disk.free(),
        1 => disk.free(),
        2 => {
            disk.free_bytes(A_LITTLE);
            until("the ballast is back", async || ballast.exists()).await;
        }
        _ => {
            again().await.unwrap_err();
            disk.free_bytes(A_LITTLE);
        }
    }
    if disk.limits {
        until("submissions are taken", async || match again().await {
            Err(error) if disk.gives(&error) => false,
            other => other.is_ok(),
        })
        .await;
        until("the ballast is back", async || ballast.exists()).await;
    } else {
        again().await.unwrap();
        assert!(ballast.exists());
    }
}

/// Of a file that nobody uses.
fn check_integrity(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    let found: String =
        connection.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}
