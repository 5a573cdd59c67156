//! A process is killed in the middle of its work; the next one ends it, and nothing is lost.
//!
//!     cargo run --release --example survive_a_crash
//!
//! This program starts itself as a child, which submits tasks with a durable callback each. It
//! kills the child with SIGKILL, starts another one over the same directory, and then looks at what
//! the callbacks have written.
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Parser;
use message_queue_sqlite::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const TASKS: u64 = 400;

/// The first child is killed when this many callbacks have been called.
const KILL_AFTER: usize = 100;

/// How long running attempts may take when the queue ends.
const DEADLINE: Duration = Duration::from_secs(10);

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Arguments {
    /// Runs as the child, over this directory
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
    /// Submits the tasks first
    #[arg(long, hide = true)]
    submit: bool,
}

#[task]
async fn double(number: u64) -> Result<u64, Infallible> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(number * 2)
}

/// Appends a line for the task whose end it reports. It may run twice for one task, when the
/// process dies between the line and the commit: at least once.
#[callback(blocking)]
fn doubled(result: TaskResult, journal: Data<Journal>) -> Result<(), io::Error> {
    journal.note(result.id())
}

/// Where the callbacks write.
struct Journal(File);

impl Journal {
    fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(Journal::path(dir))?;
        Ok(Journal(file))
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("callbacks.txt")
    }

    /// One write, so that lines of several threads don't mix. The parent counts those on stdout.
    fn note(&self, id: TaskId) -> io::Result<()> {
        (&self.0).write_all(format!("{id}\n").as_bytes())?;
        io::stdout().write_all(format!("called back for {id}\n").as_bytes())
    }
}

#[actix::main]
async fn main() -> Done {
    let arguments = Arguments::parse();
    match arguments.child {
        Some(dir) => child(&dir, arguments.submit).await,
        None => parent().await,
    }
}

async fn start(dir: &Path) -> Done<Queue> {
    let builder = Queue::builder().dir(dir.join("queue")).discover(module_path!());
    Ok(builder.data(Journal::open(dir)?).start().await?)
}

async fn child(dir: &Path, submit: bool) -> Done {
    let queue = start(dir).await?;
    let recovery = queue.recovery();
    println!("recovered {} attempts and {} callbacks", recovery.restarted, recovery.callbacks);
    if submit {
        let submissions = (0..TASKS).map(|number| double::task(number).then(doubled::callback()));
        queue.submit_all(submissions).await?;
    }
    tokio::select! {
        ended = until_all_called_back(&queue) => ended?,
        signal = shutdown_signal() => signal?,
    }
    queue.shutdown(DEADLINE).await?;
    Ok(())
}

/// Looks now and then whether anything is left to do.
async fn until_all_called_back(queue: &Queue) -> Result<(), Error> {
    use TaskStatus::{Callbacking, NotStarted, Running};
    loop {
        let counts = queue.counts().await?;
        if [NotStarted, Running, Callbacking]
            .iter()
            .all(|open| counts.get(open).is_none_or(|tasks| *tasks == 0))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn parent() -> Done {
    let dir = tempfile::tempdir()?;
    tokio::select! {
        survived = kill_and_restart(dir.path()) => survived?,
        // dropping the children kills them: they are used to it
        signal = shutdown_signal() => return Ok(signal?),
    }
    let tally = inspect(dir.path()).await?;
    println!("{tally}");
    match tally.finished == TASKS && tally.callbacked == TASKS {
        true => Ok(()),
        false => Err("something was lost".into()),
    }
}

async fn kill_and_restart(dir: &Path) -> Done {
    let (mut first, mut lines) = spawn(dir, true)?;
    let mut called_back = 0;
    while called_back < KILL_AFTER {
        let line = lines.next_line().await?.ok_or("the first child ended by itself")?;
        called_back += usize::from(is_call(&line));
    }
    first.kill().await?;
    println!("killed a child after {called_back} callbacks of {TASKS}");

    let (mut second, mut lines) = spawn(dir, false)?;
    while let Some(line) = lines.next_line().await? {
        if !is_call(&line) {
            println!("the next one {line}");
        }
    }
    match second.wait().await?.success() {
        true => Ok(()),
        false => Err("the second child failed".into()),
    }
}

fn spawn(dir: &Path, submit: bool) -> Done<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg(dir).stdout(Stdio::piped()).kill_on_drop(true);
    if submit {
        command.arg("--submit");
    }
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("a child without a stdout")?;
    Ok((child, BufReader::new(stdout).lines()))
}

fn is_call(line: &str) -> bool {
    line.starts_with("called back")
}

#[derive(Default)]
struct Tally {
    submitted: u64,
    finished: u64,
    failed: u64,
    /// Tasks whose durable callback has written a line.
    callbacked: u64,
}

/// Reads what the children have left: the queue's records and the callbacks' lines.
async fn inspect(dir: &Path) -> Done<Tally> {
    let text = fs::read_to_string(Journal::path(dir))?;
    let called: HashSet<&str> = text.lines().collect();
    println!("{} callbacks came twice", text.lines().count() - called.len());

    let queue = start(dir).await?;
    let mut tally = Tally::default();
    let mut list = ListTasks { name: Some("double".into()), limit: 1_000, ..Default::default() };
    loop {
        let page = queue.list(list.clone()).await?;
        for task in &page.tasks {
            tally.submitted += 1;
            tally.finished += u64::from(task.outcome == Some(Outcome::Finished));
            tally.failed += u64::from(task.outcome == Some(Outcome::Failed));
            let written = called.contains(task.id.to_string().as_str());
            tally.callbacked += u64::from(written && task.status == TaskStatus::Callbacked);
        }
        list.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    queue.shutdown(DEADLINE).await?;
    Ok(tally)
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { submitted, finished, failed, callbacked } = self;
        write!(
            f,
            "submitted={submitted} finished={finished} failed={failed} callbacked={callbacked}"
        )
    }
}
