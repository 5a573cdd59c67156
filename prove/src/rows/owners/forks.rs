//! A process that forks while its queue is at work. What the fork asks of the queue is answered with an
//! error, and its parent's queue doesn't notice.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use message_queue_sqlite_faults::in_a_fork;

use super::races;
use crate::case::{Case, Failure, Outcome, Seen};
use crate::child;
use crate::history::{History, Lines};
use crate::scene::{self, Called, LIMIT, block_on, harness, step};

const FORKS: u64 = 10;

/// When a call counts as one that hangs, where calls are to hang.
const SHORT: Duration = Duration::from_secs(1);

/// What `child` ends with if a call of a fork hangs.
const HANGS: i32 = 7;

type Call<'q> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'q>>;

/// What is asked in the fork.
fn calls<'q>(queue: &'q Queue, handle: &'q TaskHandle<step::Task>) -> Vec<Call<'q>> {
    let task = |number| scene::submission(number);
    let reject = || queue.with_backpressure(Backpressure::Reject);
    vec![
        Box::pin(async move { queue.submit(task(0)).await.map(drop) }),
        Box::pin(async move { reject().submit(task(0)).await.map(drop) }),
        Box::pin(async move { queue.submit_all([task(0), task(1)]).await.map(drop) }),
        Box::pin(async { handle.result().await.map(drop) }),
        Box::pin(async { handle.status().await.map(drop) }),
        Box::pin(async { handle.cancel().await.map(drop) }),
        Box::pin(async { queue.counts().await.map(drop) }),
        Box::pin(async { queue.list(ListTasks::default()).await.map(drop) }),
        Box::pin(async { queue.redrive(handle.id()).await.map(drop) }),
        Box::pin(async { queue.pause_queue("default").await.map(drop) }),
        Box::pin(async { queue.limit_queue("default", Some(1)).await }),
        Box::pin(async { queue.backup("never").await }),
        Box::pin(async { queue.shutdown(LIMIT).await.map(drop) }),
    ]
}

/// 0 if all calls were refused, 1 if one was answered, 2 if one hangs.
fn ask(queue: &Queue, handle: &TaskHandle<step::Task>, owner: u32, limit: Duration) -> u8 {
    for call in calls(queue, handle) {
        // nothing of a runtime that other threads may hold
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { return 1 };
        match runtime.block_on(async { tokio::time::timeout(limit, call).await }) {
            Ok(Err(Error::Forked { pid })) if pid == owner => {}
            Ok(_) => return 1,
            Err(_) => return 2,
        }
    }
    0
}

/// What a child does: it works, and forks meanwhile.
pub(super) fn child(dir: &Path) -> Result<(), Failure> {
    let without = child::without();
    let _without = (without == "forks").then(|| Without::the(Safeguard::ForksRefused));
    let limit = if without.is_empty() { LIMIT } else { SHORT };
    let path = dir.join("queue");
    let builder = scene::builder(scene::settings(2), &path, Called::nobody());
    let queue = block_on(builder.start()).map_err(harness)?;
    let journal = Lines::open(&dir.join("journal")).map_err(harness)?;
    let (owner, stop) = (std::process::id(), AtomicBool::new(false));
    let submit = async |number: u64| {
        journal.add(&format!("try {number}")).map_err(harness)?;
        let handle = queue.submit(scene::submission(number)).await.map_err(harness)?;
        journal.add(&format!("ack {number} {}", handle.id())).map_err(harness)?;
        Ok::<_, Failure>(handle)
    };
    let handle = block_on(submit(0))?;
    let client = |client: u64| {
        block_on(async {
            for number in (client..).step_by(2) {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                submit(number).await?;
            }
            Ok::<(), Failure>(())
        })
    };
    let lines = || Lines::count(&dir.join("journal"));
    let asked = std::thread::scope(|threads| {
        let clients = [1, 2].map(|first| threads.spawn(move || client(first)));
        let mut asked = Ok(());
        for _ in 0..FORKS {
            let before = lines();
            while lines() < before + 10 && !clients.iter().any(|client| client.is_finished()) {
                std::thread::yield_now();
            }
            let code = in_a_fork(|| ask(&queue, &handle, owner, limit));
            match code.map_err(harness)? {
                Some(0) => {}
                Some(2) => asked = Err(Failure::new("hangs", "a call of a fork")),
                other => asked = Err(Failure::new("answered", format!("{other:?}"))),
            }
            if asked.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Release);
        for client in clients {
            client.join().map_err(|_| harness("a client panicked"))??;
        }
        asked
    });
    if matches!(&asked, Err(failure) if failure.kind == "hangs") {
        std::process::exit(HANGS);
    }
    asked?;
    block_on(queue.shutdown(LIMIT)).map(drop).map_err(harness)
}

pub(super) fn fork(case: &Case, without: &str) -> Outcome {
    let dir = case.scratch();
    let status = child::command("forker", dir, without)?.status().map_err(harness)?;
    if status.code() == Some(HANGS) {
        return Err(Failure::new("hangs", "a call of a fork"));
    }
    if !status.success() {
        return Err(Failure::new("answered", format!("the child ended with {status}")));
    }
    let history = History::read(&dir.join("journal"))?;
    races::check(dir, &history)?;
    let acknowledged = history.acknowledged.len() as u64;
    Ok(Seen::default().count("forks", FORKS).count("acknowledged meanwhile", acknowledged))
}
