use message_queue_sqlite::prelude::*;

fn main() {
    #[derive(Serialize, Deserialize)]
    struct Email;

    #[task]
    async fn send_mail(email: Email) -> Result<(), TaskError> {
        drop(email);
        Ok(())
    }

    #[callback]
    async fn on_sent(_: TaskResult) {}
}
