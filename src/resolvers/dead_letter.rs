//! Dead letters: what staff look at, send again, or discard.

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject, connection::Connection};
use uuid::Uuid;

use super::{
    connection::{PageArguments, PageRequest, connection},
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    scalars::DateTime,
};
use crate::{
    domain::ids::DeadLetterId,
    services,
    store::{self, StoreError, dead_letter::DeadLetterPosition},
};

pub struct DeadLetter(pub store::dead_letter::DeadLetter);

/// A message that no worker could use, or whose work failed too often. For staff.
#[Object]
impl DeadLetter {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn queue(&self) -> &str {
        &self.0.queue
    }

    async fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The message as it was, as JSON: ids only.
    async fn payload(&self) -> String {
        self.0.payload.to_string()
    }

    /// Why it is dead.
    async fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What went wrong the last time.
    async fn last_error(&self) -> Option<&str> {
        self.0.last_error.as_deref()
    }

    async fn attempts(&self) -> i32 {
        self.0.attempts
    }

    async fn trace_id(&self) -> Option<&str> {
        self.0.trace_id.as_deref()
    }

    async fn enqueued_at(&self) -> DateTime {
        self.0.enqueued_at.into()
    }

    async fn dead_at(&self) -> DateTime {
        self.0.dead_at.into()
    }
}

/// Counts the whole list, only when it is asked for.
pub struct DeadLetterTotal(Option<String>);

#[Object]
impl DeadLetterTotal {
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(i32::try_from(store::dead_letter::count(&mut db, self.0.as_deref()).await?).unwrap_or(i32::MAX))
    }
}

pub type DeadLetterConnection = Connection<String, DeadLetter, DeadLetterTotal>;

/// A page of dead letters, newest first.
pub async fn page(ctx: &Context<'_>, queue: Option<String>, first: Option<i32>, after: Option<String>) -> Result<DeadLetterConnection> {
    let request: PageRequest<(i64, Uuid)> = PageArguments { first, after, ..PageArguments::default() }.read()?;
    let position = |(micros, id): (i64, Uuid)| {
        let dead_at = chrono::DateTime::from_timestamp_micros(micros).ok_or(ApiError::BadRequest("This cursor is not one of ours."))?;
        Ok::<_, ApiError>(DeadLetterPosition { dead_at, id: DeadLetterId(id) })
    };
    let from = request.from.map(position).transpose()?;
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let page = store::dead_letter::list(&mut db, queue.as_deref(), from, request.size).await?;
    Ok(connection(page, &request, DeadLetterTotal(queue), |row| (row.dead_at.timestamp_micros(), row.id.0), DeadLetter))
}

/// The dead letter of a global id, for staff.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<DeadLetter>> {
    let Some(id) = DeadLetterId::parse(id).filter(|_| ctx.is_staff()) else { return Ok(None) };
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    Ok(store::dead_letter::list_by_ids(&mut db, &[id]).await?.pop().map(DeadLetter))
}

#[derive(InputObject)]
pub struct DeadLettersInput {
    /// 1 to 500 of them.
    ids: Vec<ID>,
}

#[derive(SimpleObject)]
pub struct DeadLettersPayload {
    /// How many there were: somebody else may have taken some.
    count: i32,
    user_errors: Vec<UserError>,
}

const MAX_IDS: usize = 500;

#[derive(Default)]
pub struct DeadLetterMutation;

#[Object]
impl DeadLetterMutation {
    /// For staff: puts dead letters back into their queues. Their work goes through the same guards as ever.
    async fn replay_dead_letters(&self, ctx: &Context<'_>, input: DeadLettersInput) -> Result<DeadLettersPayload> {
        ctx.staff()?;
        match ids(&input) {
            Ok(ids) => Ok(done(services::dead_letter::replay(ctx.app(), &ids).await?)),
            Err(error) => Ok(DeadLettersPayload { count: 0, user_errors: vec![error] }),
        }
    }

    /// For staff: forgets dead letters.
    async fn discard_dead_letters(&self, ctx: &Context<'_>, input: DeadLettersInput) -> Result<DeadLettersPayload> {
        ctx.staff()?;
        match ids(&input) {
            Ok(ids) => Ok(done(services::dead_letter::discard(ctx.app(), &ids).await?)),
            Err(error) => Ok(DeadLettersPayload { count: 0, user_errors: vec![error] }),
        }
    }
}

fn ids(input: &DeadLettersInput) -> Result<Vec<DeadLetterId>, UserError> {
    let ids: Option<Vec<_>> = input.ids.iter().map(|id| DeadLetterId::parse(id)).collect();
    let invalid = || UserError::new(UserErrorCode::Invalid, &["ids"], "1 to 500 ids of dead letters.");
    ids.filter(|ids| (1..=MAX_IDS).contains(&ids.len())).ok_or_else(invalid)
}

fn done(count: usize) -> DeadLettersPayload {
    DeadLettersPayload { count: i32::try_from(count).unwrap_or(i32::MAX), user_errors: Vec::new() }
}
