//! What one operation may ask for, beside the depth that the library checks: how often a document may name things anew, how
//! many fields it may begin with, and what it may cost its caller.

use std::collections::HashSet;

use async_graphql::{
    Name, Positioned, ServerError, ValidationResult,
    parser::types::{ExecutableDocument, Field, FragmentDefinition, OperationType, Selection, SelectionSet},
};

use super::{context::Caller, errors::ApiError};

const MAX_ALIASES: usize = 30;
const MAX_ROOT_FIELDS: usize = 30;
/// What a member of staff may spend is what the library refuses first.
pub const MAX_COMPLEXITY: usize = 10_000;
const MAX_COMPLEXITY_SIGNED_IN: usize = 2_000;
const MAX_COMPLEXITY_ANONYMOUS: usize = 1_000;

/// What is wrong with a document, whoever sends it.
pub fn check_document(document: &ExecutableDocument) -> Result<(), ApiError> {
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set);
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set);
    if fragments.chain(operations).map(|set| aliases(&set.node)).sum::<usize>() > MAX_ALIASES {
        return Err(ApiError::TooComplex);
    }
    for (_, operation) in document.operations.iter() {
        let mut fields = Vec::new();
        root_fields(document, &operation.node.selection_set.node, &mut HashSet::new(), &mut fields);
        if fields.len() > MAX_ROOT_FIELDS {
            return Err(ApiError::TooComplex);
        }
        if operation.node.ty == OperationType::Mutation && fields.len() > 1 {
            return Err(ApiError::BadRequest("Send one mutation at a time: what became of each is then clear."));
        }
    }
    Ok(())
}

/// An operation must not cost more than its caller may spend.
pub fn check_cost(cost: &ValidationResult, caller: Option<&Caller>) -> Result<(), ServerError> {
    let may_spend = match caller.and_then(|caller| caller.viewer) {
        Some(viewer) if viewer.role.is_staff() => MAX_COMPLEXITY,
        Some(_) => MAX_COMPLEXITY_SIGNED_IN,
        None => MAX_COMPLEXITY_ANONYMOUS,
    };
    if cost.complexity <= may_spend {
        return Ok(());
    }
    let message = format!("The operation costs {}, and may cost {may_spend}: ask for fewer fields or smaller pages.", cost.complexity);
    Err(ApiError::TooComplex.with_message(message))
}

fn aliases(set: &SelectionSet) -> usize {
    set.items.iter().map(|selection| usize::from(alias(selection).is_some()) + inner(&selection.node).map_or(0, aliases)).sum()
}

fn alias(selection: &Positioned<Selection>) -> Option<&Positioned<Name>> {
    match &selection.node {
        Selection::Field(field) => field.node.alias.as_ref(),
        _ => None,
    }
}

fn inner(selection: &Selection) -> Option<&SelectionSet> {
    match selection {
        Selection::Field(field) => Some(&field.node.selection_set.node),
        Selection::InlineFragment(fragment) => Some(&fragment.node.selection_set.node),
        Selection::FragmentSpread(_) => None,
    }
}

/// The fields that an operation begins with, through its fragments. A fragment that spreads itself is validation's to refuse.
fn root_fields<'a>(document: &'a ExecutableDocument, set: &'a SelectionSet, spread: &mut HashSet<&'a Name>, fields: &mut Vec<&'a Field>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(fragment) => root_fields(document, &fragment.node.selection_set.node, spread, fields),
            Selection::FragmentSpread(fragment) => {
                let name = &fragment.node.fragment_name.node;
                let definition: Option<&Positioned<FragmentDefinition>> = document.fragments.get(name);
                if let Some(definition) = definition.filter(|_| spread.insert(name)) {
                    root_fields(document, &definition.node.selection_set.node, spread, fields);
                    spread.remove(name);
                }
            }
        }
        if fields.len() > MAX_ROOT_FIELDS {
            return;
        }
    }
}
