//! Processes that all want one directory at the same moment. The owner ends or is killed, and they race
//! again.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::child;
use crate::history::History;
use crate::scene::{
    self, Called, LIMIT, block_on, harness, in_time, start_when_free, started, until_all_ended,
};

const CONTENDERS: usize = 3;
const ROUNDS: u64 = 10;

/// What a child does: it wants the directory at each `go`, submits the task of a number, and lets go of
/// the directory at each `end`.
pub(super) fn child(dir: &Path) -> Result<(), Failure> {
    let without = child::without();
    let _without = (without == "lock").then(|| Without::the(Safeguard::Lock));
    let mut owned: Option<Queue> = None;
    let say = |line: String| writeln!(io::stdout(), "{line}").map_err(harness);
    say("ready".into())?;
    for line in io::stdin().lines() {
        let line = line.map_err(harness)?;
        match (line.as_str(), owned.take()) {
            ("go", None) => {
                let queue = dir.join("queue");
                let builder = scene::builder(scene::settings(2), &queue, Called::nobody());
                match block_on(builder.start()) {
                    Ok(queue) => {
                        owned = Some(queue);
                        say("won".into())?;
                    }
                    Err(Error::Locked { pid, .. }) => say(format!("locked {pid}"))?,
                    Err(error) => say(format!("refused: {error}"))?,
                }
            }
            ("end", Some(queue)) => {
                block_on(queue.shutdown(LIMIT)).map_err(harness)?;
                say("ended".into())?;
            }
            (number, Some(queue)) => {
                let task = scene::submission(number.parse().map_err(harness)?);
                let handle = block_on(queue.submit(task)).map_err(harness)?;
                owned = Some(queue);
                say(handle.id().to_string())?;
            }
            (line, None) => return Err(harness(line)),
        }
    }
    Ok(())
}

/// A child, what it is told and what it says. Dropping it ends it.
struct Contender {
    child: Child,
    told: ChildStdin,
    says: Receiver<String>,
}

impl Contender {
    fn start(dir: &Path, without: &str) -> Result<Self, Failure> {
        let mut command = child::command("contender", dir, without)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(harness)?;
        let told = child.stdin.take().ok_or_else(|| harness("no way to tell it anything"))?;
        let out = child.stdout.take().ok_or_else(|| harness("no way to hear of it"))?;
        let (line, says) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|said| line.send(said))
        });
        let contender = Contender { child, told, says };
        match contender.hear()?.as_str() {
            "ready" => Ok(contender),
            other => Err(harness(other)),
        }
    }

    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.told, "{line}").map_err(harness)
    }

    fn hear(&self) -> Result<String, Failure> {
        self.says.recv_timeout(LIMIT).map_err(|_| Failure::new("stuck", "a child says nothing"))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(super) fn race(case: &Case, without: &str) -> Outcome {
    let dir = case.scratch();
    let mut random = case.random(1);
    let mut history = History::default();
    let mut contenders = Vec::new();
    for _ in 0..CONTENDERS {
        contenders.push(Contender::start(dir, without)?);
    }
    let (mut kills, mut unnamed, mut told, mut killed) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        for contender in &mut contenders {
            contender.tell("go")?;
        }
        let mut winners = Vec::new();
        let mut owners = Vec::new();
        for (index, contender) in contenders.iter().enumerate() {
            let said = contender.hear()?;
            if said == "won" {
                winners.push(index);
            } else if let Some(pid) = said.strip_prefix("locked ") {
                owners.push(pid.parse::<u32>().map_err(harness)?);
            } else if without.is_empty() {
                return Err(Failure::new("untold", format!("round {round}: {said}")));
            }
        }
        let [winner] = winners[..] else {
            if winners.is_empty() && !without.is_empty() {
                // they are in each other's way
                continue;
            }
            let kind = if winners.is_empty() { "no owner" } else { "two owners" };
            return Err(Failure::new(kind, format!("round {round}: {winners:?} won")));
        };
        let pid = contenders[winner].child.id();
        // one that was killed is named until the next has signed
        if let Some(other) = owners.iter().find(|owner| ![0, pid, killed].contains(owner)) {
            return Err(Failure::new("untold", format!("{other} is named, {pid} is the owner")));
        }
        history.tried.insert(round);
        contenders[winner].tell(&round.to_string())?;
        let id: TaskId = contenders[winner].hear()?.parse().map_err(harness)?;
        history.acknowledged.insert(id, round);
        told += owners.len() as u64;
        unnamed += owners.iter().filter(|owner| **owner != pid).count() as u64;
        killed = 0;
        if random.bool() {
            kills += 1;
            killed = pid;
            contenders[winner] = Contender::start(dir, without)?;
        } else {
            contenders[winner].tell("end")?;
            contenders[winner].hear()?;
        }
    }
    drop(contenders);
    check(dir, &history)?;
    Ok(Seen::default()
        .count("races", ROUNDS)
        .count("losers told", told)
        .count("losers told without the owner's number", unnamed)
        .count("owners killed", kills))
}

/// What the owners have acknowledged is there, and ends.
pub(super) fn check(dir: &Path, history: &History) -> Result<(), Failure> {
    let tasks = block_on(async {
        let place = dir.join("queue");
        let builder = || scene::builder(scene::settings(2), &place, Called::nobody());
        let queue = started(start_when_free(builder).await?)?;
        until_all_ended(&queue).await?;
        let tasks = scene::all(&queue, "prove.step").await?;
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map_err(harness)?;
        Ok::<_, Failure>(tasks)
    })?;
    history.check(&tasks)
}
