//! The tasks that several tests use.

use std::collections::HashMap;

use message_queue_sqlite::prelude::*;

use crate::probe::Probe;

pub(crate) const PATH: &str = module_path!();

#[task(name = "double")]
pub(crate) async fn double(number: u64) -> Result<u64, TaskError> {
    Ok(number * 2)
}

#[task(name = "add", codec = "json")]
pub(crate) async fn add(left: i64, right: i64) -> Result<i64, TaskError> {
    Ok(left + right)
}

#[task(name = "concat")]
pub(crate) async fn concat(left: String, right: String) -> Result<String, TaskError> {
    Ok(left + &right)
}

/// Writes into the log.
#[task(name = "log")]
pub(crate) async fn log(line: String, probe: Data<Probe>) -> Result<(), TaskError> {
    probe.note(line);
    Ok(())
}

/// Says that it has started, waits at the gate, says that it has ended; heeds no token.
#[task(name = "gated")]
pub(crate) async fn gated(tag: String, probe: Data<Probe>) -> Result<String, TaskError> {
    let leaving = Leaving { probe: (*probe).clone(), tag: tag.clone() };
    probe.note(format!("{tag} started"));
    probe.pass().await;
    probe.note(format!("{tag} passed"));
    drop(leaving);
    Ok(tag)
}

/// Notes that an attempt's future is gone, however it went.
struct Leaving {
    probe: Probe,
    tag: String,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.probe.note(format!("{} left", self.tag));
    }
}

/// As `gated`, on a thread that may block.
#[task(name = "gated.blocking", blocking)]
pub(crate) fn gated_blocking(tag: String, probe: Data<Probe>) -> Result<String, TaskError> {
    probe.note(format!("{tag} started"));
    probe.pass_blocking();
    probe.note(format!("{tag} passed"));
    Ok(tag)
}

/// As `gated`, in blocking code that it started itself.
#[task(name = "gated.borrowed")]
pub(crate) async fn gated_borrowed(tag: String, probe: Data<Probe>) -> Result<String, TaskError> {
    let probe = probe.clone();
    let blocking = tokio::task::spawn_blocking(move || {
        probe.note(format!("{tag} started"));
        probe.pass_blocking();
        tag
    });
    blocking.await.map_err(TaskError::fatal)
}

/// Runs until it is told to end, and fails then.
#[task(name = "obedient")]
pub(crate) async fn obedient(probe: Data<Probe>, ctx: TaskContext) -> Result<(), TaskError> {
    probe.note("obedient started");
    ctx.cancelled().await;
    probe.note("obedient told");
    Err(TaskError::retry("told to end"))
}

/// Fails this often, then says how often it had.
#[task(name = "flaky", backoff = "0ms..1ms", max_attempts = 10)]
pub(crate) async fn flaky(
    times: u32,
    ctx: TaskContext,
    probe: Data<Probe>,
) -> Result<u32, TaskError> {
    probe.note("flaky");
    if ctx.failures() < times { Err(TaskError::retry("not yet")) } else { Ok(ctx.failures()) }
}

#[task(name = "fatal")]
pub(crate) async fn fatal(text: String, probe: Data<Probe>) -> Result<(), TaskError> {
    probe.note("fatal");
    Err(TaskError::fatal(text))
}

#[task(name = "panicking", max_attempts = 1)]
pub(crate) async fn panicking(text: String) -> Result<(), TaskError> {
    panic!("{text}")
}

/// A key that isn't text: JSON can't carry it.
#[task(name = "unwritable", codec = "json")]
pub(crate) async fn unwritable() -> Result<HashMap<(u8, u8), u8>, TaskError> {
    Ok(HashMap::from([((1, 2), 3)]))
}

/// Fails until the log says `mended`.
#[task(name = "mendable", max_attempts = 1)]
pub(crate) async fn mendable(probe: Data<Probe>) -> Result<u8, TaskError> {
    if probe.count("mended") > 0 { Ok(7) } else { Err(TaskError::retry("broken")) }
}

/// Notes whose end it was told of, and how that ended.
#[callback(name = "heard")]
pub(crate) async fn heard(result: TaskResult, probe: Data<Probe>) -> Result<(), TaskError> {
    probe.note(format!("heard {} {:?}", result.id(), result.outcome()));
    Ok(())
}

/// Waits at the gate before it notes.
#[callback(name = "heard.late")]
pub(crate) async fn heard_late(result: TaskResult, probe: Data<Probe>) -> Result<(), TaskError> {
    probe.note(format!("hearing {}", result.id()));
    probe.pass().await;
    probe.note(format!("heard {} {:?}", result.id(), result.outcome()));
    Ok(())
}

/// Fails until the log says `mended`.
#[callback(name = "deaf", max_attempts = 2, backoff = "0ms..1ms")]
pub(crate) async fn deaf(_: TaskResult, probe: Data<Probe>) -> Result<(), TaskError> {
    probe.note("deaf");
    if probe.count("mended") > 0 { Ok(()) } else { Err(TaskError::retry("heard nothing")) }
}
