//! What can be said of groups.
//!
//! *Called by* `args`. Decides nothing.

use clap::{Args, Subcommand};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups.
    List,
    /// Show how far a group is with each partition, how far behind, and which member reads it.
    #[command(after_help = "\
Examples:
  tidegate group describe billing
  tidegate group describe billing -o json | jq '.offsets[] | select(.lag > 0)'")]
    Describe {
        /// Its id.
        group: String,
    },
    /// Set where a group goes on reading. Shows what would change; --execute changes it.
    #[command(after_help = "\
The group must have no members at the time: stop its consumers first.

Examples:
  tidegate group reset-offsets billing --topic orders --to-earliest
  tidegate group reset-offsets billing --topic orders:0,2 --to-offset 1000 --execute
  tidegate group reset-offsets billing --to-time 1700000000000 --execute     all its topics
  tidegate group reset-offsets billing --topic orders --shift-by -10 --execute")]
    ResetOffsets(ResetArguments),
    /// Delete a group that has no members, with what it remembers.
    Delete {
        /// Its id.
        group: String,
        /// Do nothing when there is no such group.
        #[arg(long)]
        if_exists: bool,
    },
}

/// Which offsets to set, and to what.
#[derive(Args, Debug)]
pub struct ResetArguments {
    /// The group.
    pub group: String,
    /// A topic, or partitions of it as TOPIC:0,1; may be repeated [default: all that the group remembers].
    #[arg(short, long = "topic", value_name = "TOPIC[:PARTITIONS]", value_parser = topic_partitions)]
    pub topics: Vec<(String, Vec<i32>)>,
    /// To what.
    #[command(flatten)]
    pub to: ResetTo,
    /// Do it, instead of only showing it.
    #[arg(long)]
    pub execute: bool,
}

/// One of the places to go to.
#[derive(Args, Clone, Copy, Debug)]
#[group(required = true, multiple = false)]
pub struct ResetTo {
    /// To the first record there is.
    #[arg(long)]
    pub to_earliest: bool,
    /// After the last record there is.
    #[arg(long)]
    pub to_latest: bool,
    /// To this offset, or the nearest that the log has.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// To the first record of this time (milliseconds since 1970) or later.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_time: Option<i64>,
    /// By so many records, back if negative, within what the log has.
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    pub shift_by: Option<i64>,
}

fn topic_partitions(text: &str) -> Result<(String, Vec<i32>), String> {
    let Some((topic, list)) = text.split_once(':') else {
        return Ok((text.to_owned(), Vec::new()));
    };
    let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0);
    let partitions: Option<Vec<_>> = list.split(',').map(number).collect();
    match partitions {
        Some(partitions) if !topic.is_empty() => Ok((topic.to_owned(), partitions)),
        _ => Err("expected TOPIC or TOPIC:0,1,...".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_come_with_or_without_partitions() {
        assert_eq!(topic_partitions("t"), Ok(("t".to_owned(), vec![])));
        assert_eq!(topic_partitions("t:0,12"), Ok(("t".to_owned(), vec![0, 12])));
        for bad in ["t:", "t:a", "t:-1", ":1"] {
            assert!(topic_partitions(bad).is_err(), "{bad}");
        }
    }
}
