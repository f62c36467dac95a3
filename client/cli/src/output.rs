//! Prints results: aligned columns for people, JSON for programs.
//!
//! *Called by* the commands. Text that comes from the network is escaped before it reaches a terminal.

use std::io::{self, Write};

use serde_json::Value;

/// Rows under headings, as wide as their cells.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The lines, headings first.
    pub fn render(&self) -> String {
        let headings: Vec<_> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let lines: Vec<_> = std::iter::once(&headings).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..headings.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints it.
    pub fn print(&self) -> io::Result<()> {
        io::stdout().write_all(self.render().as_bytes())
    }
}

/// Prints one line, escaped.
pub fn print_line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable(text))
}

/// Prints one JSON document.
pub fn print_json(value: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{value:#}")
}

/// Prints one JSON object on a line of its own.
pub fn print_json_line(value: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{value}")
}

/// The text with control characters escaped, so that it cannot drive a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped: Box<dyn Iterator<Item = char>> = if char.is_control() {
                Box::new(char.escape_default())
            } else {
                Box::new(std::iter::once(char))
            };
            escaped
        })
        .collect()
}

/// Numbers with commas between.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

/// The error and its causes on one line, each said once: many errors name their cause themselves. Escaped, because a
/// part may come from the network.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    printable(&text)
}

/// An error beside which something is known that is worth telling; of all errors, the outermost.
#[derive(Debug)]
pub struct Partly {
    /// What is wrong.
    pub why: String,
    /// What is known, an object.
    pub known: Value,
}

impl std::fmt::Display for Partly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// What is told of an error to programs: `error`, `hint` (null where there is none), and what is known nevertheless.
pub fn error_json(error: &anyhow::Error, hint: Option<String>) -> Value {
    let known = error.downcast_ref::<Partly>().map(|partly| partly.known.clone());
    let mut told = match known {
        Some(Value::Object(known)) => known,
        _ => serde_json::Map::new(),
    };
    told.insert("error".to_owned(), explain(error).into());
    told.insert("hint".to_owned(), hint.into());
    Value::Object(told)
}

/// Whether it failed because nobody reads our output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let io = || io::Error::other("refused");
        let named = anyhow::Error::from(io()).context("cannot connect: refused");
        assert_eq!(explain(&named), "cannot connect: refused");
        let unnamed = anyhow::Error::from(io()).context("cannot connect");
        assert_eq!(explain(&unnamed), "cannot connect: refused");
    }

    #[test]
    fn error_is_an_object_with_what_is_known_nevertheless() {
        let plain = error_json(&anyhow::anyhow!("no\nbroker"), None);
        assert_eq!(plain, serde_json::json!({ "error": "no\\nbroker", "hint": null }));
        let known = serde_json::json!({ "members": [1] });
        let partly = Partly { why: "no answer".to_owned(), known };
        let error = anyhow::anyhow!("refused").context(partly);
        let told = error_json(&error, Some("start it".to_owned()));
        let expected = serde_json::json!({ "error": "no answer: refused", "hint": "start it", "members": [1] });
        assert_eq!(told, expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&["ID", "ADDRESS"]);
        table.row(["1".to_owned(), "a:1".to_owned()]);
        table.row(["1000".to_owned(), "b\u{1b}[2J".to_owned()]);
        assert_eq!(table.render(), "ID    ADDRESS\n1     a:1\n1000  b\\u{1b}[2J\n");
    }
}
