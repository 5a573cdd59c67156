//! A mailbox that takes nothing while results keep coming: memory is bounded, and all other mailboxes
//! get theirs.
//!
//! Each scene is a process of its own, because it measures its memory: this test binary again,
//! running [`child`] alone.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]
#![expect(clippy::print_stderr, reason = "a run by hand shows what was measured")]

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Instant;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{DeadReason, TaskHandle};
use tokio::sync::{Semaphore, mpsc};

const SCENE: &str = "MQS_STUCK_MAILBOX_SCENE";

/// When a test gives up. Only a failing one ever gets there.
const LIMIT: Duration = Duration::from_secs(120);

/// By how much the process may grow, in KiB: 64 MB.
const GROWTH_MAX: u64 = 64_000_000 / 1024;

#[task(name = "stuck.bring")]
async fn bring(size: usize) -> Result<String, TaskError> {
    Ok("x".repeat(size))
}

/// Takes a result and never ends with it.
struct Stuck;

impl Actor for Stuck {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Stuck {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) -> Self::Result {
        let never = Semaphore::new(0);
        Box::pin(async move { never.acquire().await.unwrap().forget() })
    }
}

struct Counts(mpsc::UnboundedSender<()>);

impl Actor for Counts {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Counts {
    type Result = ();

    fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) {
        self.0.send(()).unwrap();
    }
}

/// Plays a scene in a process of its own and shows what it says.
fn play(scene: &str) {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(SCENE, scene);
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let status = command.status().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.success() && said.contains("grown by"), "{scene}: {status}\n{said}");
    eprintln!("{said}");
}

#[test]
fn small_results_are_kept_up_to_a_number() {
    play("100000 10");
}

#[test]
fn large_results_are_kept_up_to_a_size() {
    play("20000 10000");
}

/// Not a test: what a child does.
#[test]
fn child() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let mut numbers = scene.split(' ').map(|number| number.parse().unwrap());
    let (tasks, size) = (numbers.next().unwrap(), numbers.next().unwrap());
    actix::System::new().block_on(async { results(tasks, size).await });
}

/// A figure of this process, in KiB: `VmRSS` is the memory that it has, `VmHWM` the most it had.
fn memory(figure: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn results(tasks: usize, size: usize) {
    let place = tempfile::tempdir().unwrap();
    let queue = Queue::builder().dir(place.path().join("queue")).register::<bring::Task>();
    let queue = queue.start().await.unwrap();
    let (count, mut counted) = mpsc::unbounded_channel();
    let other = queue.subscribe::<bring::Task>(Counts(count).start().recipient()).await.unwrap();
    let run = async |tasks: usize, counted: &mut mpsc::UnboundedReceiver<()>| {
        let (since, mut last) = (Instant::now(), None);
        for first in (0..tasks).step_by(500) {
            let bulk = tasks.min(first + 500) - first;
            let handles = queue.submit_all((0..bulk).map(|_| bring::task(size))).await.unwrap();
            last = handles.last().map(TaskHandle::id);
            for _ in 0..bulk {
                counted.recv().await.unwrap();
            }
            assert!(since.elapsed() < LIMIT, "the other mailbox is held up");
        }
        last.unwrap()
    };
    // what running tasks takes
    run(5_000, &mut counted).await;
    let before = memory("VmRSS");
    let stuck = queue.subscribe::<bring::Task>(Stuck.start().recipient()).await.unwrap();
    let last = run(tasks, &mut counted).await;
    let grown = memory("VmHWM").saturating_sub(before);
    eprintln!("{tasks} results of {size} bytes: grown by {grown} KiB");
    assert!(grown < GROWTH_MAX, "grown by {grown} KiB");
    let missed = async {
        let full = Delivery::Dead(DeadReason::SubscriberFull);
        while queue.record(last).await.unwrap().delivery != full {}
    };
    tokio::time::timeout(LIMIT, missed).await.expect("the last one is too much");
    drop((other, stuck));
    drop(queue);
}
