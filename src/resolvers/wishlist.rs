//! The wishlist.

use async_graphql::{
    Context, ID, InputObject, MaybeUndefined, Object, OutputType, Result, SimpleObject,
    connection::{Connection, ConnectionNameType, EdgeNameType, EmptyFields},
};
use uuid::Uuid;

use super::{
    connection::{PageArguments, PageRequest, connection},
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    product::Product,
    scalars::DateTime,
};
use crate::{
    domain::ids::{CustomerId, ProductId, WishlistItemId},
    sealing::SealedColumn,
    services::wishlist::{self, NoteChange, Wish, WishlistChange},
    store::{self, StoreError, wishlist::WishlistPosition},
};

pub struct WishlistItem(store::wishlist::WishlistItem);

/// A product that a customer would like to have. Its owner sees it, and nobody else.
#[Object]
impl WishlistItem {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn product(&self, ctx: &Context<'_>) -> Result<Product> {
        let product = ctx.loader().load_one(self.0.product_id).await?;
        Ok(Product(product.ok_or(StoreError::Missing("product of a wishlist"))?))
    }

    async fn note(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let open = |sealed: &Vec<u8>| ctx.open(SealedColumn::WishlistNote, self.0.id.0, sealed);
        self.0.note_sealed.as_ref().map(open).transpose()
    }

    /// Mails come when a sale of the product is scheduled, and five minutes before it opens.
    async fn notify_on_sale(&self) -> bool {
        self.0.notify_on_sale
    }

    async fn added_at(&self) -> DateTime {
        self.0.added_at.into()
    }
}

/// Counts the whole list, only when it is asked for.
pub struct WishlistTotal(CustomerId);

#[Object]
impl WishlistTotal {
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(i32::try_from(store::wishlist::count_for_customer(&mut db, self.0).await?).unwrap_or(i32::MAX))
    }
}

/// Pages and edges are named after the list, not after its items.
pub struct WishlistName;

impl ConnectionNameType for WishlistName {
    fn type_name<T: OutputType>() -> String {
        "WishlistConnection".to_owned()
    }
}

impl EdgeNameType for WishlistName {
    fn type_name<T: OutputType>() -> String {
        "WishlistEdge".to_owned()
    }
}

pub type WishlistConnection = Connection<String, WishlistItem, WishlistTotal, EmptyFields, WishlistName, WishlistName>;

/// A page of a customer's wishlist, newest first; nothing for anybody else.
pub async fn page(ctx: &Context<'_>, owner: CustomerId, first: Option<i32>, after: Option<String>) -> Result<Option<WishlistConnection>> {
    if ctx.viewer().is_none_or(|viewer| viewer.customer != owner) {
        return Ok(None);
    }
    let request: PageRequest<(i64, Uuid)> = PageArguments { first, after, ..PageArguments::default() }.read()?;
    let position = |(micros, id): (i64, Uuid)| {
        let added_at = chrono::DateTime::from_timestamp_micros(micros).ok_or(ApiError::BadRequest("This cursor is not one of ours."))?;
        Ok::<_, ApiError>(WishlistPosition { added_at, id: WishlistItemId(id) })
    };
    let from = request.from.map(position).transpose()?;
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let page = store::wishlist::list_for_customer(&mut db, owner, from, request.size).await?;
    Ok(Some(connection(page, &request, WishlistTotal(owner), |row| (row.added_at.timestamp_micros(), row.id.0), WishlistItem)))
}

/// The caller's own item of a global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<WishlistItem>> {
    let (Some(id), Some(viewer)) = (WishlistItemId::parse(id), ctx.viewer()) else { return Ok(None) };
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    Ok(store::wishlist::find_for_customer(&mut db, id, viewer.customer).await?.map(WishlistItem))
}

#[derive(InputObject)]
pub struct AddToWishlistInput {
    product_id: ID,
    /// One line of at most 500 characters, for the customer alone.
    #[graphql(secret)]
    note: MaybeUndefined<String>,
    /// False when left out at first.
    notify_on_sale: Option<bool>,
}

/// What is left out stays as it is.
#[derive(InputObject)]
pub struct UpdateWishlistItemInput {
    id: ID,
    /// One line of at most 500 characters; null removes it.
    #[graphql(secret)]
    note: MaybeUndefined<String>,
    notify_on_sale: Option<bool>,
}

#[derive(InputObject)]
pub struct RemoveFromWishlistInput {
    id: ID,
}

#[derive(SimpleObject)]
pub struct WishlistPayload {
    /// As it is now; after `removeFromWishlist` as it was.
    item: Option<WishlistItem>,
    user_errors: Vec<UserError>,
}

#[derive(Default)]
pub struct WishlistMutation;

#[Object]
impl WishlistMutation {
    /// Puts a product on the wishlist. One that is there already stays, once, and takes the note and the wish that are sent now.
    async fn add_to_wishlist(&self, ctx: &Context<'_>, input: AddToWishlistInput) -> Result<WishlistPayload> {
        let viewer = ctx.signed_in()?;
        let Some(product) = ProductId::parse(&input.product_id) else { return Ok(WishlistChange::NoSuchProduct.into()) };
        let wish = Wish { note: input.note.into(), notify_on_sale: input.notify_on_sale };
        Ok(wishlist::add(ctx.app(), viewer.customer, product, wish).await?.into())
    }

    /// Changes the note of an item, or whether mails come about sales.
    async fn update_wishlist_item(&self, ctx: &Context<'_>, input: UpdateWishlistItemInput) -> Result<WishlistPayload> {
        let viewer = ctx.signed_in()?;
        let Some(id) = WishlistItemId::parse(&input.id) else { return Ok(WishlistChange::NoSuchItem.into()) };
        let wish = Wish { note: input.note.into(), notify_on_sale: input.notify_on_sale };
        Ok(wishlist::update(ctx.app(), viewer.customer, id, wish).await?.into())
    }

    /// Takes an item off the wishlist; mails about its sales end.
    async fn remove_from_wishlist(&self, ctx: &Context<'_>, input: RemoveFromWishlistInput) -> Result<WishlistPayload> {
        let viewer = ctx.signed_in()?;
        let Some(id) = WishlistItemId::parse(&input.id) else { return Ok(WishlistChange::NoSuchItem.into()) };
        Ok(wishlist::remove(ctx.app(), viewer.customer, id).await?.into())
    }
}

impl From<MaybeUndefined<String>> for NoteChange {
    fn from(note: MaybeUndefined<String>) -> Self {
        match note {
            MaybeUndefined::Undefined => Self::Keep,
            MaybeUndefined::Null => Self::Remove,
            MaybeUndefined::Value(note) => Self::Set(note),
        }
    }
}

impl From<WishlistChange> for WishlistPayload {
    fn from(change: WishlistChange) -> Self {
        let error = match change {
            WishlistChange::Done(item) => return Self { item: Some(WishlistItem(item)), user_errors: Vec::new() },
            WishlistChange::Invalid(invalid) => invalid.into(),
            WishlistChange::NoSuchProduct => UserError::new(UserErrorCode::NotFound, &["productId"], "No such product, or no longer sold."),
            WishlistChange::NoSuchItem => UserError::new(UserErrorCode::NotFound, &["id"], "No such item in your wishlist."),
            WishlistChange::LimitReached => UserError::new(UserErrorCode::LimitReached, &[], "A wishlist has 1,000 items at most."),
        };
        Self { item: None, user_errors: vec![error] }
    }
}
