//! A step of the program at which it waits for the test: the database waits there for a lock that the test holds.

use sqlx::{Connection, Executor, PgConnection};

use super::{PATIENCE, TestApp, until};

const KEY: i32 = 4_712;

/// A change of rows, in the words of a trigger.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub table: &'static str,
    pub event: &'static str,
    pub when: &'static str,
    /// Not with the statement, but when its transaction commits.
    pub at_commit: bool,
}

impl Step {
    pub const fn insert(table: &'static str) -> Self {
        Self { table, event: "INSERT", when: "true", at_commit: false }
    }

    pub const fn delete(table: &'static str) -> Self {
        Self { table, event: "DELETE", when: "true", at_commit: false }
    }

    /// `when` may speak of OLD and NEW.
    pub const fn update(table: &'static str, when: &'static str) -> Self {
        Self { table, event: "UPDATE", when, at_commit: false }
    }

    pub const fn at_commit(self) -> Self {
        Self { at_commit: true, ..self }
    }
}

/// While it stands, whoever reaches the step waits, in the midst of the transaction.
pub struct Barrier {
    db: PgConnection,
    /// The server's process behind `db`: those that wait at the barrier wait for this one.
    pid: i32,
    has_trigger: bool,
}

impl Barrier {
    async fn new(test: &TestApp, has_trigger: bool) -> Self {
        let mut db = PgConnection::connect(&test.database.url).await.unwrap();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut db).await.unwrap();
        Self { db, pid, has_trigger }
    }

    pub async fn at(test: &TestApp, step: Step) -> Self {
        Self::after(test, step, 0).await
    }

    /// Lets this many rows pass first.
    pub async fn after(test: &TestApp, step: Step, let_through: usize) -> Self {
        let mut barrier = Self::new(test, true).await;
        let Step { table, event, when, at_commit } = step;
        let (constraint, deferred) = if at_commit { ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") } else { ("", "") };
        // A sequence counts rows of transactions that are rolled back, too. The program's own lock time-out must not end the wait.
        let trigger = format!(
            "SELECT pg_advisory_lock({KEY});
             CREATE SEQUENCE barrier_rows;
             CREATE FUNCTION barrier() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
                 IF nextval('barrier_rows') > {let_through} THEN PERFORM pg_advisory_xact_lock_shared({KEY}); END IF;
                 RETURN NULL;
             END $$;
             CREATE {constraint} TRIGGER barrier AFTER {event} ON {table} {deferred} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION barrier()"
        );
        barrier.db.execute(sqlx::raw_sql(&trigger)).await.unwrap();
        barrier
    }

    /// At the rows of all orders that wait for their payment.
    pub async fn at_unpaid_orders(test: &TestApp) -> Self {
        let mut barrier = Self::new(test, false).await;
        let lock = "BEGIN; SELECT 1 FROM orders WHERE status = 'AWAITING_PAYMENT' ORDER BY id FOR UPDATE";
        barrier.db.execute(sqlx::raw_sql(lock)).await.unwrap();
        barrier
    }

    /// Returns when somebody waits at the barrier.
    pub async fn reached(&self, test: &TestApp) {
        self.until_any(test, &format!("pg_blocking_pids(pid) @> ARRAY[{}]", self.pid)).await;
    }

    /// Returns when somebody waits for those who wait at the barrier.
    pub async fn has_queue(&self, test: &TestApp) {
        let at_barrier = format!("SELECT array_agg(pid) FROM pg_stat_activity WHERE pg_blocking_pids(pid) @> ARRAY[{}]", self.pid);
        self.until_any(test, &format!("pg_blocking_pids(pid) && ({at_barrier})")).await;
    }

    async fn until_any(&self, test: &TestApp, condition: &str) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}");
        until(async || (test.scalar(&sql).await > 0).then_some(())).await;
    }

    /// Ends the sessions that wait at the barrier: their transactions are rolled back.
    pub async fn end_waiting(&mut self) {
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pg_blocking_pids(pid) @> ARRAY[$1]";
        sqlx::query(end).bind(self.pid).execute(&mut self.db).await.unwrap();
    }

    /// Lets everybody pass, and waits until those who waited have.
    pub async fn lift(mut self) {
        let lift = if self.has_trigger {
            format!("SELECT pg_advisory_unlock({KEY}); DROP FUNCTION barrier CASCADE; DROP SEQUENCE barrier_rows")
        } else {
            "ROLLBACK".to_owned()
        };
        let lifted = tokio::time::timeout(PATIENCE, self.db.execute(sqlx::raw_sql(&lift)));
        lifted.await.expect("whoever waited goes on").unwrap();
        self.db.close().await.unwrap();
    }
}
