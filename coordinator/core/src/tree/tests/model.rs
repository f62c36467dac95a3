//! A tree so simple that it is plainly right, and random operations that both must answer alike.

use std::collections::BTreeMap;

use super::*;

/// A node, with counters as the documentation of Stat words them.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    data: Option<Bytes>,
    created: i64,
    modified: i64,
    children_changed: i64,
    version: i32,
    creates: i32,
    deletes: i32,
    owner: SessionId,
}

#[derive(Clone, Debug, PartialEq)]
struct Model(BTreeMap<String, Plain>);

impl Model {
    fn new() -> Self {
        let plain = |deletes| Plain {
            data: Some(Bytes::new()),
            created: 0,
            modified: 0,
            children_changed: 0,
            version: 0,
            creates: 0,
            deletes,
            owner: SessionId::NONE,
        };
        // Children that nobody created are counted as deletes that nobody made.
        let system =
            [("/", -1), ("/zookeeper", -2), ("/zookeeper/quota", 0), ("/zookeeper/config", 0)];
        Self(system.into_iter().map(|(path, deletes)| (path.to_owned(), plain(deletes))).collect())
    }

    fn child_names(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below = self.0.keys().filter_map(|other| other.strip_prefix(&prefix));
        below.filter(|rest| !rest.is_empty() && !rest.contains('/')).map(str::to_owned).collect()
    }

    fn parent_of(path: &str) -> String {
        let above = path.rsplit_once('/').expect("a path").0;
        if above.is_empty() { "/".to_owned() } else { above.to_owned() }
    }

    fn create(
        &mut self,
        zxid: i64,
        path: &str,
        flags: i32,
        owner: SessionId,
    ) -> Result<String, ErrorCode> {
        let above = Self::parent_of(path);
        let parent = self.0.get(&above).ok_or(ErrorCode::NoNode)?.clone();
        let path = match flags {
            2 | 3 => format!("{path}{:010}", parent.creates),
            _ => path.to_owned(),
        };
        if self.0.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if parent.owner != SessionId::NONE {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let owner = if flags == 1 || flags == 3 { owner } else { SessionId::NONE };
        let node = Plain {
            data: Some(Bytes::from_static(b"x")),
            created: zxid,
            modified: zxid,
            children_changed: zxid,
            version: 0,
            creates: 0,
            deletes: 0,
            owner,
        };
        self.0.insert(path.clone(), node);
        let parent = self.0.get_mut(&above).expect("found above");
        parent.creates += 1;
        parent.children_changed = zxid;
        Ok(path)
    }

    fn delete(&mut self, zxid: i64, path: &str, version: i32) -> Result<(), ErrorCode> {
        let node = self.0.get(path).ok_or(ErrorCode::NoNode)?;
        if version != -1 && version != node.version {
            return Err(ErrorCode::BadVersion);
        }
        if !self.child_names(path).is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        self.0.remove(path);
        let parent = self.0.get_mut(&Self::parent_of(path)).expect("a parent");
        parent.deletes += 1;
        parent.children_changed = zxid;
        Ok(())
    }

    fn set(&mut self, zxid: i64, path: &str, version: i32) -> Result<i32, ErrorCode> {
        let node = self.0.get_mut(path).ok_or(ErrorCode::NoNode)?;
        if version != -1 && version != node.version {
            return Err(ErrorCode::BadVersion);
        }
        node.data = Some(Bytes::from_static(b"longer"));
        node.version += 1;
        node.modified = zxid;
        Ok(node.version)
    }

    fn compare(&self, tree: &Tree) {
        tree.check();
        assert_eq!(tree.node_count(), self.0.len());
        for (path, node) in &self.0 {
            let found = tree.get(path).unwrap_or_else(|| panic!("{path} is missing"));
            let children = self.child_names(path);
            let expected = Stat {
                czxid: Zxid::new(node.created),
                mzxid: Zxid::new(node.modified),
                ctime_ms: if node.created == 0 { 0 } else { 1000 + node.created },
                mtime_ms: if node.modified == 0 { 0 } else { 1000 + node.modified },
                version: node.version,
                cversion: node.creates + node.deletes,
                aversion: if path == "/zookeeper/config" { -1 } else { 0 },
                ephemeral_owner: node.owner,
                data_length: node.data.as_ref().map_or(0, |data| data.len() as i32),
                num_children: children.len() as i32,
                pzxid: Zxid::new(node.children_changed),
            };
            assert_eq!(found.stat(), expected, "{path}");
            assert_eq!(found.data(), node.data, "{path}");
            assert_eq!(names(tree, path), children, "{path}");
        }
        for owner in [OWNER, SessionId::new(5)] {
            let owned = self.0.iter().filter(|(_, node)| node.owner == owner);
            let expected: Vec<&str> = owned.map(|(path, _)| path.as_str()).collect();
            assert_eq!(tree.ephemerals_of(owner).map(|path| &**path).collect::<Vec<_>>(), expected);
        }
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(4);
        (0..depth).map(|_| ["/a", "/b", "/a-b"][self.below(3) as usize]).collect()
    }
}

/// One operation on both; whether it succeeded.
fn step(
    random: &mut Random,
    model: &mut Model,
    transaction: &mut Transaction<'_>,
    zxid: i64,
) -> bool {
    let path = random.path();
    let version = [-1, -1, 0, 1][random.below(4) as usize];
    match random.below(10) {
        0..=4 => {
            let flags = random.below(4) as i32;
            let owner = [OWNER, SessionId::new(5)][random.below(2) as usize];
            let found = transaction.create(owner, &request(&path, "x", flags));
            let found = found.map(|(path, _)| path.to_string());
            assert_eq!(found, model.create(zxid, &path, flags, owner), "create {path} {flags}");
            found.is_ok()
        }
        5..=6 => {
            let found = transaction.delete(&path, version);
            assert_eq!(found, model.delete(zxid, &path, version), "delete {path} {version}");
            found.is_ok()
        }
        7..=8 => {
            let data = Some(Bytes::from_static(b"longer"));
            let found = transaction.set_data(&path, data, version).map(|stat| stat.version);
            assert_eq!(found, model.set(zxid, &path, version), "set {path} {version}");
            found.is_ok()
        }
        _ => {
            let found = transaction.check(&path, version).map(|_| ());
            let node = model.0.get(&path).ok_or(ErrorCode::NoNode);
            let expected = node.and_then(|node| match version == -1 || version == node.version {
                true => Ok(()),
                false => Err(ErrorCode::BadVersion),
            });
            assert_eq!(found, expected, "check {path} {version}");
            found.is_ok()
        }
    }
}

#[test]
fn tree_answers_like_the_naive_model() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut tree, mut model) = (Tree::new(), Model::new());
        for zxid in 1..150 {
            let before = (tree.clone(), model.clone());
            let mut transaction = Transaction::new(&mut tree, stamp(zxid));
            if random.below(20) == 0 {
                transaction.delete_ephemerals(OWNER);
                let owned = before.1.0.iter().filter(|(_, node)| node.owner == OWNER);
                for (path, _) in owned {
                    model.delete(zxid, path, -1).expect("ephemerals have no children");
                }
            }
            let all_done = (0..=random.below(5))
                .all(|_| step(&mut random, &mut model, &mut transaction, zxid));
            if all_done {
                let _changes = transaction.commit();
            } else {
                transaction.rollback();
                assert_eq!(tree, before.0, "seed {seed}: rollback");
                model = before.1;
            }
            model.compare(&tree);
        }
    }
}
