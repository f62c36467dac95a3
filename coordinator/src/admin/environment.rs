//! The machine and the process, by the names of ZooKeeper's `envi`.
//!
//! Called by: both writers. Calls: `/proc`, `/etc/passwd`.
//! Invariant: what is said is so: there is no Java here, so `java.*`, and the memory of its heap, are left out; what cannot
//! be read is `<NA>`, as there.
//! Does not know: settings.

use std::os::unix::fs::MetadataExt;

/// The ZooKeeper release whose wire format and answers these are; clients choose what they send by it.
pub const ZOOKEEPER_VERSION: &str = "3.9.5";

const UNKNOWN: &str = "<NA>";

/// In ZooKeeper's form: its release, what stands in for the hash of its sources, and when it was built.
pub fn version() -> String {
    format!("{ZOOKEEPER_VERSION}-tidegate, built on {}", env!("CARGO_PKG_VERSION"))
}

/// Names and values, in ZooKeeper's order.
pub fn list() -> Vec<(&'static str, String)> {
    let kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        text.map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned())
    };
    let user = user();
    let directory = std::env::current_dir();
    vec![
        ("zookeeper.version", version()),
        ("host.name", kernel("hostname")),
        ("os.name", kernel("ostype")),
        ("os.arch", arch().to_owned()),
        ("os.version", kernel("osrelease")),
        ("user.name", user.name),
        ("user.home", user.home),
        (
            "user.dir",
            directory.map_or_else(|_| UNKNOWN.to_owned(), |path| path.display().to_string()),
        ),
    ]
}

/// As Java calls it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}

struct User {
    name: String,
    home: String,
}

/// Who runs the process.
fn user() -> User {
    let id = std::fs::metadata("/proc/self").map(|about| about.uid());
    let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    id.ok().and_then(|id| user_in(&names, id)).unwrap_or_else(|| User {
        name: std::env::var("USER").unwrap_or_else(|_| UNKNOWN.to_owned()),
        home: std::env::var("HOME").unwrap_or_else(|_| UNKNOWN.to_owned()),
    })
}

fn user_in(names: &str, id: u32) -> Option<User> {
    names.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, number, _, _, home, ..] = fields[..] else { return None };
        let is_it = number.parse() == Ok(id);
        is_it.then(|| User { name: name.to_owned(), home: home.to_owned() })
    })
}

/// Descriptors that are open, and how many may be.
pub fn descriptors() -> (Option<u64>, Option<u64>) {
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    (open, descriptors_max(&limits))
}

fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_is_read_as_it_writes_itself() {
        let names = "root:x:0:0:root:/root:/bin/sh\nbad line\nzk:x:77:5:,,,:/var/zk:/bin/false\n";
        let user = user_in(names, 77).unwrap();
        assert_eq!((user.name.as_str(), user.home.as_str()), ("zk", "/var/zk"));
        assert!(user_in(names, 78).is_none());
        let limits =
            "Limit     Soft Limit   Hard Limit   Units\nMax open files   20000   30000   files\n";
        assert_eq!(descriptors_max(limits), Some(20_000));
        assert_eq!(descriptors_max("Max open files   unlimited   unlimited   files"), None);
        let (open, max) = descriptors();
        assert!(open > Some(2) && max >= open);
    }

    #[test]
    fn nothing_of_java_is_claimed() {
        let names: Vec<&str> = list().into_iter().map(|(name, _)| name).collect();
        let expected = [
            "zookeeper.version",
            "host.name",
            "os.name",
            "os.arch",
            "os.version",
            "user.name",
            "user.home",
            "user.dir",
        ];
        assert_eq!(names, expected);
        assert!(version().starts_with("3.9.5-tidegate, built on "));
    }
}
