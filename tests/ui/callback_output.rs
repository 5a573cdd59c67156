use message_queue_sqlite::prelude::*;

#[callback]
async fn counts(result: TaskResult) -> Result<u32, TaskError> {
    Ok(result.decode()?)
}

fn main() {}
