//! A shard whose file hangs while submissions keep coming: memory is bounded, and each submission is
//! stored or refused, visibly.
//!
//! Each scene is a process of its own, because it measures its memory: this test binary again,
//! running [`child`] alone. The file hangs because another process holds its write lock. Where
//! every submission waits for something, a scene has fewer of them than the million that the others
//! have; `MQS_STALLED_TASKS=1000000` gives the full number to all.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]
#![expect(clippy::print_stderr, reason = "a run by hand shows what was measured")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Instant;

use message_queue_sqlite::prelude::*;

/// The part that a child plays, and where.
const PART: &str = "MQS_STALLED_TEST_PART";
const DIR: &str = "MQS_STALLED_TEST_DIR";
const TASKS: &str = "MQS_STALLED_TASKS";

/// When a test gives up. Only a failing one ever gets there.
const LONG: Duration = Duration::from_secs(300);

const MILLION: usize = 1_000_000;
const CLONES: usize = 64;

/// By how much a process may grow meanwhile, in KiB: 64 MB.
const GROWTH_MAX: u64 = 64_000_000 / 1024;

/// Submissions that may wait for their commit where the test itself has to remember each.
const PENDING: usize = 4_096;

#[task(name = "stalled.note")]
async fn note(text: String) {
    drop(text);
}

/// How large arguments are: so small that they aren't counted, and large.
const SMALL: usize = 147;
const LARGE: usize = 16_384;

type Task = message_queue_sqlite::Submission<note::Task>;

/// A task that isn't run during the test.
fn task(number: usize, size: usize) -> Task {
    note::task(format!("{number:0size$}")).delay(Duration::from_secs(86_400))
}

/// Holds the write lock of a shard's file until its standard input is closed.
struct Lock(Child);

