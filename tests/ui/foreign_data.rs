use message_queue_sqlite::task;

struct Data<T>(T);

#[task]
async fn foreign(data: Data<u8>) {
    drop(data.0);
}

fn main() {}
