//! Where durable callbacks stand in the order of tasks.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use message_queue_sqlite::TaskResult;
use message_queue_sqlite::prelude::*;

/// Longer than anything here takes on a slow machine; only a hang is longer.
const LONG: Duration = Duration::from_secs(30);

const TASKS: u32 = 50;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

#[task]
async fn step(number: u32, log: Data<Log>) -> Result<u32, Infallible> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    log.note(format!("task {number}"));
    Ok(number)
}

#[callback]
async fn stepped(result: TaskResult, log: Data<Log>) -> Result<(), Error> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    log.note(format!("callback {}", result.decode::<u32>()?));
    Ok(())
}

#[tokio::test]
async fn a_callback_runs_before_the_tasks_that_wait_behind_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let mut settings = Settings::default();
    // what is claimed ahead of a free slot runs before a callback that came later
    settings.workers.prefetch = 0;
    let builder = Queue::builder().settings(settings).dir(dir.path()).workers(1).concurrency(1);
    let builder = builder.discover(module_path!()).data(log.clone());
    let queue = builder.start().await.unwrap();
    let submissions = (0..TASKS).map(|number| step::task(number).then(stepped::callback()));
    let handles = queue.submit_all(submissions).await.unwrap();
    handles.last().unwrap().wait(LONG).await.unwrap();
    queue.shutdown(LONG).await.unwrap();

    let log = log.0.lock().unwrap();
    let place = |line: String| log.iter().position(|known| *known == line);
    for number in 0..TASKS - 2 {
        let callback = place(format!("callback {number}"));
        let task = place(format!("task {}", number + 2));
        assert!(callback.is_some() && callback < task, "{log:?}");
    }
}
