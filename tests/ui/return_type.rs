use message_queue_sqlite::prelude::*;

#[task]
async fn count() -> u64 {
    1
}

#[task(blocking)]
fn text() -> Result<u64, String> {
    Ok(1)
}

fn main() {}
