//! Relay pages with keyset cursors: the arguments' rules, and cursors that carry a position instead of a row number.

use async_graphql::{
    ObjectType, OutputType, Result,
    connection::{Connection, ConnectionNameType, Edge, EdgeNameType, EmptyFields},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use super::errors::ApiError;
use crate::store::Page;

const DEFAULT_SIZE: i32 = 20;
const MAX_SIZE: i32 = 100;

/// Arguments of a page, as the client sent them.
#[derive(Default)]
pub struct PageArguments {
    pub first: Option<i32>,
    pub after: Option<String>,
    pub last: Option<i32>,
    pub before: Option<String>,
}

/// Which page is wanted, by a position of type `P`.
pub struct PageRequest<P> {
    pub size: usize,
    pub from: Option<P>,
    pub backwards: bool,
}

impl PageArguments {
    /// Checks the arguments: 1 to 100 rows, 20 when nothing is said; `first`/`after` and `last`/`before` exclude each other.
    pub fn read<P: DeserializeOwned>(self) -> Result<PageRequest<P>> {
        let backwards = self.last.is_some() || self.before.is_some();
        if backwards && (self.first.is_some() || self.after.is_some()) {
            return Err(ApiError::BadRequest("Use first and after, or last and before, not both.").into());
        }
        let size = if backwards { self.last } else { self.first }.unwrap_or(DEFAULT_SIZE);
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(ApiError::BadRequest("A page has 1 to 100 entries.").into());
        }
        let cursor = if backwards { self.before } else { self.after };
        let from =
            cursor.map(|cursor| decode_cursor(&cursor).ok_or(ApiError::BadRequest("This cursor is not one of ours."))).transpose()?;
        Ok(PageRequest { size: usize::try_from(size).unwrap_or_default(), from, backwards })
    }
}

impl<P: Clone> PageRequest<P> {
    /// The position that the cursor has in the sort of the listing; `read` gives `None` when it belongs to another one.
    pub fn read_from<Q>(&self, read: impl FnOnce(P) -> Option<Q>) -> Result<Option<Q>> {
        let other_sort = ApiError::BadRequest("This cursor belongs to another sort.");
        Ok(self.from.clone().map(|cursor| read(cursor).ok_or(other_sort)).transpose()?)
    }
}

/// What a page costs: its children once per entry that may come.
pub fn page_cost(size: Option<i32>, child_complexity: usize) -> usize {
    let entries = usize::try_from(size.unwrap_or(DEFAULT_SIZE).clamp(1, MAX_SIZE)).unwrap_or_default();
    1 + entries * child_complexity
}

fn encode_cursor(position: &impl Serialize) -> String {
    // A position is a tuple of plain values: it always has a JSON form.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

fn decode_cursor<P: DeserializeOwned>(cursor: &str) -> Option<P> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// A connection of a page's rows. `extra` are the fields beside `edges`, `nodes` and `pageInfo`.
pub fn connection<Row, Node, Extra, P, Q, Name, EdgeName>(
    page: Page<Row>,
    request: &PageRequest<Q>,
    extra: Extra,
    position: impl Fn(&Row) -> P,
    node: impl Fn(Row) -> Node,
) -> Connection<String, Node, Extra, EmptyFields, Name, EdgeName>
where
    Node: OutputType,
    Extra: ObjectType,
    P: Serialize,
    Name: ConnectionNameType,
    EdgeName: EdgeNameType,
{
    let came_from_somewhere = request.from.is_some();
    let (has_previous, has_next) =
        if request.backwards { (page.has_more, came_from_somewhere) } else { (came_from_somewhere, page.has_more) };
    let mut connection = Connection::with_additional_fields(has_previous, has_next, extra);
    connection.edges.extend(page.rows.into_iter().map(|row| Edge::new(encode_cursor(&position(&row)), node(row))));
    connection
}
