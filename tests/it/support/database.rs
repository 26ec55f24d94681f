//! A database per test, copied from one that is migrated once per run.

use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;
use whitemonday::store;

const VARIABLE: &str = "WHITEMONDAY_TEST_DATABASE_URL";
/// Tests are processes of their own: the first one makes the template, the others wait.
const TEMPLATE_LOCK: i64 = 4_711;

/// Named by the migrations, so that a server that stays up between runs never serves an old schema.
fn template() -> String {
    let mut hash = Sha256::new();
    for migration in store::schema::MIGRATOR.iter() {
        hash.update(&migration.checksum);
    }
    let hash = hash.finalize();
    format!("template_{:016x}", u64::from_be_bytes(hash[..8].try_into().unwrap()))
}

pub struct TestDatabase {
    pub url: String,
    name: String,
    server: String,
}

impl TestDatabase {
    pub async fn create() -> Self {
        Self::create_on(shared_server()).await
    }

    /// On another server than the one that all tests share.
    pub async fn create_on(server: String) -> Self {
        let mut db = PgConnection::connect(&server).await.unwrap();
        let template = template();
        make_template(&mut db, &server, &template).await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        db.execute(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy").as_str()).await.unwrap();
        db.close().await.unwrap();
        Self { url: database_of(&server, &name), name, server }
    }

    /// A database without any schema.
    pub async fn create_empty() -> Self {
        let server = shared_server();
        let mut db = PgConnection::connect(&server).await.unwrap();
        let name = format!("test_{}", Uuid::new_v4().simple());
        db.execute(format!("CREATE DATABASE {name}").as_str()).await.unwrap();
        Self { url: database_of(&server, &name), name, server }
    }

    pub async fn drop(self) {
        let mut db = PgConnection::connect(&self.server).await.unwrap();
        db.execute(format!("DROP DATABASE {} WITH (FORCE)", self.name).as_str()).await.unwrap();
    }
}

fn shared_server() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| panic!("{VARIABLE} is not set: run the tests with `make test`"))
}

async fn make_template(db: &mut PgConnection, server: &str, template: &str) {
    db.execute(format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})").as_str()).await.unwrap();
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
        .bind(template)
        .fetch_one(&mut *db)
        .await
        .unwrap();
    if !exists {
        let building = "template_building";
        db.execute(format!("DROP DATABASE IF EXISTS {building} WITH (FORCE)").as_str()).await.unwrap();
        db.execute(format!("CREATE DATABASE {building}").as_str()).await.unwrap();
        let pool = PgPool::connect(&database_of(server, building)).await.unwrap();
        store::schema::run(&pool).await.unwrap();
        pool.close().await;
        // A closed pool can leave a session behind for a moment, and a template must have none.
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'template_building'";
        db.execute(end).await.unwrap();
        db.execute(format!("ALTER DATABASE {building} RENAME TO {template}").as_str()).await.unwrap();
    }
    db.execute(format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})").as_str()).await.unwrap();
}

fn database_of(server: &str, name: &str) -> String {
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}
