//! Hashes every file below a directory, one task for each, into a manifest that `sha256sum -c`
//! accepts.
//!
//!     cargo run --release --example hash_tree -- ROOT --dir DIR --out FILE
//!
//! Kill it at any moment, as often as you like, and start it again with the same arguments: it ends
//! with the same manifest. That is because it keeps nothing of its own. Which files there are and
//! what became of each is in the queue's records; a start reads them and submits what is missing. A
//! file that has its hash isn't read again, even if it has changed: take a new DIR for that.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

mod ledger;
mod manifest;
mod tree;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use actix::Handler;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use message_queue_sqlite::prelude::*;
use sha2::{Digest, Sha256};

use ledger::Ledger;
use manifest::Hash;
use tree::Tree;

/// How long running attempts may take when the queue ends early; then they run again next time.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long the records are kept: as long as can be, for they are this program's memory.
const KEPT: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Arguments {
    /// The directory whose files are hashed
    root: PathBuf,
    /// The queue's directory; its parent must exist
    #[arg(long)]
    dir: PathBuf,
    /// The manifest
    #[arg(long)]
    out: PathBuf,
}

/// The SHA-256 of a file's contents, in hexadecimal. What can't be read isn't tried again.
#[task(blocking)]
fn hash_file(path: OsString, ctx: TaskContext) -> Result<String, TaskError> {
    let mut file = File::open(path).map_err(TaskError::fatal)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    while !ctx.is_cancelled() {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => hasher.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TaskError::fatal(error)),
        }
    }
    Err(TaskError::snooze(Duration::ZERO))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The named subscriber: gets every result at least once, also those of an earlier process.
struct Clerk {
    ledger: Arc<Ledger>,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<TaskResult> for Clerk {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        self.ledger.enter_result(&result);
    }
}

#[actix::main]
async fn main() -> Done<ExitCode> {
    let Arguments { root, dir, out } = Arguments::parse();
    let tree = Tree::new(&root, &[&dir, &out, &manifest::draft_of(&out)])?;
    let ledger = Arc::new(Ledger::new(progress_bar()?));
    let queue = start(&dir, &ledger).await?;
    let hashed = tokio::select! {
        hashed = hash_all(&queue, &tree, &ledger) => hashed.map(Some),
        signal = shutdown_signal() => signal.map(|()| None).map_err(Into::into),
    };
    queue.shutdown(DEADLINE).await?;
    ledger.progress.finish_and_clear();
    let Some(mut files) = hashed? else {
        eprintln!("stopped; the same command goes on");
        return Ok(ExitCode::from(130));
    };
    files.extend(ledger.take_files());
    let tally = manifest::write(&out, files)?;
    println!("{tally}");
    Ok(ExitCode::SUCCESS)
}

async fn start(dir: &Path, ledger: &Arc<Ledger>) -> Done<Queue> {
    let mut settings = Settings::load()?;
    settings.retention.results = KEPT;
    settings.retention.dead = KEPT;
    // when this process is killed that says nothing about the file that it was reading
    settings.tasks.max_crashes = 100;
    let clerk = Clerk { ledger: ledger.clone() }.start();
    let builder = Queue::builder().settings(settings).dir(dir).discover(module_path!());
    Ok(builder.subscriber("manifest", clerk.recipient()).start().await?)
}

/// Submits a task for each file that has none, and waits for the ends of all. Returns the
/// directories that couldn't be read: each counts as a file without a hash.
async fn hash_all(queue: &Queue, tree: &Tree, ledger: &Ledger) -> Done<Vec<(OsString, Hash)>> {
    read_records(queue, tree, ledger).await?;
    let mut unreadable = Vec::new();
    let mut walk = tree.walk();
    while let Some(mut found) = walk.recv().await {
        unreadable.extend(found.unreadable.into_iter().map(|(path, why)| (path, Err(why))));
        found.files.retain(|path| !ledger.knows(path));
        // all of a chunk is stored or nothing is, so no file gets two tasks when this is killed
        let tasks = queue.submit_all(found.files.iter().cloned().map(hash_file::task)).await?;
        for (path, task) in found.files.into_iter().zip(tasks) {
            ledger.enter_file(task.id(), path);
        }
    }
    ledger.until_all_ended().await;
    Ok(unreadable)
}

/// Takes up what earlier processes have submitted and done.
async fn read_records(queue: &Queue, tree: &Tree, ledger: &Ledger) -> Done {
    let name = hash_file::Task::NAME.to_string();
    let mut list = ListTasks { name: Some(name), limit: 1_000, ..ListTasks::default() };
    loop {
        let page = queue.list(list.clone()).await?;
        for record in &page.tasks {
            let payload = record.payload.as_ref().ok_or("a task without its file's name")?;
            let path: OsString = payload.decode()?;
            if !tree.contains(&path) {
                return Err(format!("DIR is in use for another tree: it has {path:?}").into());
            }
            ledger.enter_record(record, path)?;
        }
        match page.next {
            None => return Ok(()),
            next => list.after = next,
        }
    }
}

/// Shows itself only on a terminal.
fn progress_bar() -> Done<ProgressBar> {
    let style = "{bar:40} {pos}/{len} files, {elapsed}, {eta} to go";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?))
}
