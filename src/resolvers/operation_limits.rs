//! What one operation may ask for, beside the depth that the library checks: how often a document may name things anew, how
//! many fields it may begin with, and what it may cost its caller.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, Positioned, ServerError, ValidationResult,
    parser::types::{ExecutableDocument, Field, FragmentDefinition, OperationType, Selection, SelectionSet},
};

use super::{context::Caller, errors::ApiError};

/// Brackets within one another. The parser goes deeper into its stack with each, and a stack that is used up ends the process.
const MAX_BRACKETS: usize = 64;
/// Fields and fragments within one another.
const MAX_NESTING: usize = 32;
/// What a document selects, with each fragment counted wherever it is spread. More would cost too much anyway.
const MAX_SELECTIONS: usize = MAX_COMPLEXITY;
const MAX_ALIASES: usize = 30;
const MAX_ROOT_FIELDS: usize = 30;
/// What a member of staff may spend is what the library refuses first.
pub const MAX_COMPLEXITY: usize = 10_000;
const MAX_COMPLEXITY_SIGNED_IN: usize = 2_000;
const MAX_COMPLEXITY_ANONYMOUS: usize = 1_000;

/// Whether a text may be parsed as a document.
pub fn check_text(text: &str) -> Result<(), ApiError> {
    let mut open = 0_usize;
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match first {
            b'#' => after.iter().position(|byte| matches!(byte, b'\n' | b'\r')).map_or(&[], |end| &after[end..]),
            b'"' => behind_string(rest).ok_or(ApiError::BadRequest("A string of the document has no end."))?,
            b'{' | b'[' | b'(' => {
                open += 1;
                after
            }
            b'}' | b']' | b')' => {
                open = open.saturating_sub(1);
                after
            }
            _ => after,
        };
        if open > MAX_BRACKETS {
            return Err(ApiError::TooComplex);
        }
    }
    Ok(())
}

/// What follows a string, or a block string, that the text begins with; `None` when it has no end.
fn behind_string(text: &[u8]) -> Option<&[u8]> {
    let (quotes, escape): (&[u8], usize) = if text.starts_with(b"\"\"\"") { (b"\"\"\"", 4) } else { (b"\"", 2) };
    let mut rest = text.get(quotes.len()..)?;
    while !rest.starts_with(quotes) {
        // A block string knows one escape only, that of its own end.
        let is_escape = rest.first() == Some(&b'\\') && (quotes.len() == 1 || rest[1..].starts_with(quotes));
        rest = rest.get(if is_escape { escape } else { 1 }..)?;
    }
    rest.get(quotes.len()..)
}

/// What is wrong with a document, whoever sends it.
pub fn check_document(document: &ExecutableDocument) -> Result<(), ApiError> {
    Expansion { document, fragments: HashMap::new() }.check()?;
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

/// How much a document selects and how deep it goes. Each fragment is looked into once: a few that spread one another twice make
/// millions, and whoever follows each spread, as validation does, is at it for hours.
struct Expansion<'a> {
    document: &'a ExecutableDocument,
    /// `None` while it is looked into.
    fragments: HashMap<&'a Name, Option<Extent>>,
}

#[derive(Clone, Copy, Default)]
struct Extent {
    selections: usize,
    depth: usize,
}

impl<'a> Expansion<'a> {
    /// Validation looks at fragments that nobody spreads, too.
    fn check(mut self) -> Result<(), ApiError> {
        let mut selections = 0;
        for name in self.document.fragments.keys() {
            selections += self.fragment(name, 0)?.selections;
        }
        for (_, operation) in self.document.operations.iter() {
            selections += self.set(&operation.node.selection_set.node, 0)?.selections;
        }
        if selections > MAX_SELECTIONS { Err(ApiError::TooComplex) } else { Ok(()) }
    }

    fn set(&mut self, set: &'a SelectionSet, above: usize) -> Result<Extent, ApiError> {
        let mut whole = Extent::default();
        if above > MAX_NESTING {
            return Err(ApiError::TooComplex);
        }
        for selection in &set.items {
            let inner = match &selection.node {
                Selection::Field(field) => self.set(&field.node.selection_set.node, above + 1)?,
                Selection::InlineFragment(fragment) => self.set(&fragment.node.selection_set.node, above + 1)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, above + 1)?,
            };
            whole.selections += 1 + inner.selections;
            whole.depth = whole.depth.max(1 + inner.depth);
            if whole.selections > MAX_SELECTIONS || above + whole.depth > MAX_NESTING {
                return Err(ApiError::TooComplex);
            }
        }
        Ok(whole)
    }

    /// One that does not exist is validation's to refuse; one within itself has no end.
    fn fragment(&mut self, name: &'a Name, above: usize) -> Result<Extent, ApiError> {
        if let Some(known) = self.fragments.get(name) {
            return known.ok_or(ApiError::TooComplex);
        }
        let Some(definition) = self.document.fragments.get(name) else { return Ok(Extent::default()) };
        self.fragments.insert(name, None);
        let extent = self.set(&definition.node.selection_set.node, above)?;
        self.fragments.insert(name, Some(extent));
        Ok(extent)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_within_one_another_are_counted_and_those_in_texts_are_not() {
        let deep = |between: &str| format!("{}{}", "[".to_owned() + between, "[").repeat(40);
        for closing in ["\"]]\"", "\"\\\"]]\"", "\"\"\"]]\"\"\"", "\"\"\"\\\"\"\"]]\"\"\"", "\"\"", "#]]\n", "#\"]]\r"] {
            assert_eq!(check_text(&deep(closing)), Err(ApiError::TooComplex), "{closing}");
        }
        for opening in ["\"[[[\"", "\"\"\"[[ \" [[\"\"\"", "#[[[[\n", "\"\\\\\"", "{[()]}", "\"\"\"\"\"\""] {
            assert_eq!(check_text(&opening.repeat(100)), Ok(()), "{opening}");
        }
    }

    #[test]
    fn a_string_without_an_end_is_refused() {
        for text in ["\"", "\"x\\\"", "\"\"\"", "\"\"\"x\"\"", "\"\"\"\\\"\"\"", "\"\\", "\"\"\"\\"] {
            assert!(matches!(check_text(text), Err(ApiError::BadRequest(_))), "{text}");
        }
    }
}
