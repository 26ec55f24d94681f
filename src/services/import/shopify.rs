//! The product CSV that Shopify exports: a row per variant or further image, and what is common to a product on its first row only.
//! Read row by row, so that a file of any size needs little memory.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use csv::{ByteRecord, ReaderBuilder};

use super::{ImportedProduct, Refused};
use crate::domain::money::{Currency, Money};

/// A row of more is a quotation mark that was left open.
const MOST_BYTES_OF_A_ROW: usize = 4 * 1024 * 1024;
/// Shopify's own limits are 2,048 variants and 250 images.
const MOST_ROWS_OF_A_PRODUCT: usize = 5_000;
const MOST_IMAGES: usize = 20;
const MOST_UNITS: i32 = 100_000_000;
/// What Shopify calls the variant of a product that has no options.
const NO_OPTIONS: &str = "Default Title";

/// Why the rest of a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("the column {0:?} is missing: is this the CSV of products that Shopify exports?")]
    NoColumn(&'static str),
    #[error("the file cannot be read: {0}")]
    Csv(#[from] csv::Error),
}

/// Fails when a row is longer than any that is meant.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("a row has more than 4 MB; is a quotation mark left open?"));
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

struct Row {
    line: u64,
    fields: ByteRecord,
}

/// The rows of one product.
struct Group {
    handle: String,
    rows: Vec<Row>,
}

/// A product of the file.
pub enum Entry {
    /// Its variants.
    Product(Vec<ImportedProduct>),
    Refused(Vec<Refused>),
}

pub struct Products<R> {
    reader: csv::Reader<Bounded<R>>,
    columns: BTreeMap<String, usize>,
    currency: Currency,
    /// The first row of the next product.
    next: Option<Row>,
    rows: u64,
}

impl<R: Read> Products<R> {
    /// # Errors
    /// When the first row does not name the columns that are needed.
    pub fn open(file: R, currency: Currency) -> Result<Self, FileError> {
        let bounded = Bounded { inner: file, left: MOST_BYTES_OF_A_ROW };
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(bounded);
        let mut columns = BTreeMap::new();
        for (place, name) in reader.byte_headers()?.iter().enumerate() {
            columns.entry(String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned()).or_insert(place);
        }
        for needed in ["Handle", "Title", "Variant Price"] {
            if !columns.contains_key(needed) {
                return Err(FileError::NoColumn(needed));
            }
        }
        Ok(Self { reader, columns, currency, next: None, rows: 0 })
    }

    /// Rows that were read.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that were read.
    pub fn position(&self) -> u64 {
        self.reader.position().byte()
    }

    /// # Errors
    /// When the file cannot be read any further; the product that it breaks off in is not given.
    pub fn read_product(&mut self) -> Result<Option<Entry>, FileError> {
        let Some(group) = self.next_group()? else { return Ok(None) };
        let reading = Reading { columns: &self.columns, currency: self.currency };
        Ok(Some(reading.product(&group).map_or_else(Entry::Refused, Entry::Product)))
    }

    fn next_group(&mut self) -> Result<Option<Group>, FileError> {
        let first = match self.next.take() {
            Some(row) => row,
            None => match self.read_row()? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let column = self.columns["Handle"];
        let handle_of = |row: &Row| String::from_utf8_lossy(row.fields.get(column).unwrap_or_default()).trim().to_owned();
        let mut group = Group { handle: handle_of(&first), rows: vec![first] };
        while let Some(row) = self.read_row()? {
            if handle_of(&row) != group.handle || group.rows.len() >= MOST_ROWS_OF_A_PRODUCT {
                self.next = Some(row);
                break;
            }
            group.rows.push(row);
        }
        Ok(Some(group))
    }

    fn read_row(&mut self) -> Result<Option<Row>, FileError> {
        self.reader.get_mut().left = MOST_BYTES_OF_A_ROW;
        let mut fields = ByteRecord::new();
        if !self.reader.read_byte_record(&mut fields)? {
            return Ok(None);
        }
        self.rows += 1;
        Ok(Some(Row { line: fields.position().map_or(0, csv::Position::line), fields }))
    }
}

/// How the rows of this file are read.
struct Reading<'a> {
    columns: &'a BTreeMap<String, usize>,
    currency: Currency,
}

impl Reading<'_> {
    fn product(&self, group: &Group) -> Result<Vec<ImportedProduct>, Vec<Refused>> {
        let refuse = |row: &Row, reason: String| Refused { line: row.line, handle: group.handle.clone(), reason };
        let broken: Vec<_> = group.rows.iter().filter_map(|row| self.check(row).err().map(|reason| refuse(row, reason))).collect();
        if !broken.is_empty() {
            return Err(broken);
        }
        let first = &group.rows[0];
        let common = self.common(first).map_err(|reason| vec![refuse(first, reason)])?;
        let images = self.images(group).map_err(|(row, reason)| vec![refuse(row, reason)])?;
        let variants: Vec<_> = group.rows.iter().filter(|row| !self.text(row, "Variant Price").is_empty()).collect();
        let (mut products, mut refused) = (Vec::new(), Vec::new());
        for row in &variants {
            match self.variant(row, &group.handle, &common, &images) {
                Ok(product) => products.push(product),
                Err(reason) => refused.push(refuse(row, reason)),
            }
        }
        if variants.is_empty() {
            refused.push(refuse(first, "no row of this product has a Variant Price".to_owned()));
        }
        let mut keys: Vec<_> = products.iter().map(|product| &product.key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            refused.push(refuse(first, "two variants have the same options".to_owned()));
        }
        if refused.is_empty() { Ok(products) } else { Err(refused) }
    }

    fn text<'r>(&self, row: &'r Row, column: &str) -> &'r str {
        let field = self.columns.get(column).and_then(|place| row.fields.get(*place)).unwrap_or_default();
        // `check` has refused what is not UTF-8.
        std::str::from_utf8(field).unwrap_or_default().trim()
    }

    fn check(&self, row: &Row) -> Result<(), String> {
        let names = self.columns.len();
        if row.fields.len() != names {
            return Err(format!("{} fields, but the file has {names} columns", row.fields.len()));
        }
        if row.fields.iter().any(|field| std::str::from_utf8(field).is_err()) {
            return Err("a field is not UTF-8: save the file as \"CSV UTF-8\"".to_owned());
        }
        if row.fields.iter().any(|field| field.contains(&0)) {
            return Err("a field has a null character in it".to_owned());
        }
        if self.text(row, "Handle").is_empty() {
            return Err("Handle is empty".to_owned());
        }
        Ok(())
    }

    fn common(&self, row: &Row) -> Result<Common, String> {
        let title = self.text(row, "Title").to_owned();
        if title.is_empty() {
            return Err("Title is empty on the product's first row; do its rows stand together?".to_owned());
        }
        let description = plain_text(self.text(row, "Body (HTML)"))?;
        if description.chars().count() > 20_000 {
            return Err("Body (HTML) has more than 20,000 characters of text".to_owned());
        }
        let category = Some(self.text(row, "Type")).filter(|name| !name.is_empty()).map(str::to_owned);
        if category.as_ref().is_some_and(|name| name.chars().count() > 120) {
            return Err("Type has more than 120 characters".to_owned());
        }
        let is_hidden = self.text(row, "Published").eq_ignore_ascii_case("false");
        let status = self.text(row, "Status").to_ascii_lowercase();
        let is_archived = is_hidden || matches!(status.as_str(), "archived" | "draft");
        Ok(Common { title, description, category, is_archived })
    }

    /// The images of all rows, by position.
    fn images<'g>(&self, group: &'g Group) -> Result<Vec<String>, (&'g Row, String)> {
        let mut images = Vec::new();
        for (place, row) in group.rows.iter().enumerate() {
            let source = self.text(row, "Image Src");
            if source.is_empty() {
                continue;
            }
            check_image(source).map_err(|reason| (row, reason))?;
            let position = self.text(row, "Image Position").parse().unwrap_or(u32::MAX);
            images.push((position, place, source.to_owned()));
        }
        images.sort();
        Ok(images.into_iter().map(|(_, _, source)| source).collect())
    }

    fn variant(&self, row: &Row, handle: &str, common: &Common, images: &[String]) -> Result<ImportedProduct, String> {
        let options: Vec<_> = ["Option1 Value", "Option2 Value", "Option3 Value"]
            .into_iter()
            .map(|column| self.text(row, column))
            .filter(|value| !value.is_empty() && *value != NO_OPTIONS)
            .collect();
        let (title, key) = if options.is_empty() {
            (common.title.clone(), handle.to_owned())
        } else {
            (format!("{} – {}", common.title, options.join(" / ")), format!("{handle}/{}", options.join("/")))
        };
        if title.chars().count() > 255 {
            return Err("title and options have more than 255 characters".to_owned());
        }
        let key = format!("shopify:{key}");
        if key.chars().count() > 1_000 {
            return Err("handle and options have more than 1,000 characters".to_owned());
        }
        let price = self.text(row, "Variant Price");
        let price = self.price(price).ok_or_else(|| format!("the price {price:?} is no positive amount of {}", self.currency))?;
        let quantity = match self.text(row, "Variant Inventory Qty") {
            "" => None,
            // What Shopify has oversold counts as none.
            text => match text.parse::<i32>() {
                Ok(quantity) if quantity <= MOST_UNITS => Some(quantity.max(0)),
                _ => return Err(format!("the quantity {text:?} is no whole number up to {MOST_UNITS}")),
            },
        };
        let own = self.text(row, "Variant Image");
        if !own.is_empty() {
            check_image(own)?;
        }
        let others = images.iter().map(String::as_str).filter(|image| *image != own);
        let images = Some(own).filter(|own| !own.is_empty()).into_iter().chain(others).take(MOST_IMAGES).map(str::to_owned).collect();
        Ok(ImportedProduct {
            key,
            title,
            description: common.description.clone(),
            category: common.category.clone(),
            images,
            price_minor: price.minor,
            quantity,
            is_archived: common.is_archived,
        })
    }

    /// Shopify writes two decimal places for every currency: "19000.00" is a price in won, "19.99" is none.
    fn price(&self, text: &str) -> Option<Money> {
        let exact = match text.split_once('.') {
            Some((units, fraction)) if self.currency.decimal_places() == 0 && fraction.bytes().all(|b| b == b'0') => units,
            _ => text,
        };
        Money::parse(exact, self.currency).ok().filter(|price| price.minor > 0)
    }
}

/// What stands on a product's first row.
struct Common {
    title: String,
    description: String,
    category: Option<String>,
    is_archived: bool,
}

fn check_image(source: &str) -> Result<(), String> {
    let is_address = source.starts_with("https://") || source.starts_with("http://");
    if is_address && source.len() <= 2_000 { Ok(()) } else { Err("an image is no web address".to_owned()) }
}

/// The text of a piece of HTML, as a browser's parser reads it, without its marks.
fn plain_text(html: &str) -> Result<String, String> {
    // Wider than any line: clients break lines themselves.
    const WIDTH: usize = 100_000;
    let config = html2text::config::plain_no_decorate().no_table_borders().no_link_wrapping();
    let text = config.string_from_read(html.as_bytes(), WIDTH).map_err(|error| format!("Body (HTML) cannot be read: {error}"))?;
    Ok(text.trim().to_owned())
}
