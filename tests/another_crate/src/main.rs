//! Finds the tasks of the library beside it and runs one: `another_crate DIR`.
//!
//! A program and a library of one package are two crates, so this is how any program uses a crate
//! with tasks. It names none of them.
#![expect(clippy::print_stdout, reason = "who runs it reads what it prints")]

use std::error::Error;
use std::path::PathBuf;

use message_queue_sqlite::QueueBuilder;
use message_queue_sqlite::prelude::*;
use tokio::sync::oneshot;

// Without this line the library isn't linked, and its tasks aren't there.
use another_crate as _;

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: another_crate DIR")?;
    let builder = || Queue::builder().dir(PathBuf::from(&dir)).workers(1);
    println!("discover: {}", names(builder().discover("another_crate::words")).await?);
    println!("discover_all: {}", names(builder().discover_all()).await?);
    println!("sums.add: {}", add(builder().discover_all()).await?);
    Ok(())
}

async fn names(builder: QueueBuilder) -> Result<String, Box<dyn Error>> {
    let queue = builder.start().await?;
    let names = queue.task_names().join(" ");
    queue.shutdown(Duration::from_secs(5)).await?;
    Ok(names)
}

async fn add(builder: QueueBuilder) -> Result<u64, Box<dyn Error>> {
    let queue = builder.start().await?;
    let (told, result) = oneshot::channel();
    let submit = Submit::raw("sums.add", Codec::Json, *b"[19, 23]");
    queue.submit_raw(submit.on_result(|result| drop(told.send(result)))).await?;
    let sum = result.await?.decode()?;
    queue.shutdown(Duration::from_secs(5)).await?;
    Ok(sum)
}
