//! Tables: a heading in capitals, columns as wide as needed, two spaces between them. Nothing a
//! `grep` or an `awk` would stumble over.

use std::fmt::Write as _; // Into a String, which cannot fail.

use super::clean_line;

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(heading: impl IntoIterator<Item = S>) -> Self {
        Self { heading: heading.into_iter().map(|h| h.into().to_uppercase()).collect(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let clean = |cell: S| if cell.as_ref().is_empty() { "-".to_owned() } else { clean_line(cell.as_ref()).into_owned() };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// As text.
    pub(crate) fn render(&self) -> String {
        let columns = self.heading.len();
        let width = |column: usize| {
            std::iter::once(&self.heading).chain(&self.rows).filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ", width = *width);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values of one thing, one below the other.
#[derive(Debug, Default)]
pub(crate) struct Details(Vec<(String, String)>);

impl Details {
    /// Adds a line, unless there is no value.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
    }

    /// As text.
    pub(crate) fn render(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.0 {
            let label = format!("{name}:");
            let indent = format!("\n{:width$} ", "");
            let value = super::clean(value).replace('\n', &indent);
            text.push_str(format!("{label:width$} {value}").trim_end());
            text.push('\n');
        }
        text
    }
}
