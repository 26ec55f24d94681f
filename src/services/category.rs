//! The category tree, as staff change it. That no branch ends up below itself, and that every slug is one category's, the database
//! keeps: two changes at once would not see each other here.

use super::{InvalidInput, ServiceError};
use crate::{
    app::App,
    domain::{customer::single_line, ids::CategoryId},
    store::{
        self, StoreError,
        category::{Category, NOT_BELOW_ITSELF, PARENT_EXISTS, SLUG_FORM, SLUG_UNIQUE},
        product::CATEGORY_EXISTS,
    },
};

pub(super) const MAX_NAME_CHARACTERS: usize = 120;

/// Where a category is to be in the tree.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Where it is; a new one is a root.
    Unchanged,
    Root,
    Below(CategoryId),
}

/// As the client sent it.
#[derive(Debug)]
pub struct SaveCategory {
    /// The category to change; a new one when left out.
    pub id: Option<CategoryId>,
    pub slug: String,
    pub name: String,
    pub place: Place,
}

#[derive(Debug, PartialEq, Eq)]
pub enum SavedCategory {
    Saved(CategoryId),
    Invalid(InvalidInput),
    NoSuchCategory,
    NoSuchParent,
}

/// Makes a category, or changes one and with its place moves all that is below. One transaction; the category's row is locked.
pub async fn save(app: &App, input: SaveCategory) -> Result<SavedCategory, ServiceError> {
    let Some(name) = single_line(&input.name, MAX_NAME_CHARACTERS) else {
        return Ok(SavedCategory::Invalid(InvalidInput::new(&["name"], "One line of 1 to 120 characters.")));
    };
    let mut tx = app.db.begin().await?;
    let known = match input.id {
        Some(id) => match store::category::lock(&mut tx, id).await? {
            None => return Ok(SavedCategory::NoSuchCategory),
            known => known,
        },
        None => None,
    };
    let parent_id = match input.place {
        Place::Unchanged => known.as_ref().and_then(|known| known.parent_id),
        Place::Root => None,
        Place::Below(parent) => Some(parent),
    };
    let category = Category { id: input.id.unwrap_or_else(CategoryId::new), parent_id, slug: input.slug, name };
    let written = match known {
        Some(_) => store::category::update(&mut tx, &category).await,
        None => store::category::insert(&mut tx, &category, app.clock.now()).await,
    };
    match written {
        Ok(()) => {
            tx.commit().await?;
            Ok(SavedCategory::Saved(category.id))
        }
        Err(error) => refusal(error),
    }
}

fn refusal(error: StoreError) -> Result<SavedCategory, ServiceError> {
    let rules = [
        (SLUG_UNIQUE, &["slug"], "Another category has this slug."),
        (SLUG_FORM, &["slug"], "1 to 80 lower-case letters and digits, with single hyphens between them."),
        (NOT_BELOW_ITSELF[0], &["parentId"], "A category cannot be below itself."),
        (NOT_BELOW_ITSELF[1], &["parentId"], "A category cannot be below itself."),
    ];
    if let Some((_, field, rule)) = rules.into_iter().find(|(constraint, ..)| error.violates(constraint)) {
        return Ok(SavedCategory::Invalid(InvalidInput::new(field, rule)));
    }
    if error.violates(PARENT_EXISTS) { Ok(SavedCategory::NoSuchParent) } else { Err(error.into()) }
}

#[derive(Debug)]
pub enum RemovedCategory {
    /// As it was.
    Removed(Category),
    NoSuchCategory,
    /// It has categories below it, or products.
    NotEmpty,
}

/// Removes a category that is empty. Archived products count: orders and staff still show them.
pub async fn remove(app: &App, id: CategoryId) -> Result<RemovedCategory, ServiceError> {
    match store::category::delete(&mut *app.db.acquire().await?, id).await {
        Ok(Some(category)) => Ok(RemovedCategory::Removed(category)),
        Ok(None) => Ok(RemovedCategory::NoSuchCategory),
        Err(error) if error.violates(PARENT_EXISTS) || error.violates(CATEGORY_EXISTS) => Ok(RemovedCategory::NotEmpty),
        Err(error) => Err(error.into()),
    }
}
