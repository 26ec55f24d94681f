//! Categories. Owns: the tree's fields, and what staff change of it.

use async_graphql::{Context, ID, InputObject, MaybeUndefined, Object, Result, SimpleObject, connection::Connection};

use super::{
    connection::{PageArguments, page_cost},
    context::ContextExt,
    errors::{UserError, UserErrorCode},
    loaders::ChildrenOf,
    product::{self, Product, ProductFilterInput, ProductSort, ProductTotal},
};
use crate::{
    domain::{ids::CategoryId, page::PageTagKind},
    services::category::{self, Place, RemovedCategory, SaveCategory, SavedCategory},
    store::{self, product::Archived},
};

pub struct Category(pub store::category::Category);

/// A branch of the catalogue.
#[Object]
impl Category {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// For addresses: lower-case letters, digits and hyphens, unique.
    async fn slug(&self) -> &str {
        &self.0.slug
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    /// Null for a root.
    async fn parent(&self, ctx: &Context<'_>) -> Result<Option<Self>> {
        match self.0.parent_id {
            Some(parent) => Ok(ctx.loader().load_one(parent).await?.map(Self)),
            None => Ok(None),
        }
    }

    /// The branches below, by name.
    async fn children(&self, ctx: &Context<'_>) -> Result<Vec<Self>> {
        let children = ctx.loader().load_one(ChildrenOf(self.0.id)).await?.unwrap_or_default();
        Ok(children.into_iter().map(Self).collect())
    }

    /// The products of this branch and of those below it, newest first.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn products(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Option<Connection<String, Product, ProductTotal>>> {
        let filter = ProductFilterInput { category_id: Some(self.0.id.to_string().into()), ..ProductFilterInput::default() };
        let arguments = PageArguments { first, after, ..PageArguments::default() };
        product::list(ctx, arguments, filter, Archived::Never, ProductSort::Newest).await.map(Some)
    }
}

/// The category of a global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Category>> {
    match CategoryId::parse(id) {
        Some(id) => Ok(ctx.loader().load_one(id).await?.map(Category)),
        None => Ok(None),
    }
}

#[derive(Default)]
pub struct CategoryQuery;

#[Object]
impl CategoryQuery {
    /// The roots of the category tree, by name.
    async fn categories(&self, ctx: &Context<'_>) -> Result<Option<Vec<Category>>> {
        let roots = store::category::list_roots(&mut *ctx.app().db.acquire().await.map_err(store::StoreError::from)?).await?;
        ctx.sources().read_all(PageTagKind::Categories);
        ctx.sources().read(PageTagKind::Category, roots.iter().map(|row| row.id.0));
        Ok(Some(roots.into_iter().map(Category).collect()))
    }
}

#[derive(InputObject)]
pub struct SaveCategoryInput {
    /// The category to change; a new one when left out.
    id: Option<ID>,
    /// 1 to 80 lower-case letters and digits, with single hyphens between them; unique.
    slug: String,
    /// One line of 1 to 120 characters.
    name: String,
    /// The category above; null makes a root. Left out, a new category is a root, and another one stays where it is. With a category
    /// goes all that is below; none can be put below itself.
    parent_id: MaybeUndefined<ID>,
}

#[derive(InputObject)]
pub struct RemoveCategoryInput {
    id: ID,
}

#[derive(SimpleObject)]
pub struct CategoryPayload {
    /// One that was removed is as it was.
    category: Option<Category>,
    user_errors: Vec<UserError>,
}

impl From<UserError> for CategoryPayload {
    fn from(error: UserError) -> Self {
        Self { category: None, user_errors: vec![error] }
    }
}

fn no_such_category(field: &str) -> UserError {
    UserError::new(UserErrorCode::NotFound, &[field], "No such category.")
}

#[derive(Default)]
pub struct CategoryMutation;

#[Object]
impl CategoryMutation {
    /// For staff: makes a category, changes one, or moves one in the tree.
    async fn save_category(&self, ctx: &Context<'_>, input: SaveCategoryInput) -> Result<CategoryPayload> {
        ctx.staff()?;
        let id = input.id.map(|id| CategoryId::parse(&id));
        if id == Some(None) {
            return Ok(no_such_category("id").into());
        }
        let place = match input.parent_id {
            MaybeUndefined::Undefined => Place::Unchanged,
            MaybeUndefined::Null => Place::Root,
            MaybeUndefined::Value(parent) => match CategoryId::parse(&parent) {
                Some(parent) => Place::Below(parent),
                None => return Ok(no_such_category("parentId").into()),
            },
        };
        let wanted = SaveCategory { id: id.flatten(), slug: input.slug, name: input.name, place };
        Ok(match category::save(ctx.app(), wanted).await? {
            SavedCategory::Saved(id) => {
                CategoryPayload { category: ctx.loader().load_one(id).await?.map(Category), user_errors: Vec::new() }
            }
            SavedCategory::Invalid(invalid) => UserError::from(invalid).into(),
            SavedCategory::NoSuchCategory => no_such_category("id").into(),
            SavedCategory::NoSuchParent => no_such_category("parentId").into(),
        })
    }

    /// For staff: removes an empty category. `WRONG_STATE` while it has categories below it, or products, archived ones too.
    async fn remove_category(&self, ctx: &Context<'_>, input: RemoveCategoryInput) -> Result<CategoryPayload> {
        ctx.staff()?;
        let Some(id) = CategoryId::parse(&input.id) else { return Ok(no_such_category("id").into()) };
        Ok(match category::remove(ctx.app(), id).await? {
            RemovedCategory::Removed(category) => CategoryPayload { category: Some(Category(category)), user_errors: Vec::new() },
            RemovedCategory::NoSuchCategory => no_such_category("id").into(),
            RemovedCategory::NotEmpty => {
                UserError::new(UserErrorCode::WrongState, &["id"], "It has categories below it, or products.").into()
            }
        })
    }
}
