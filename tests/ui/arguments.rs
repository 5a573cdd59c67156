use message_queue_sqlite::prelude::*;

struct Opaque;

#[task]
async fn stored(count: u8, value: Opaque) {
    drop((count, value));
}

fn main() {}
