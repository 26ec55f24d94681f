//! Follows the database's clock.

use chrono::TimeDelta;

use super::ServiceError;
use crate::{app::App, store};

const READINGS: usize = 5;
/// More than this, and the machine's own clock is not kept well.
const SUSPICIOUS: TimeDelta = TimeDelta::milliseconds(200);

/// Reads the database's time a few times and takes over the reading with the median offset.
pub async fn follow_database(app: &App) -> Result<(), ServiceError> {
    let mut db = app.db.acquire().await?;
    let mut readings = Vec::with_capacity(READINGS);
    for _ in 0..READINGS {
        let asked = app.clock.now();
        let reading = store::clock::get_now(&mut db).await?;
        readings.push((reading, asked, app.clock.now()));
    }
    readings.sort_by_key(|(reading, asked, answered)| *reading - (*asked + (*answered - *asked) / 2));
    let (reading, asked, answered) = readings[READINGS / 2];
    let offset = app.clock.follow(reading, asked, answered);
    if offset.abs() > SUSPICIOUS {
        tracing::warn!(offset_ms = offset.num_milliseconds(), "this machine's clock differs from the database's");
    }
    Ok(())
}
