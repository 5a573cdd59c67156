//! Tasks that no program names. They can be found only by what the macros leave for the linker.

mod sums {
    use std::convert::Infallible;

    use message_queue_sqlite::prelude::*;

    #[task(name = "sums.add")]
    async fn add(left: u64, right: u64) -> Result<u64, Infallible> {
        Ok(left + right)
    }
}

mod words {
    use std::convert::Infallible;

    use message_queue_sqlite::prelude::*;

    #[task(name = "words.count", blocking)]
    fn count(text: String) -> Result<usize, Infallible> {
        Ok(text.split_whitespace().count())
    }

    #[callback(name = "words.counted")]
    async fn counted(_: TaskResult) {}
}
