//! The product CSV that Shopify exports: a row per variant or further image, and what is common to a product on its first row only.
//! Read product by product: of a file of any size, memory holds one product's rows, and the handles.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
};

use csv::{ByteRecord, ReaderBuilder};

use super::{ImportedProduct, Refused, Variant};
use crate::{
    domain::{
        customer::single_line,
        money::{Currency, Money},
        product::{MAX_AVAILABLE, MAX_IMAGES, MAX_PRICE_MINOR, MAX_TITLE_CHARACTERS, description, is_image_url},
    },
    services::category::MAX_NAME_CHARACTERS,
};

/// A row of more is a quotation mark that was left open.
const MOST_BYTES_OF_A_ROW: usize = 4 * 1024 * 1024;
/// Shopify's own limits are 2,048 variants and 250 images.
const MOST_ROWS_OF_A_PRODUCT: usize = 5_000;
const MOST_BYTES_OF_A_PRODUCT: usize = 16 * 1024 * 1024;
/// As the constraint `product_import_key_length` has it.
const MOST_BYTES_OF_A_KEY: usize = 1_000;
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
    /// It has more rows than are kept.
    is_too_large: bool,
}

impl Group {
    fn refuse(&self, row: &Row, reason: impl Into<String>) -> Refused {
        Refused { line: row.line, handle: self.handle.clone(), reason: reason.into() }
    }
}

/// A product of the file.
pub enum Entry {
    Product(ImportedProduct),
    Refused(Vec<Refused>),
}

/// The first row of a file.
struct Columns {
    places: BTreeMap<String, usize>,
    count: usize,
}

