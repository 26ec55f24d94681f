//! Products, as staff make and change them. Their stock is services/stock.rs.

use super::{
    InvalidInput, ServiceError,
    idempotency::{ClientKey, Request},
};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{CategoryId, ProductId},
        money::Money,
        product::{MAX_AVAILABLE, MAX_IMAGES, MAX_PRICE_MINOR, MAX_TITLE_CHARACTERS, description, is_image_url},
        stock::StockMovementKind,
    },
    store::{self, idempotency::Earlier, product::Product, stock::NewMovement},
};

/// As the client sent it.
#[derive(Debug)]
pub struct CreateProduct {
    pub title: String,
    pub description: String,
    pub price: Money,
    pub category: Option<CategoryId>,
    /// Becomes the first of `images`.
    pub image_url: Option<String>,
    pub images: Vec<String>,
    pub stock: i32,
}

/// As the client sent it; what is left out stays as it is.
#[derive(Debug, Default)]
pub struct UpdateProduct {
    pub title: Option<String>,
    pub description: Option<String>,
    pub price: Option<Money>,
    pub category: CategoryChange,
    /// Becomes the first of `images`, or of those that are there.
    pub image_url: Option<String>,
    pub images: Option<Vec<String>>,
    pub archived: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
pub enum CategoryChange {
    #[default]
    Keep,
    Remove,
    Set(CategoryId),
}

#[derive(Debug, PartialEq, Eq)]
pub enum SavedProduct {
    Saved(ProductId),
    Invalid(InvalidInput),
    NoSuchProduct,
    NoSuchCategory,
    /// A product whose sale is on or scheduled cannot be archived.
    HasSale,
    KeyReused,
}

/// Makes a product with its first stock and the movement that explains it. One transaction. With a key the same request again answers
/// the product that it made the first time.
pub async fn create(app: &App, input: CreateProduct, key: Option<ClientKey>) -> Result<SavedProduct, ServiceError> {
    let CreateProduct { title, description, price, category, image_url, images, stock } = input;
    let asked = (&title, &description, price.minor, category.map(|id| id.0), &image_url, &images, stock);
    let request = key.map(|key| Request::new(app, "createProduct", key, &asked)).transpose()?;
    if !(0..=MAX_AVAILABLE).contains(&stock) {
        return Ok(SavedProduct::Invalid(InvalidInput::new(&["stock"], "0 to 100,000,000.")));
    }
    if let Err(invalid) = check_price(app, price).and_then(|()| check_images(&images, image_url.as_ref())) {
        return Ok(SavedProduct::Invalid(invalid));
    }
    let now = app.clock.now();
    let product = Product {
        id: ProductId::new(),
        category_id: category,
        title,
        description,
        images: with_first(images, image_url),
        price_minor: price.minor,
        currency: price.currency,
        available: stock,
        archived_at: None,
        created_at: now,
        updated_at: now,
    };
    let product = match checked(product) {
        Ok(product) => product,
        Err(invalid) => return Ok(SavedProduct::Invalid(invalid)),
    };

    let mut tx = app.db.begin().await?;
    if let Some(request) = &request {
        match request.take(&mut tx, product.id.0, now).await? {
            Earlier::None => {}
            Earlier::Same(known) => return Ok(SavedProduct::Saved(ProductId(known))),
            Earlier::Different => return Ok(SavedProduct::KeyReused),
        }
    }
    match store::product::insert(&mut tx, &product).await {
        Err(error) if error.violates(store::product::CATEGORY_EXISTS) => return Ok(SavedProduct::NoSuchCategory),
        inserted => inserted?,
    }
    if stock > 0 {
        let received = NewMovement {
            kind: StockMovementKind::Received,
            quantity: stock,
            product: product.id,
            sale: None,
            reason: Some("first stock"),
        };
        store::stock::insert_movement(&mut tx, &received, now).await?;
    }
    tx.commit().await?;
    Ok(SavedProduct::Saved(product.id))
}

/// Changes what is said of a product. One transaction; the product's row is locked. Orders keep title and price as they were.
pub async fn update(app: &App, id: ProductId, input: UpdateProduct) -> Result<SavedProduct, ServiceError> {
    let images = check_images(input.images.as_deref().unwrap_or_default(), input.image_url.as_ref());
    if let Err(invalid) = images.and_then(|()| input.price.map_or(Ok(()), |price| check_price(app, price))) {
        return Ok(SavedProduct::Invalid(invalid));
    }
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some(known) = store::product::lock(&mut tx, id).await? else { return Ok(SavedProduct::NoSuchProduct) };
    let price = input.price.unwrap_or_else(|| known.price());
    let product = Product {
        title: input.title.unwrap_or(known.title),
        description: input.description.unwrap_or(known.description),
        price_minor: price.minor,
        currency: price.currency,
        category_id: match input.category {
            CategoryChange::Keep => known.category_id,
            CategoryChange::Remove => None,
            CategoryChange::Set(category) => Some(category),
        },
        images: with_first(input.images.unwrap_or(known.images), input.image_url),
        archived_at: match input.archived {
            Some(true) => known.archived_at.or(Some(now)),
            Some(false) => None,
            None => known.archived_at,
        },
        updated_at: now,
        ..known
    };
    let product = match checked(product) {
        Ok(product) => product,
        Err(invalid) => return Ok(SavedProduct::Invalid(invalid)),
    };
    // Whoever schedules a sale holds the same lock.
    if product.archived_at == Some(now) && !store::flash_sale::list_current_for_products(&mut tx, &[id], now).await?.is_empty() {
        return Ok(SavedProduct::HasSale);
    }
    match store::product::update(&mut tx, &product).await {
        Err(error) if error.violates(store::product::CATEGORY_EXISTS) => return Ok(SavedProduct::NoSuchCategory),
        updated => updated?,
    }
    tx.commit().await?;
    Ok(SavedProduct::Saved(id))
}

/// The images with this one before the others.
pub(super) fn with_first(mut images: Vec<String>, first: Option<String>) -> Vec<String> {
    if let Some(first) = first {
        images.retain(|image| *image != first);
        images.insert(0, first);
    }
    images
}

/// The addresses that a client sent; a sample product's own images are no addresses.
fn check_images(images: &[String], first: Option<&String>) -> Result<(), InvalidInput> {
    const RULE: &str = "An https URL of at most 2,048 bytes.";
    if !images.iter().all(|image| is_image_url(image)) {
        return Err(InvalidInput::new(&["images"], RULE));
    }
    if first.is_none_or(|image| is_image_url(image)) { Ok(()) } else { Err(InvalidInput::new(&["imageUrl"], RULE)) }
}

/// The product with its texts in their normal form.
fn checked(product: Product) -> Result<Product, InvalidInput> {
    let title = single_line(&product.title, MAX_TITLE_CHARACTERS);
    let title = title.ok_or(InvalidInput::new(&["title"], "One line of 1 to 255 characters."))?;
    let description = description(&product.description);
    let description =
        description.ok_or(InvalidInput::new(&["description"], "At most 20,000 characters, none of control but line ends."))?;
    if product.images.len() > MAX_IMAGES {
        return Err(InvalidInput::new(&["images"], "At most 20."));
    }
    Ok(Product { title, description, ..product })
}

/// A price is more than nothing, no more than totals can hold, and in the shop's currency.
pub(super) fn check_price(app: &App, price: Money) -> Result<(), InvalidInput> {
    if price.currency != app.config.currency {
        return Err(InvalidInput::new(&["currency"], "The shop's currency."));
    }
    let invalid = InvalidInput::new(&["price"], "More than nothing, at most 1,000,000,000,000 of the currency's smallest unit.");
    if (1..=MAX_PRICE_MINOR).contains(&price.minor) { Ok(()) } else { Err(invalid) }
}
