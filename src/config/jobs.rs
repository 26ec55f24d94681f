//! The workers, and what goes on by itself.

use std::time::Duration;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// How long a delivery belongs to the worker that read it.
    pub visibility: Duration,
    /// After this a step's worker counts as gone.
    pub step_deadline: Duration,
    /// A paid order goes on to PREPARING by itself after this; by staff only when there is none.
    pub prepare_after: Option<Duration>,
    /// The same of a shipped order and DELIVERED.
    pub deliver_after: Option<Duration>,
    /// How often a worker audits the data by itself, if at all.
    pub audit_every: Option<Duration>,
}

impl JobsConfig {
    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let visibility = reader.number("JOB_VISIBILITY_SECONDS", 45, 2..=3600);
        let step_deadline = reader.number("JOB_STEP_DEADLINE_SECONDS", 30, 1..=3599);
        if step_deadline >= visibility {
            reader.errors.push(
                "JOB_STEP_DEADLINE_SECONDS must be less than JOB_VISIBILITY_SECONDS, or a message is delivered again while its first worker is still at it"
                    .to_owned(),
            );
        }
        let prepare_after = reader.number("PREPARE_AFTER_MINUTES", 0, 0..=100_000);
        let deliver_after = reader.number("DELIVER_AFTER_DAYS", 0, 0..=365);
        let audit_every = reader.number("AUDIT_EVERY_SECONDS", 300, 0..=86_400);
        let some = |after: Duration| Some(after).filter(|after| !after.is_zero());
        Self {
            visibility: Duration::from_secs(visibility.into()),
            step_deadline: Duration::from_secs(step_deadline.into()),
            prepare_after: some(Duration::from_secs(60 * u64::from(prepare_after))),
            deliver_after: some(Duration::from_secs(24 * 60 * 60 * u64::from(deliver_after))),
            audit_every: some(Duration::from_secs(audit_every.into())),
        }
    }
}