pub struct Products<R> {
    reader: csv::Reader<Bounded<R>>,
    columns: Columns,
    currency: Currency,
    /// Of the products that were given.
    handles: HashSet<String>,
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
        let header = reader.byte_headers()?;
        let mut columns = Columns { places: BTreeMap::new(), count: header.len() };
        for (place, name) in header.iter().enumerate() {
            columns.places.entry(String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned()).or_insert(place);
        }
        for needed in ["Handle", "Title", "Variant Price"] {
            if !columns.places.contains_key(needed) {
                return Err(FileError::NoColumn(needed));
            }
        }
        Ok(Self { reader, columns, currency, handles: HashSet::new(), next: None, rows: 0 })
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
        Ok(Some(match reading.product(&group) {
            Ok(product) if self.handles.insert(group.handle.clone()) => Entry::Product(product),
            Ok(_) => Entry::Refused(vec![group.refuse(&group.rows[0], "this handle came before; its rows must stand together")]),
            Err(refused) => Entry::Refused(refused),
        }))
    }

    fn next_group(&mut self) -> Result<Option<Group>, FileError> {
        let first = match self.next.take() {
            Some(row) => row,
            None => match self.read_row()? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let column = self.columns.places["Handle"];
        let handle_of = |row: &Row| String::from_utf8_lossy(row.fields.get(column).unwrap_or_default()).trim().to_owned();
        let mut bytes = first.fields.as_slice().len();
        let mut group = Group { handle: handle_of(&first), rows: vec![first], is_too_large: false };
        while let Some(row) = self.read_row()? {
            if handle_of(&row) != group.handle {
                self.next = Some(row);
                break;
            }
            bytes += row.fields.as_slice().len();
            group.is_too_large |= group.rows.len() >= MOST_ROWS_OF_A_PRODUCT || bytes > MOST_BYTES_OF_A_PRODUCT;
            if !group.is_too_large {
                group.rows.push(row);
            }
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
    columns: &'a Columns,
    currency: Currency,
}

impl Reading<'_> {
    fn product(&self, group: &Group) -> Result<ImportedProduct, Vec<Refused>> {
        let first = &group.rows[0];
        if group.is_too_large {
            return Err(vec![group.refuse(first, "more than 5,000 rows, or 16 MB")]);
        }
        let broken: Vec<_> = group.rows.iter().filter_map(|row| self.check(row).err().map(|reason| group.refuse(row, reason))).collect();
        if !broken.is_empty() {
            return Err(broken);
        }
        let common = self.common(first).map_err(|reason| vec![group.refuse(first, reason)])?;
        let images = self.images(group).map_err(|(row, reason)| vec![group.refuse(row, reason)])?;
        let (mut variants, mut refused) = (Vec::new(), Vec::new());
        for row in group.rows.iter().filter(|row| !self.text(row, "Variant Price").is_empty()) {
            match self.variant(row, &group.handle, &common.title) {
                Ok(variant) => variants.push(variant),
                Err(reason) => refused.push(group.refuse(row, reason)),
            }
        }
        if variants.is_empty() && refused.is_empty() {
            refused.push(group.refuse(first, "no row of this product has a Variant Price"));
        }
        let mut keys = HashSet::new();
        if !variants.iter().all(|variant| keys.insert(&variant.key)) {
            refused.push(group.refuse(first, "two variants have the same options"));
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let Common { description, category, is_archived, .. } = common;
        Ok(ImportedProduct { handle: group.handle.clone(), description, category, images, is_archived, variants })
    }

    fn text<'r>(&self, row: &'r Row, column: &str) -> &'r str {
        let field = self.columns.places.get(column).and_then(|place| row.fields.get(*place)).unwrap_or_default();
        // `check` has refused what is not UTF-8.
        std::str::from_utf8(field).unwrap_or_default().trim()
    }

    fn check(&self, row: &Row) -> Result<(), String> {
        let columns = self.columns.count;
        if row.fields.len() != columns {
            return Err(format!("{} fields, but the file has {columns} columns", row.fields.len()));
        }
        if row.fields.iter().any(|field| std::str::from_utf8(field).is_err()) {
            return Err("a field is not UTF-8: save the file as \"CSV UTF-8\"".to_owned());
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
        let description = description(&plain_text(self.text(row, "Body (HTML)"))?);
        let description = description.ok_or("Body (HTML) has more than 20,000 characters of text, or control characters")?;
        let category = match self.text(row, "Type") {
            "" => None,
            name => Some(single_line(name, MAX_NAME_CHARACTERS).ok_or("Type is no line of at most 120 characters")?),
        };
        let is_hidden = match self.text(row, "Published").to_ascii_lowercase().as_str() {
            "" | "true" => false,
            "false" => true,
            _ => return Err("Published is neither true nor false".to_owned()),
        };
        let is_archived = match self.text(row, "Status").to_ascii_lowercase().as_str() {
            "" | "active" => is_hidden,
            "draft" | "archived" => true,
            _ => return Err("Status is none of active, draft and archived".to_owned()),
        };
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
            let source = image(source).map_err(|reason| (row, reason))?;
            let position = self.text(row, "Image Position").parse().unwrap_or(u32::MAX);
            images.push((position, place, source));
        }
        images.sort();
        Ok(images.into_iter().map(|(_, _, source)| source).take(MAX_IMAGES).collect())
    }

    fn variant(&self, row: &Row, handle: &str, title: &str) -> Result<Variant, String> {
        let options: Vec<_> = ["Option1 Value", "Option2 Value", "Option3 Value"]
            .into_iter()
            .map(|column| self.text(row, column))
            .filter(|value| !value.is_empty() && *value != NO_OPTIONS)
            .collect();
        // As JSON: no other handle and options are spelt like these.
        let key = format!("shopify:{}", serde_json::json!([handle, options]));
        if key.len() > MOST_BYTES_OF_A_KEY {
            return Err("handle and options have more than 1,000 bytes".to_owned());
        }
        let title = if options.is_empty() { title.to_owned() } else { format!("{title} – {}", options.join(" / ")) };
        let title = single_line(&title, MAX_TITLE_CHARACTERS).ok_or("title and options are no line of at most 255 characters")?;
        let price = self.text(row, "Variant Price");
        let price = self.price(price).ok_or_else(|| format!("the price \"{price:.40}\" is no positive amount of {}", self.currency))?;
        let quantity = match self.text(row, "Variant Inventory Qty") {
            "" => None,
            // What Shopify has oversold counts as none.
            text => match text.parse::<i32>() {
                Ok(quantity) if quantity <= MAX_AVAILABLE => Some(quantity.max(0)),
                _ => return Err(format!("the quantity \"{text:.40}\" is no whole number up to {MAX_AVAILABLE}")),
            },
        };
        let image = match self.text(row, "Variant Image") {
            "" => None,
            source => Some(image(source)?),
        };
        Ok(Variant { line: row.line, key, title, image, price_minor: price.minor, quantity })
    }

    /// Shopify writes two decimal places for every currency: "19000.00" is a price in won, "19.99" is none.
    fn price(&self, text: &str) -> Option<Money> {
        let exact = match text.split_once('.') {
            Some((units, fraction)) if self.currency.decimal_places() == 0 && fraction.bytes().all(|b| b == b'0') => units,
            _ => text,
        };
        Money::parse(exact, self.currency).ok().filter(|price| (1..=MAX_PRICE_MINOR).contains(&price.minor))
    }
}

/// What stands on a product's first row.
struct Common {
    title: String,
    description: String,
    category: Option<String>,
    is_archived: bool,
}

fn image(source: &str) -> Result<String, String> {
    if is_image_url(source) { Ok(source.to_owned()) } else { Err("an image is no https URL of at most 2,048 bytes".to_owned()) }
}

/// The text of a piece of HTML, as a browser's parser reads it, without its marks. Of a table each cell is a line.
fn plain_text(html: &str) -> Result<String, String> {
    // Wider than any line: clients break lines themselves.
    const WIDTH: usize = 100_000;
    let config = html2text::config::plain_no_decorate().raw_mode(true).no_link_wrapping();
    config.string_from_read(html.as_bytes(), WIDTH).map_err(|error| format!("Body (HTML) cannot be read: {error}"))
}
