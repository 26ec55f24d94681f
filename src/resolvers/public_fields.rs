//! Which fields are the same for everybody, and for how long: the list by which an answer may be kept and shown again. Whatever is
//! not on it is private, so that nothing new can be kept by mistake. It is decided by the document alone, before it is executed.

use std::{collections::HashMap, sync::LazyLock};

use async_graphql::parser::{
    parse_schema,
    types::{
        BaseType, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet, Type, TypeKind, TypeSystemDefinition,
    },
};
use sha2::{Digest, Sha256};

use crate::domain::page::PageLifetime::{self, Lasting, Live};

/// By type: fields that change only when somebody changes them, and fields that move with stock.
const PUBLIC: &[(&str, &str, &str)] = &[
    ("Query", "categories flashSale flashSales product products", ""),
    ("Category", "children id name parent products slug", ""),
    // `updatedAt` moves with the stock.
    ("Product", "archived category createdAt description flashSale id imageUrl images price title", "available updatedAt"),
    ("ProductConnection", "edges nodes pageInfo totalCount", ""),
    ("ProductEdge", "cursor node", ""),
    (
        "FlashSale",
        "closesAt discountPercent holdSeconds id opensAt perCustomerLimit price product totalUnits",
        // Not `serverTime`, which is true for no time at all, nor `viewerUnits`.
        "phase remainingUnits",
    ),
    ("FlashSaleConnection", "edges nodes pageInfo totalCount", ""),
    ("FlashSaleEdge", "cursor node", ""),
    ("PageInfo", "endCursor hasNextPage hasPreviousPage startCursor", ""),
    ("Money", "amount currency", ""),
];

/// Every `Type.field` of the list.
pub fn listed() -> impl Iterator<Item = (&'static str, &'static str, PageLifetime)> {
    PUBLIC.iter().flat_map(|(of, lasting, live)| {
        let fields = |names: &'static str, lifetime| names.split_whitespace().map(move |name| (*of, name, lifetime));
        fields(lasting, Lasting).chain(fields(live, Live))
    })
}

/// Changes with the schema: two programs whose answers may differ in form do not share them.
pub static SCHEMA_VERSION: LazyLock<[u8; 32]> = LazyLock::new(|| Sha256::digest(super::sdl()).into());

struct Field {
    lifetime: PageLifetime,
    answers: String,
}

/// By type and name; what is listed and does not exist is not there.
static FIELDS: LazyLock<HashMap<(&'static str, &'static str), Field>> = LazyLock::new(|| {
    let schema = parse_schema(super::sdl()).ok();
    let mut answers: HashMap<(String, String), String> = HashMap::new();
    for definition in schema.into_iter().flat_map(|schema| schema.definitions) {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let TypeKind::Object(object) = definition.node.kind else { continue };
        for field in object.fields {
            let key = (definition.node.name.node.to_string(), field.node.name.node.to_string());
            answers.insert(key, named(&field.node.ty.node).to_owned());
        }
    }
    let known = |of: &str, name: &str| answers.get(&(of.to_owned(), name.to_owned())).cloned();
    listed().filter_map(|(of, name, lifetime)| Some(((of, name), Field { lifetime, answers: known(of, name)? }))).collect()
});

fn named(kind: &Type) -> &str {
    match &kind.base {
        BaseType::Named(name) => name,
        BaseType::List(kind) => named(kind),
    }
}

/// For how long the answer to an operation may be kept; `None` when anything that it selects, or would without a `@skip`, is not
/// public. The document's fragments must have an end.
pub fn lifetime(document: &ExecutableDocument, operation: &OperationDefinition) -> Option<PageLifetime> {
    let is_query = operation.ty == OperationType::Query;
    if is_query { of_set(document, "Query", &operation.selection_set.node) } else { None }
}

fn of_set(document: &ExecutableDocument, of: &str, set: &SelectionSet) -> Option<PageLifetime> {
    set.items.iter().try_fold(Lasting, |shortest, selection| {
        let lifetime = match &selection.node {
            Selection::Field(field) if field.node.name.node == "__typename" => Lasting,
            Selection::Field(selected) => {
                let field = FIELDS.get(&(of, selected.node.name.node.as_str()))?;
                of_set(document, &field.answers, &selected.node.selection_set.node)?.min(field.lifetime)
            }
            Selection::InlineFragment(fragment) => {
                let of = fragment.node.type_condition.as_ref().map_or(of, |condition| condition.node.on.node.as_str());
                of_set(document, of, &fragment.node.selection_set.node)?
            }
            Selection::FragmentSpread(spread) => {
                let fragment = &document.fragments.get(&spread.node.fragment_name.node)?.node;
                of_set(document, &fragment.type_condition.node.on.node, &fragment.selection_set.node)?
            }
        };
        Some(shortest.min(lifetime))
    })
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn lifetime_of(text: &str) -> Option<PageLifetime> {
        let document = parse_query(text).unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        lifetime(&document, &operation.node)
    }

    #[test]
    fn everything_on_the_list_exists() {
        assert_eq!(listed().count(), FIELDS.len());
        for (of, name, _) in listed() {
            assert!(FIELDS.contains_key(&(of, name)), "{of}.{name}");
        }
    }

    #[test]
    fn an_answer_lives_as_long_as_its_shortest_field() {
        assert_eq!(lifetime_of("{ products { nodes { id title price { amount } } } __typename }"), Some(Lasting));
        assert_eq!(lifetime_of("{ products { nodes { left: available } } }"), Some(Live));
        assert_eq!(
            lifetime_of("{ ...F } fragment F on Query { products { nodes { ... on Product { flashSale { phase } } } } }"),
            Some(Live)
        );
    }

    #[test]
    fn one_private_field_makes_an_answer_private_however_it_is_written() {
        for text in [
            "{ serverTime }",
            "{ products { nodes { id flashSale { viewerUnits } } } }",
            "{ products { nodes { id flashSale { title: serverTime } } } }",
            "{ products { nodes { id flashSale { serverTime @skip(if: true) } } } }",
            "{ products { nodes { ...F } } } fragment F on Product { flashSale { ... { ...G } } } fragment G on FlashSale { viewerUnits }",
            "{ products { nodes { ... on Node { id } } } }",
            "{ node(id: \"prod_1\") { ... on Product { title } } }",
            "{ categories { id } viewer { id } }",
            "{ __schema { types { name } } }",
            "{ __type(name: \"Product\") { name } }",
            "{ products { nodes { unknown } } }",
            "{ ...Missing }",
            "mutation { logOut { done } }",
            "subscription { flashSaleUpdates(flashSaleId: \"x\") { id } }",
        ] {
            assert_eq!(lifetime_of(text), None, "{text}");
        }
    }
}
