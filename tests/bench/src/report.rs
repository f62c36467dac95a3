//! What was measured: tables with ours beside the peers, as text, Markdown and JSON.
//!
//! Called by: every part. Invariant: a cell is a figure of this run or the reason why there is none.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::plot::Plot;

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Records a second.
    Higher,
    /// Seconds, megabytes.
    Lower,
}

/// One line of a table: the same measure of every system.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured, with its unit.
    pub measure: String,
    /// Which way is better.
    pub better: Better,
    /// Figure by system.
    pub figures: BTreeMap<String, f64>,
    /// Why a system has no figure.
    pub missing: BTreeMap<String, String>,
}

/// One table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// What the reader has to know of the work.
    pub note: String,
    /// Systems in the order of their columns.
    pub systems: Vec<String>,
    /// Its lines.
    pub rows: Vec<Row>,
}

/// All tables of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Processor, cores, kernel, disk, date.
    pub machine: Vec<String>,
    /// The tables.
    pub tables: Vec<Table>,
    /// What went wrong or was left out.
    pub remarks: Vec<String>,
    /// Written beside the tables, which hold their figures.
    #[serde(skip)]
    pub plots: Vec<Plot>,
}

impl Table {
    /// An empty table with a heading and what the reader has to know.
    pub fn new(title: &str, note: &str) -> Table {
        Table { title: title.to_string(), note: note.to_string(), ..Table::default() }
    }

    /// Puts one figure in; prints it as well, for who watches.
    pub fn put(&mut self, measure: &str, better: Better, system: &str, figure: f64) {
        println!("    {system:<14} {measure}: {}", shown(figure));
        self.row(measure, better, system).figures.insert(system.to_string(), figure);
    }

    /// Says why there is no figure.
    pub fn miss(&mut self, measure: &str, better: Better, system: &str, reason: &str) {
        println!("    {system:<14} {measure}: none ({reason})");
        let reason = reason.replace(['\n', '|'], " ");
        self.row(measure, better, system).missing.insert(system.to_string(), reason);
    }

    /// Nothing was put in, not even why there is nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&mut self, measure: &str, better: Better, system: &str) -> &mut Row {
        if !self.systems.iter().any(|known| known == system) {
            self.systems.push(system.to_string());
        }
        let at = self.rows.iter().position(|row| row.measure == measure);
        let at = at.unwrap_or_else(|| {
            let (figures, missing) = (BTreeMap::new(), BTreeMap::new());
            self.rows.push(Row { measure: measure.to_string(), better, figures, missing });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n| measure |", self.title, self.note);
        for system in &self.systems {
            let _ = write!(text, " {system} |");
        }
        text.push_str(" best peer to ours |\n|---|");
        text.push_str(&"---|".repeat(self.systems.len() + 1));
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.measure);
            for system in &self.systems {
                let cell = match (row.figures.get(system), row.missing.get(system)) {
                    (Some(figure), _) => shown(*figure),
                    (None, Some(reason)) => reason.clone(),
                    (None, None) => String::new(),
                };
                let _ = write!(text, " {cell} |");
            }
            let _ = writeln!(text, " {} |", row.ratio());
        }
        text
    }
}

impl Row {
    /// How many times better ours is than the best peer; below 1 it is worse. Of several of ours the
    /// first counts, the one with the default durability.
    fn ratio(&self) -> String {
        let ours = self.figures.get(e2e::peers::OURS);
        let peers = self.figures.iter().filter(|(name, _)| !name.starts_with(e2e::peers::OURS));
        let peers = peers.map(|(_, figure)| *figure);
        let (ratio, ours) = match (self.better, ours) {
            (_, None) => return String::new(),
            (Better::Higher, Some(ours)) => (peers.reduce(f64::max).map(|peer| ours / peer), ours),
            (Better::Lower, Some(ours)) => (peers.reduce(f64::min).map(|peer| peer / ours), ours),
        };
        match ratio {
            Some(ratio) if ratio.is_finite() && *ours > 0.0 => format!("{ratio:.2}x"),
            _ => String::new(),
        }
    }
}

impl Report {
    /// The whole report as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Measured side by side\n\n");
        for line in &self.machine {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
        for table in &self.tables {
            text.push_str(&table.markdown());
            text.push('\n');
        }
        if !self.remarks.is_empty() {
            text.push_str("### Remarks\n\n");
            for remark in &self.remarks {
                let _ = writeln!(text, "- {remark}");
            }
        }
        text
    }

    /// Writes NAME.md and NAME.json, and NAME-KEY.svg for each plot.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, name: &Path) -> Result<()> {
        let write = |path: PathBuf, text: String| {
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
            Ok(())
        };
        write(name.with_extension("md"), self.markdown())?;
        write(name.with_extension("json"), serde_json::to_string_pretty(self)?)?;
        self.plots.iter().try_for_each(|plot| write(beside(name, &plot.key), plot.svg()))
    }
}

/// NAME-KEY.svg of a NAME, with or without an extension.
fn beside(name: &Path, key: &str) -> PathBuf {
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    name.with_file_name(format!("{stem}-{key}.svg"))
}

/// A figure as people read it: thousands as k, three digits.
pub fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1e8 => format!("{:.0} M", figure / 1e6),
        size if size >= 1e6 => format!("{:.2} M", figure / 1e6),
        size if size >= 1e4 => format!("{:.0} k", figure / 1e3),
        size if size >= 1e3 => format!("{:.2} k", figure / 1e3),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// The figure below which that share of them is; not a number where there are none. `sorted` ascends.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The middle one of some figures; the mean of the two in the middle of an even number.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        count if count % 2 == 1 => figures.get(middle).copied(),
        _ => Some((figures.get(middle - 1)? + figures.get(middle)?) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_compares_with_the_best_peer_either_way() {
        let mut table = Table::new("t", "");
        for (system, rate, seconds) in
            [(e2e::peers::OURS, 300.0, 2.0), ("a", 100.0, 8.0), ("b", 200.0, 6.0)]
        {
            table.put("rate", Better::Higher, system, rate);
            table.put("seconds", Better::Lower, system, seconds);
        }
        let ratios: Vec<String> = table.rows.iter().map(Row::ratio).collect();
        assert_eq!(ratios, ["1.50x", "3.00x"]);
    }

    #[test]
    fn missing_figure_shows_its_reason_and_no_ratio() {
        let mut table = Table::new("t", "");
        table.miss("rate", Better::Higher, e2e::peers::OURS, "did not start");
        table.put("rate", Better::Higher, "a", 1.0);
        let text = table.markdown();
        assert!(text.contains("| rate | did not start | 1.00 |  |"), "{text}");
    }

    #[test]
    fn quantile_is_one_of_the_figures() {
        let figures: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|s| quantile(&figures, s)), [1.0, 51.0, 100.0, 101.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn plot_is_beside_the_tables() {
        assert_eq!(beside(Path::new("a/full.md"), "znodes"), Path::new("a/full-znodes.svg"));
    }

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
