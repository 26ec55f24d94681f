//! Products from another shop's file. A product is known by a key of its source, so that the same file again changes nothing.

pub mod shopify;

use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use self::shopify::{Entry, FileError, Products};
use super::{product::with_first, purchase::CONTENTION_WAITS};
use crate::{
    app::App,
    domain::{
        ids::{CategoryId, ProductId},
        product::{MAX_AVAILABLE, MAX_IMAGES},
        stock::StockMovementKind,
    },
    store::{
        self, StoreError,
        category::Category,
        import::{ImportedRow, ProductContent},
        stock::NewMovement,
    },
};

/// A transaction ends with the product that fills it: its variants are never parted.
const VARIANTS_PER_TRANSACTION: usize = 500;
/// Refused rows that a report tells of; the others are counted.
const MOST_REFUSED_SHOWN: usize = 1_000;
const REASON: &str = "import";

/// A product of the file. Each of its variants becomes a product of ours.
#[derive(Debug)]
pub struct ImportedProduct {
    pub handle: String,
    pub description: String,
    /// The category's name; made when it is missing.
    pub category: Option<String>,
    pub images: Vec<String>,
    pub is_archived: bool,
    pub variants: Vec<Variant>,
}

#[derive(Debug)]
pub struct Variant {
    pub line: u64,
    pub key: String,
    pub title: String,
    /// Becomes the first of the product's images.
    pub image: Option<String>,
    pub price_minor: i64,
    /// `None` leaves the stock as it is.
    pub quantity: Option<i32>,
}

/// A row because of which its product is not imported.
#[derive(Debug)]
pub struct Refused {
    pub line: u64,
    pub handle: String,
    pub reason: String,
}

/// Why an import ended before the file did.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an import did, or with a dry run would do.
#[derive(Debug, Default)]
pub struct Report {
    pub rows: u64,
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
    /// The first of the refused rows.
    pub refused: Vec<Refused>,
    pub refused_rows: usize,
    /// Why the rest of the file was not imported. What is counted above is.
    pub broken_off: Option<BrokenOff>,
}

impl Report {
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.refused_rows == 0 && self.broken_off.is_none()
    }

    fn refuse(&mut self, rows: Vec<Refused>) {
        self.refused_rows += rows.len();
        let room = MOST_REFUSED_SHOWN.saturating_sub(self.refused.len());
        self.refused.extend(rows.into_iter().take(room));
    }
}

/// Imports a Shopify product CSV; `progress` is called with the bytes that were read. All or nothing per product of the file, in
/// transactions of some five hundred variants, which imports at the same time take in turns. A quantity changes the stock by its
/// difference to what imports have put in so far, so that what was sold meanwhile stays sold; all else is as the file says, whatever
/// staff have made of it.
pub async fn shopify(app: &App, file: impl Read, dry_run: bool, progress: impl Fn(u64)) -> Report {
    let mut report = Report::default();
    report.broken_off = import(app, file, dry_run, progress, &mut report).await.err();
    report
}

async fn import(app: &App, file: impl Read, dry_run: bool, progress: impl Fn(u64), report: &mut Report) -> Result<(), BrokenOff> {
    let mut products = Products::open(file, app.config.currency)?;
    loop {
        let mut batch = Vec::new();
        let goes_on = read(&mut products, &mut batch, report);
        report.rows = products.rows();
        // Where the file breaks off, too: what comes before that is whole.
        let written = write(app, &batch, dry_run).await?;
        report.created += written.created;
        report.updated += written.updated;
        report.unchanged += written.unchanged;
        report.refuse(written.refused);
        progress(products.position());
        if !goes_on? {
            return Ok(());
        }
    }
}

