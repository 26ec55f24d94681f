//! `dead-letters`: messages that no worker could use, for operators. The same as `admin.deadLetters` for staff.

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{OperatorArgs, output};
use crate::{
    app::App,
    domain::ids::DeadLetterId,
    services::dead_letter,
    store::{
        self,
        dead_letter::{DeadLetter, DeadLetterPosition},
    },
};

const PAGE: usize = 200;

#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// List them, newest first
    List(ListArgs),
    /// Show one with its message and its last error
    Show(IdsArgs),
    /// Put them back into their queues; work that is done already is not done again
    Replay(ChosenArgs),
    /// Forget them
    Discard(ChosenArgs),
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Only those of this queue: payment, compensation, mail
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// As JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct IdsArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// dead_…, as `list` prints them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Args)]
pub struct ChosenArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// dead_…, as `list` prints them
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    ids: Vec<String>,
    /// All of them; with --queue those of one queue
    #[arg(long)]
    all: bool,
    /// The queue that --all means
    #[arg(long, value_name = "NAME", requires = "all")]
    queue: Option<String>,
}

pub async fn run(command: DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List(args) => list(&args).await,
        DeadLettersCommand::Show(args) => show(&args).await,
        DeadLettersCommand::Replay(args) => {
            let app = args.operator.app()?;
            let count = dead_letter::replay(&app, &args.chosen(&app).await?).await?;
            println!("{count} put back into their queues.");
            Ok(())
        }
        DeadLettersCommand::Discard(args) => {
            let app = args.operator.app()?;
            let count = dead_letter::discard(&app, &args.chosen(&app).await?).await?;
            println!("{count} discarded.");
            Ok(())
        }
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let letters = all(&args.operator.app()?, args.queue.as_deref()).await?;
    if args.json {
        for letter in &letters {
            println!("{}", json(letter));
        }
        return Ok(());
    }
    if letters.is_empty() {
        println!("There are no dead letters.");
        return Ok(());
    }
    let mut table = output::table(&["id", "queue", "kind", "dead since", "attempts", "reason"]);
    for letter in &letters {
        let dead_at = letter.dead_at.format("%Y-%m-%d %H:%M:%S").to_string();
        let attempts = letter.attempts.to_string();
        let cells = [letter.id.to_string(), letter.queue.clone(), letter.kind.clone(), dead_at, attempts, letter.reason.clone()];
        table.add_row(cells.map(Cell::new));
    }
    println!("{table}");
    Ok(())
}

async fn show(args: &IdsArgs) -> anyhow::Result<()> {
    let ids = parse(&args.ids)?;
    let app = args.operator.app()?;
    let letters = store::dead_letter::list_by_ids(&mut *app.db.acquire().await?, &ids).await?;
    for letter in &letters {
        println!("{}", serde_json::to_string_pretty(&json(letter))?);
    }
    if letters.len() < ids.len() {
        bail!("{} of them are not there (any more)", ids.len() - letters.len());
    }
    Ok(())
}

/// Every dead letter, page by page.
async fn all(app: &App, queue: Option<&str>) -> anyhow::Result<Vec<DeadLetter>> {
    let mut db = app.db.acquire().await?;
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let after = letters.last().map(|last| DeadLetterPosition { dead_at: last.dead_at, id: last.id });
        let page = store::dead_letter::list(&mut db, queue, after, PAGE).await?;
        letters.extend(page.rows);
        if !page.has_more {
            return Ok(letters);
        }
    }
}

impl ChosenArgs {
    async fn chosen(&self, app: &App) -> anyhow::Result<Vec<DeadLetterId>> {
        if self.all {
            return Ok(all(app, self.queue.as_deref()).await?.into_iter().map(|letter| letter.id).collect());
        }
        parse(&self.ids)
    }
}

fn parse(ids: &[String]) -> anyhow::Result<Vec<DeadLetterId>> {
    let parse =
        |id: &String| DeadLetterId::parse(id).ok_or_else(|| anyhow::anyhow!("{id} is not a dead letter's id: dead_ and 32 hex digits"));
    ids.iter().map(parse).collect()
}

fn json(letter: &DeadLetter) -> serde_json::Value {
    serde_json::json!({
        "id": letter.id.to_string(), "queue": letter.queue, "kind": letter.kind, "reason": letter.reason, "lastError": letter.last_error,
        "attempts": letter.attempts, "traceId": letter.trace_id, "enqueuedAt": letter.enqueued_at, "deadAt": letter.dead_at,
        "payload": letter.payload,
    })
}
