//! Sends mails. Trigger: queue `mail`, message kind `send`, the mail's id.
//!
//! Idempotent as far as mail can be: a mail that is sent is forgotten with its message. A failure is put off and tried again, and
//! is a dead letter in the end.

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::runner::{QueueRunner, carry_out, of_kind};
use crate::{
    app::App,
    services::{ServiceError, mail, retry},
    store::queue::{Delivery, Queue},
};

const BATCH: i32 = 20;
const CONCURRENT_MAILS: usize = 4;

pub async fn run(app: App, stop: CancellationToken) {
    let bell = app.mail_waiting.clone();
    QueueRunner { app, queue: Queue::Mail, batch: BATCH, at_once: 1, bell, room: |_| None, stop }.run(handle).await;
}

async fn handle(app: App, deliveries: Vec<Delivery>) -> Result<(), ServiceError> {
    let send = async |delivery: Delivery| {
        carry_out("mail", &delivery, mail::deliver(&app, &delivery), |error| retry::fail(&app, &delivery, error)).await;
    };
    stream::iter(of_kind(deliveries, mail::KIND)).for_each_concurrent(CONCURRENT_MAILS, send).await;
    Ok(())
}
