use message_queue_sqlite::prelude::*;

struct Opaque;

#[task]
async fn opaque() -> Result<Opaque, TaskError> {
    Ok(Opaque)
}

fn main() {}
