use message_queue_sqlite::prelude::*;

struct Opaque;

#[task(use_cache)]
async fn kept(shared: Cached<Opaque>, cloned: Opaque) {
    drop((shared, cloned));
}

fn main() {}
