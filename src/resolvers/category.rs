//! Categories. Owns: the tree's fields.

use async_graphql::{Context, ID, Object, Result, connection::Connection};

use super::{
    connection::{PageArguments, page_cost},
    context::ContextExt,
    loaders::ChildrenOf,
    product::{self, Product, ProductFilterInput, ProductSort, ProductTotal},
};
use crate::{
    domain::{ids::CategoryId, page::PageTagKind},
    store,
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
        product::list(ctx, arguments, filter, ProductSort::Newest).await.map(Some)
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