impl Lock {
    fn take(dir: &Path) -> Self {
        let mut child = part("lock", dir).stdin(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        while !dir.join("locked").exists() {
            assert_eq!(child.try_wait().unwrap(), None, "nothing holds the lock");
            assert!(since.elapsed() < LONG, "the lock is never taken");
            std::thread::yield_now();
        }
        Lock(child)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// This binary again, in another part.
fn part(part: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(PART, part).env(DIR, dir);
    let log = File::create(dir.join(format!("{part}.log"))).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    command
}

/// Plays a scene and shows what it says.
fn play(scene: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = part(scene, dir.path()).spawn().unwrap();
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > LONG {
            child.kill().unwrap();
        }
        std::thread::yield_now();
    };
    let log = fs::read_to_string(dir.path().join(format!("{scene}.log"))).unwrap();
    let said = fs::read_to_string(dir.path().join("said"));
    assert!(status.success(), "{scene}: {status}\n{log}");
    eprintln!("{}", said.unwrap());
}

#[test]
fn submissions_by_do_send_are_bounded_and_counted() {
    play("do_send");
}

#[test]
fn large_submissions_by_do_send_are_bounded_by_their_size() {
    play("do_send_large");
}

#[test]
fn handles_that_reject_large_ones_are_bounded_by_their_size() {
    play("reject_large");
}

#[test]
fn handles_that_reject_are_bounded_and_told() {
    play("reject");
}

#[test]
fn handles_that_wait_for_a_while_are_bounded_and_told() {
    play("wait_for");
}

#[test]
fn handles_that_wait_are_bounded_and_go_on() {
    play("wait");
}

/// Not a test: what a child does.
#[test]
fn child() {
    let (Ok(part), Some(dir)) = (std::env::var(PART), std::env::var_os(DIR)) else { return };
    let dir = Path::new(&dir);
    if part == "lock" {
        return hold_lock(dir);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(async {
        match part.as_str() {
            "do_send" => Scene::start(dir, None).await.do_send(tasks(MILLION)).await,
            "do_send_large" => Scene::start_large(dir).await.do_send(tasks(30_000)).await,
            "reject_large" => Scene::start_large(dir).await.reject(tasks(30_000)).await,
            "reject" => Scene::start(dir, Some(PENDING)).await.reject(tasks(MILLION)).await,
            "wait_for" => Scene::start(dir, Some(PENDING)).await.wait_for(tasks(100_000)).await,
            _ => Scene::start(dir, Some(PENDING)).await.wait(tasks(20_000)).await,
        }
    });
}

fn tasks(usual: usize) -> usize {
    std::env::var(TASKS).map_or(usual, |tasks| tasks.parse().unwrap())
}

fn hold_lock(dir: &Path) {
    let connection = rusqlite::Connection::open(dir.join("queue/shard-000.db")).unwrap();
    connection.busy_timeout(LONG).unwrap();
    connection.execute_batch("begin immediate").unwrap();
    File::create(dir.join("locked")).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    connection.execute_batch("rollback").unwrap();
}

/// A figure of this process, in KiB: `VmRSS` is the memory that it has, `VmHWM` the most it had.
fn memory(figure: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A queue whose only shard hangs.
struct Scene<'a> {
    dir: &'a Path,
    queue: Queue,
    lock: Lock,
    /// How large its arguments are.
    size: usize,
    began: Instant,
    /// The memory that the process had before the scene.
    before: u64,
}

/// What became of the submissions of a scene.
#[derive(Default)]
struct Outcome {
    acknowledged: BTreeSet<TaskId>,
    refused: usize,
}

impl Outcome {
    fn add(&mut self, answer: Result<message_queue_sqlite::TaskHandle<note::Task>, Error>) {
        match answer {
            Ok(handle) => assert!(self.acknowledged.insert(handle.id())),
            Err(Error::Busy { retry_after }) => {
                assert!(
                    (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&retry_after)
                );
                self.refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.acknowledged.extend(other.acknowledged);
        self.refused += other.refused;
    }
}

/// A submission that waits for its commit.
type Waiting = Pin<
    Box<dyn Future<Output = Result<message_queue_sqlite::TaskHandle<note::Task>, Error>> + Send>,
>;

/// Begins a submission with a handle that rejects; `Err` if it waits for its commit.
async fn begin(queue: &Queue, task: Task, outcome: &mut Outcome) -> Option<Waiting> {
    let queue = queue.clone();
    let mut submission: Waiting = Box::pin(async move { queue.submit(task).await });
    let polled = poll_fn(|context| Poll::Ready(submission.as_mut().poll(context))).await;
    match polled {
        Poll::Ready(answer) => {
            outcome.add(answer);
            None
        }
        Poll::Pending => Some(submission),
    }
}

impl<'a> Scene<'a> {
    async fn start(dir: &'a Path, pending: Option<usize>) -> Self {
        let mut settings = Settings::default();
        settings.storage.dir = dir.join("queue");
        settings.storage.busy_timeout = Duration::from_secs(600);
        settings.storage.durability = message_queue_sqlite::settings::Durability::Normal;
        if let Some(pending) = pending {
            settings.limits.pending_submissions = pending;
            settings.limits.bulk = pending;
        }
        let queue = Queue::builder().settings(settings).discover(module_path!()).start().await;
        let queue = queue.unwrap();
        assert_eq!(queue.counts().await.unwrap().values().sum::<u64>(), 0);
        let lock = Lock::take(dir);
        let (began, before) = (Instant::now(), memory("VmRSS"));
        Scene { dir, queue, lock, size: SMALL, began, before }
    }

    /// With large arguments, of which the limit of their size takes no more than some 1,000.
    async fn start_large(dir: &'a Path) -> Self {
        Scene { size: LARGE, ..Self::start(dir, None).await }
    }

    /// From 64 threads, as messages that nobody waits for.
    async fn do_send(mut self, tasks: usize) {
        let ready = Arc::new(Barrier::new(CLONES + 1));
        let senders: Vec<_> = (0..CLONES)
            .map(|clone| {
                let (dispatcher, ready, size) = (self.queue.dispatcher(), ready.clone(), self.size);
                std::thread::spawn(move || {
                    // a thread's stack and its heap aren't the queue's
                    drop(Submit::new(task(clone, size)));
                    ready.wait();
                    ready.wait();
                    for number in (clone..tasks).step_by(CLONES) {
                        dispatcher.do_send(Submit::new(task(number, size)));
                    }
                })
            })
            .collect();
        ready.wait();
        self.before = memory("VmRSS");
        ready.wait();
        for sender in senders {
            sender.join().unwrap();
        }
        // the Dispatcher answers when it has passed all of them
        let question = ListTasks { limit: usize::MAX, ..ListTasks::default() };
        self.queue.dispatcher().send(question).await.unwrap().unwrap_err();
        let refused = usize::try_from(self.queue.refused()).unwrap();
        let outcome = Outcome { refused, ..Outcome::default() };
        self.settle("do_send", tasks, outcome, Vec::new(), Vec::new()).await;
    }

    /// From 64 handles that are told at once.
    async fn reject(self, tasks: usize) {
        let queue = self.queue.with_backpressure(Backpressure::Reject);
        let clones: Vec<_> = (0..CLONES)
            .map(|clone| {
                let (queue, size) = (queue.clone(), self.size);
                tokio::spawn(async move {
                    let (mut outcome, mut waiting) = (Outcome::default(), Vec::new());
                    for number in (clone..tasks).step_by(CLONES) {
                        waiting.extend(begin(&queue, task(number, size), &mut outcome).await);
                    }
                    (outcome, waiting)
                })
            })
            .collect();
        let (mut outcome, mut waiting) = (Outcome::default(), Vec::new());
        for clone in clones {
            let (of_clone, of_clone_waiting) = clone.await.unwrap();
            outcome.merge(of_clone);
            waiting.extend(of_clone_waiting);
        }
        self.settle("reject", tasks, outcome, waiting, Vec::new()).await;
    }

    /// Fills the queue; gives back the submissions that wait for their commit.
    async fn fill(&self, outcome: &mut Outcome) -> Vec<Waiting> {
        let queue = self.queue.with_backpressure(Backpressure::Reject);
        let mut waiting = Vec::new();
        for number in 0..PENDING {
            waiting.extend(begin(&queue, task(number, self.size), outcome).await);
        }
        assert_eq!(waiting.len(), PENDING);
        waiting
    }

    /// From 64 handles that wait for a moment each time.
    async fn wait_for(self, tasks: usize) {
        let mut outcome = Outcome::default();
        let waiting = self.fill(&mut outcome).await;
        let queue = self.queue.with_backpressure(Backpressure::WaitFor(Duration::from_millis(1)));
        let clones: Vec<_> = (0..CLONES)
            .map(|clone| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut outcome = Outcome::default();
                    for number in (clone + PENDING..tasks).step_by(CLONES) {
                        outcome.add(queue.submit(task(number, SMALL)).await);
                    }
                    outcome
                })
            })
            .collect();
        for clone in clones {
            outcome.merge(clone.await.unwrap());
        }
        assert_eq!(outcome.refused, tasks - PENDING);
        self.settle("wait_for", tasks, outcome, waiting, Vec::new()).await;
    }

    /// From 64 handles that wait as long as it takes.
    async fn wait(self, tasks: usize) {
        let mut outcome = Outcome::default();
        let waiting = self.fill(&mut outcome).await;
        let clones: Vec<_> = (0..CLONES)
            .map(|clone| {
                let queue = self.queue.clone();
                tokio::spawn(async move {
                    let mut outcome = Outcome::default();
                    for number in (clone + PENDING..tasks).step_by(CLONES) {
                        outcome.add(queue.submit(task(number, SMALL)).await);
                    }
                    outcome
                })
            })
            .collect();
        self.settle("wait", tasks, outcome, waiting, clones).await;
    }

    /// Lets the shard go on, and looks what became of all submissions.
    async fn settle(
        self,
        scene: &str,
        tasks: usize,
        mut outcome: Outcome,
        waiting: Vec<Waiting>,
        clones: Vec<tokio::task::JoinHandle<Outcome>>,
    ) {
        let grown = memory("VmHWM").saturating_sub(self.before);
        let sent = self.began.elapsed();
        self.lock.release();
        for submission in waiting {
            outcome.add(submission.await);
        }
        for clone in clones {
            outcome.merge(clone.await.unwrap());
        }
        let Outcome { acknowledged, refused } = outcome;
        let accepted = tasks - refused;
        let stored = until_stored(&self.queue, accepted).await;
        assert_eq!(self.queue.refused(), refused as u64, "the counter has each that was refused");
        if scene != "do_send" {
            assert_eq!(acknowledged, stored, "what was acknowledged is there, and nothing else");
        }
        let said = format!(
            "{scene}: of {tasks} submissions {accepted} stored and {refused} refused; grown by \
             {grown} KiB in {sent:?}; all stored after {:?}, grown by {} KiB",
            self.began.elapsed(),
            memory("VmHWM").saturating_sub(self.before)
        );
        fs::write(self.dir.join("said"), &said).unwrap();
        assert!(grown < GROWTH_MAX, "{said}");
        self.queue.shutdown(LONG).await.unwrap();
    }
}

/// Waits until this many tasks are in the file, and reads their ids.
async fn until_stored(queue: &Queue, tasks: usize) -> BTreeSet<TaskId> {
    let since = Instant::now();
    while queue.counts().await.unwrap().values().sum::<u64>() < tasks as u64 {
        assert!(since.elapsed() < LONG, "not everything is stored");
    }
    let (mut stored, mut after) = (BTreeSet::new(), None);
    loop {
        let page = ListTasks { after, limit: 1_000, ..ListTasks::default() };
        let page = queue.list(page).await.unwrap();
        stored.extend(page.tasks.iter().map(|task| task.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(stored.len(), tasks);
    stored
}
