use message_queue_sqlite::prelude::*;
use std::fmt::Display;
use std::path::Path;

type Done = Result<(), TaskError>;

#[task(blocking)]
async fn both() -> Done {
    Ok(())
}

#[task]
fn neither() -> Done {
    Ok(())
}

#[task]
async fn generic<T>(_value: T) -> Done {
    Ok(())
}

#[task]
async fn text(_text: &str) -> Done {
    Ok(())
}

#[task]
async fn inside(_paths: Vec<&'static Path>) -> Done {
    Ok(())
}

#[task]
async fn by_reference(_data: &Data<u8>) -> Done {
    Ok(())
}

#[task]
async fn any(_value: impl Display) -> Done {
    Ok(())
}

#[task]
async fn pattern((_a, _b): (u8, u8)) -> Done {
    Ok(())
}

#[task]
async fn nameless(_: u8) -> Done {
    Ok(())
}

#[task]
async fn not_kept(_value: Cached<u8>) -> Done {
    Ok(())
}

#[task(blocking)]
unsafe extern "C" fn far_away() {}

#[task]
fn later() -> impl Future<Output = Done> {
    async { Ok(()) }
}

#[task]
struct NoFunction;

struct Mailer;

impl Mailer {
    #[task]
    async fn method(&self) -> Done {
        Ok(())
    }
}

fn main() {}
