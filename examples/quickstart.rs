//! One typed task, a handle awaited, a subscription that prints.
//!
//!     cargo run --release --example quickstart
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use message_queue_sqlite::prelude::*;

/// The task: a plain function, made submittable by the attribute.
#[task(name = "greet", max_attempts = 3, timeout = "5s")]
async fn greet(name: String) -> Result<String, std::io::Error> {
    Ok(format!("hello, {name}"))
}

/// An actor whose mailbox gets every result of `greet`.
struct Printer;

impl Actor for Printer {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Printer {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        println!("task {} {:?}: {:?}", result.id(), result.outcome(), result.decode::<String>());
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // a directory of its own for each run; a program would name one and keep it
    let dir = std::env::temp_dir().join(format!("mqs-quickstart-{}", std::process::id()));

    let queue = Queue::builder().dir(&dir).discover(module_path!()).start().await?;
    let printer = Printer.start();
    let _guard = queue.subscribe::<greet::Task>(printer.recipient()).await?;

    // Ok means that the task is on disk
    let handle = queue.submit(greet::task("world".to_string()).priority(1)).await?;
    println!("submitted task {}", handle.id());
    tokio::select! {
        greeting = handle => println!("awaited: {}", greeting?),
        signal = shutdown_signal() => signal?,
    }

    // attempts end, results are delivered, files are closed
    queue.shutdown(Duration::from_secs(5)).await?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