/// Reads the products of one transaction; whether the file goes on.
fn read(products: &mut Products<impl Read>, batch: &mut Vec<ImportedProduct>, report: &mut Report) -> Result<bool, FileError> {
    let mut variants = 0;
    while variants < VARIANTS_PER_TRANSACTION {
        match products.read_product()? {
            Some(Entry::Product(product)) => {
                variants += product.variants.len();
                batch.push(product);
            }
            Some(Entry::Refused(rows)) => report.refuse(rows),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What became of the products of a transaction.
#[derive(Default)]
struct Written {
    created: usize,
    updated: usize,
    unchanged: usize,
    refused: Vec<Refused>,
}

/// Writes products in one transaction, which is repeated when others make it fail.
async fn write(app: &App, batch: &[ImportedProduct], dry_run: bool) -> Result<Written, StoreError> {
    let mut written = Ok(Written::default());
    for wait in CONTENTION_WAITS {
        tokio::time::sleep(wait).await;
        written = write_once(app, batch, dry_run).await;
        if !written.as_ref().is_err_and(StoreError::is_transient) {
            break;
        }
    }
    written
}

async fn write_once(app: &App, batch: &[ImportedProduct], dry_run: bool) -> Result<Written, StoreError> {
    let now = app.clock.now();
    let mut written = Written::default();
    let mut tx = app.db.begin().await?;
    let keys: Vec<_> = batch.iter().flat_map(|product| &product.variants).map(|variant| variant.key.clone()).collect();
    let known: HashMap<_, _> = store::import::lock(&mut tx, &keys).await?.into_iter().map(|row| (row.key.clone(), row)).collect();
    let archived = batch.iter().filter(|product| product.is_archived).flat_map(|product| &product.variants);
    let archived: Vec<_> = archived.filter_map(|variant| known.get(&variant.key)).map(|row| row.id).collect();
    // Whoever schedules a sale holds the same locks.
    let sales = store::flash_sale::list_current_for_products(&mut tx, &archived, now).await?;
    let in_sale: HashSet<_> = sales.into_iter().map(|sale| sale.product_id).collect();
    let mut categories = HashMap::new();
    for product in batch {
        let stays = |variant: &&Variant| known.get(&variant.key).is_some_and(|row| in_sale.contains(&row.id));
        let refused: Vec<_> = product.variants.iter().filter(stays).map(|variant| refuse_archiving(product, variant)).collect();
        if !refused.is_empty() {
            written.refused.extend(refused);
            continue;
        }
        let category = match &product.category {
            Some(name) => Some(category(&mut tx, &mut categories, name, now).await?),
            None => None,
        };
        for variant in &product.variants {
            let mut images = with_first(product.images.clone(), variant.image.clone());
            images.truncate(MAX_IMAGES);
            let content = ProductContent {
                category,
                title: &variant.title,
                description: &product.description,
                images: &images,
                price_minor: variant.price_minor,
                is_archived: product.is_archived,
            };
            let Some(row) = known.get(&variant.key) else {
                let (id, units) = (ProductId::new(), variant.quantity.unwrap_or_default());
                store::import::insert(&mut tx, id, &variant.key, app.config.currency, &content, units, now).await?;
                move_stock(&mut tx, id, units, now).await?;
                written.created += 1;
                continue;
            };
            let units = stock_change(row, variant.quantity);
            if units == 0 && is_same(row, &content) {
                written.unchanged += 1;
                continue;
            }
            store::import::update(&mut tx, row.id, &content, units, now).await?;
            move_stock(&mut tx, row.id, units, now).await?;
            written.updated += 1;
        }
    }
    if dry_run {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(written)
}

fn refuse_archiving(product: &ImportedProduct, variant: &Variant) -> Refused {
    let reason = "it has a sale that is open or scheduled, and cannot be archived".to_owned();
    Refused { line: variant.line, handle: product.handle.clone(), reason }
}

/// The units to put in, or to take out, so that imports have put in as many as the source tells: none of those that are sold.
fn stock_change(row: &ImportedRow, told: Option<i32>) -> i32 {
    told.map_or(0, |told| (told - row.import_quantity).clamp(-row.available, (MAX_AVAILABLE - row.available).max(0)))
}

fn is_same(row: &ImportedRow, content: &ProductContent<'_>) -> bool {
    row.title == content.title
        && row.description == content.description
        && row.category_id == content.category
        && row.images == content.images
        && row.price_minor == content.price_minor
        && row.is_archived == content.is_archived
}

async fn move_stock(db: &mut PgConnection, product: ProductId, units: i32, at: DateTime<Utc>) -> Result<(), StoreError> {
    let kind = match units {
        0 => return Ok(()),
        1.. => StockMovementKind::Received,
        _ => StockMovementKind::Adjusted,
    };
    store::stock::insert_movement(db, &NewMovement { kind, quantity: units, product, sale: None, reason: Some(REASON) }, at).await
}

/// The category of a type's name, made when it is missing.
async fn category(
    db: &mut PgConnection,
    known: &mut HashMap<String, CategoryId>,
    name: &str,
    at: DateTime<Utc>,
) -> Result<CategoryId, StoreError> {
    if let Some(id) = known.get(name) {
        return Ok(*id);
    }
    let category = Category { id: CategoryId::new(), parent_id: None, slug: slug(name), name: name.to_owned() };
    let id = store::category::insert_if_new(db, &category, at).await?;
    known.insert(name.to_owned(), id);
    Ok(id)
}

/// A slug of a name's words. It does without capitals; where it loses more of the name, a hash tells the name from others.
fn slug(name: &str) -> String {
    let words: Vec<_> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let slug: String = words.join("-").to_ascii_lowercase().chars().take(60).collect();
    let slug = slug.trim_end_matches('-');
    if name.to_ascii_lowercase().replace(' ', "-") == slug {
        return slug.to_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash = format!("{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
    if slug.is_empty() { format!("type-{hash}") } else { format!("{slug}-{hash}") }
}
