//! Products from another shop's file. A product is known by a key of its source, so that the same file again changes nothing.

pub mod shopify;

use std::{collections::HashMap, io::Read};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use self::shopify::{Entry, FileError, Products};
use super::ServiceError;
use crate::{
    app::App,
    domain::{
        ids::{CategoryId, ProductId},
        stock::StockMovementKind,
    },
    store::{
        self, StoreError,
        category::Category,
        import::{ImportedRow, ProductContent},
        stock::NewMovement,
    },
};

/// Products of the file in one transaction. A product's variants are never parted.
const PRODUCTS_PER_TRANSACTION: usize = 100;
/// Refused rows that a report tells of; the others are counted.
const MOST_REFUSED_SHOWN: usize = 1_000;
const REASON: &str = "import";

/// A product of ours: a variant of the file's.
#[derive(Debug)]
pub struct ImportedProduct {
    pub key: String,
    pub title: String,
    pub description: String,
    /// The category's name; made when it is missing.
    pub category: Option<String>,
    pub images: Vec<String>,
    pub price_minor: i64,
    /// `None` leaves the stock as it is.
    pub quantity: Option<i32>,
    pub is_archived: bool,
}

/// A row because of which its product is not imported.
#[derive(Debug)]
pub struct Refused {
    pub line: u64,
    pub handle: String,
    pub reason: String,
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
    /// Why the rest of the file was not read. What came before it is imported.
    pub broken_off: Option<FileError>,
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
/// transactions of a hundred of them; imports at the same time follow one another. A quantity changes the stock by its difference to
/// the last import's, so that what was sold meanwhile stays sold.
pub async fn shopify(app: &App, file: impl Read, dry_run: bool, progress: impl Fn(u64)) -> Result<Report, ServiceError> {
    let mut report = Report::default();
    let mut products = match Products::open(file, app.config.currency) {
        Ok(products) => products,
        Err(error) => return Ok(Report { broken_off: Some(error), ..report }),
    };
    let mut is_over = false;
    while !is_over {
        let mut batch = Vec::new();
        let mut count = 0;
        while count < PRODUCTS_PER_TRANSACTION && !is_over {
            match products.read_product() {
                Ok(Some(Entry::Product(variants))) => {
                    batch.extend(variants);
                    count += 1;
                }
                Ok(Some(Entry::Refused(rows))) => report.refuse(rows),
                Ok(None) => is_over = true,
                Err(error) => {
                    report.broken_off = Some(error);
                    is_over = true;
                }
            }
        }
        write(app, batch, dry_run, &mut report).await?;
        progress(products.position());
    }
    report.rows = products.rows();
    Ok(report)
}

async fn write(app: &App, batch: Vec<ImportedProduct>, dry_run: bool, report: &mut Report) -> Result<(), ServiceError> {
    if batch.is_empty() {
        return Ok(());
    }
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let keys: Vec<_> = batch.iter().map(|product| product.key.clone()).collect();
    let known: HashMap<_, _> = store::import::lock(&mut tx, &keys).await?.into_iter().map(|row| (row.key.clone(), row)).collect();
    let mut categories = HashMap::new();
    for product in batch {
        let category = match &product.category {
            Some(name) => Some(category(&mut tx, &mut categories, name, now).await?),
            None => None,
        };
        let content = ProductContent {
            category,
            title: &product.title,
            description: &product.description,
            images: &product.images,
            price_minor: product.price_minor,
            told_quantity: product.quantity,
            is_archived: product.is_archived,
        };
        match known.get(&product.key) {
            None => {
                let id = ProductId::new();
                store::import::insert(&mut tx, id, &product.key, app.config.currency, &content, now).await?;
                move_stock(&mut tx, id, content.told_quantity.unwrap_or_default(), now).await?;
                report.created += 1;
            }
            Some(row) if is_same(row, &content) => report.unchanged += 1,
            Some(row) => {
                let delta = content.told_quantity.map_or(0, |told| told - row.told_quantity.unwrap_or_default());
                // What is sold already cannot be taken away.
                let delta = delta.max(-row.available);
                store::import::update(&mut tx, row.id, &content, delta, now).await?;
                move_stock(&mut tx, row.id, delta, now).await?;
                report.updated += 1;
            }
        }
    }
    if dry_run {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(())
}

fn is_same(row: &ImportedRow, content: &ProductContent<'_>) -> bool {
    row.title == content.title
        && row.description == content.description
        && row.category_id == content.category
        && row.images == content.images
        && row.price_minor == content.price_minor
        && row.is_archived == content.is_archived
        && (content.told_quantity.is_none() || row.told_quantity == content.told_quantity)
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

/// A slug has letters of ASCII only: a name that has others is told from the rest by its hash.
fn slug(name: &str) -> String {
    let words: Vec<_> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let slug: String = words.join("-").to_ascii_lowercase().chars().take(60).collect();
    let slug = slug.trim_end_matches('-');
    if name.is_ascii() && !slug.is_empty() && name.len() <= 60 {
        return slug.to_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash = format!("{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
    if slug.is_empty() { format!("type-{hash}") } else { format!("{slug}-{hash}") }
}
