//! The listing by relevance. What a search looks for, in four steps, is the SQL function `search_query`; docs/adr/0019 has the
//! reasons and the plans.

use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use super::{COLUMNS, Product, ProductFilter, push_filter};
use crate::{
    domain::ids::ProductId,
    store::{Page, StoreError},
};

/// So many products of a step are put in order, and a search counts no further: a word that more have says little about any of them.
pub const MOST_FOUND: i64 = 2_000;
/// Titles are shorter than this (`product_title_length`): a rank is the step, then how short the title is.
const STEP: i32 = 1_000;
/// The columns of `search_query`, from the weakest step to the best.
const STEPS: [&str; 4] = ["alike", "anywhere", "title", "words"];

/// A product and how well it answers the search: more is better.
#[derive(Clone, Debug, FromRow)]
pub struct Found {
    #[sqlx(flatten)]
    pub product: Product,
    pub rank: i32,
}

/// Which rows of what is found, best first: so many after (or, backwards, before) a rank and, for ties, an id.
#[derive(Clone, Debug)]
pub struct FoundSlice {
    pub from: Option<(i32, ProductId)>,
    pub backwards: bool,
    pub size: usize,
}

/// One page of what is found, best first also when read backwards. A step is looked at only while those before it have not
/// filled the page.
pub async fn list(db: &mut PgConnection, search: &str, filter: &ProductFilter, slice: &FoundSlice) -> Result<Page<Found>, StoreError> {
    let wanted = i64::try_from(slice.size).unwrap_or(i64::MAX).saturating_add(1);
    let (comparison, direction) = if slice.backwards { (" > (", "") } else { (" < (", " DESC") };

    let mut query = QueryBuilder::new("WITH asked AS MATERIALIZED (SELECT words, title, anywhere, alike FROM search_query(");
    query.push_bind(search).push("))");
    let steps = steps_of(slice);
    for (place, &(step, highest)) in steps.iter().enumerate() {
        query.push(", in_").push(step).push(" AS MATERIALIZED (SELECT id, rank FROM (SELECT p.id, ").push_bind(highest);
        query.push(" - char_length(p.title) AS rank FROM product p WHERE ");
        push_filter(&mut query, filter, false);
        query.push(" AND search_vector(p.title, p.description) @@ (SELECT ").push(step).push(" FROM asked) AND ").push_bind(wanted);
        for (earlier, _) in &steps[..place] {
            query.push(" - (SELECT count(*) FROM in_").push(earlier).push(")");
        }
        query.push(" > 0 LIMIT ").push_bind(MOST_FOUND).push(") ranked");
        if let Some((rank, id)) = slice.from {
            query.push(" WHERE (rank, id)").push(comparison).push_bind(rank).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY rank").push(direction).push(", id").push(direction).push(" LIMIT ").push_bind(wanted).push(")");
    }
    query.push(" SELECT ").push(COLUMNS).push(", found.rank FROM (");
    for (place, (step, _)) in steps.iter().enumerate() {
        query.push(if place > 0 { " UNION ALL " } else { "" }).push("SELECT id, rank FROM in_").push(step);
    }
    query.push(") found JOIN product p ON p.id = found.id ORDER BY found.rank").push(direction).push(", p.id").push(direction);
    query.push(" LIMIT ").push_bind(wanted);
    let rows = query.build_query_as::<Found>().fetch_all(db).await?;
    let mut page = Page::from_surplus(rows, slice.size);
    if slice.backwards {
        page.rows.reverse();
    }
    Ok(page)
}

/// The steps that the page can reach, nearest first, each with the rank that is just above it.
fn steps_of(slice: &FoundSlice) -> Vec<(&'static str, i32)> {
    // A cursor may be forged: there is a step for every rank.
    let step_of = |rank: i32| rank.clamp(0, 4 * STEP - 1) / STEP;
    let reachable = |number: i32| match slice.from {
        Some((rank, _)) if slice.backwards => number >= step_of(rank),
        Some((rank, _)) => number <= step_of(rank),
        None => true,
    };
    let steps = (0..4).zip(STEPS).filter(|(number, _)| reachable(*number)).map(|(number, step)| (step, (number + 1) * STEP));
    if slice.backwards { steps.collect() } else { steps.rev().collect() }
}

/// Narrows a statement over product p to what the search finds, in any step.
pub(super) fn push_search(query: &mut QueryBuilder<'_, Postgres>, search: &str) {
    query.push(" AND search_vector(p.title, p.description) @@ (SELECT matching FROM search_query(").push_bind(search.to_owned()).push("))");
}
