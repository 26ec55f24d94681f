//! Rows by id, in the order they came. Used for intents, charges and refunds.

use std::collections::HashMap;

/// Which rows of a list a caller wants, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    pub limit: usize,
    /// The id of the last row already seen.
    pub starting_after: Option<String>,
}

pub struct Table<T> {
    rows: Vec<T>,
    index: HashMap<String, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), index: HashMap::new() }
    }
}

impl<T> Table<T> {
    pub fn get(&self, id: &str) -> Option<&T> {
        self.index.get(id).and_then(|&at| self.rows.get(at))
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.index.get(id).and_then(|&at| self.rows.get_mut(at))
    }

    /// Adds a row, or replaces the one with this id; says where it is and whether it is new.
    pub fn put(&mut self, id: &str, row: T) -> (usize, bool) {
        if let Some(&at) = self.index.get(id) {
            self.rows[at] = row;
            return (at, false);
        }
        self.index.insert(id.to_owned(), self.rows.len());
        self.rows.push(row);
        (self.rows.len() - 1, true)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn rows(&self) -> &[T] {
        &self.rows
    }

    /// Up to `limit` matching rows, newest first, and whether there are more; `None` when the row to start
    /// after is unknown.
    pub fn page(&self, page: &Page, matches: impl Fn(&T) -> bool) -> Option<(Vec<&T>, bool)> {
        let end = match &page.starting_after {
            Some(id) => *self.index.get(id)?,
            None => self.rows.len(),
        };
        let mut found: Vec<&T> = self.rows[..end].iter().rev().filter(|row| matches(row)).take(page.limit + 1).collect();
        let more = found.len() > page.limit;
        found.truncate(page.limit);
        Some((found, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_walk_from_the_newest_row_to_the_oldest() {
        let mut table = Table::default();
        for id in ["a", "b", "c", "d", "e"] {
            table.put(id, id);
        }
        let page = |starting_after: Option<&str>| Page { limit: 2, starting_after: starting_after.map(str::to_owned) };
        let walk = |from: Option<&str>| table.page(&page(from), |id| **id != *"c");

        assert_eq!(walk(None), Some((vec![&"e", &"d"], true)));
        assert_eq!(walk(Some("d")), Some((vec![&"b", &"a"], false)), "the filtered row is not counted");
        assert_eq!(walk(Some("x")), None);
    }
}
