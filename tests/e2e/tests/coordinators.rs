//! An ensemble in the hands of its operator, by the `tidegate` command.

use anyhow::Result;
use e2e::coordinators::Coordinators;

/// Changes go on while servers are killed; a client's writes are all there afterwards.
#[test]
fn members_join_leave_and_survive() -> Result<()> {
    let mut all = Coordinators::start("members", 3, "reconfigEnabled = true\n")?;
    all.add_places(2)?;
    let here: Vec<usize> = vec![1, 2, 3];
    for id in [4, 5] {
        let named: Vec<usize> = here.iter().copied().chain(4..=id).collect();
        all.write_settings(id, &named)?;
        all.launch(id)?;
        let (peer, client) = (all.peer_address(id), all.address(id));
        let id_text = id.to_string();
        let added =
            all.json(&all.address(1), &["add", &id_text, "--peer", &peer, "--client", &client])?;
        assert!(added["servers"][&id_text].as_str().is_some(), "{added}");
        all.wait("vote", |all| all.role(id).is_some())?;
    }
    // Any two may go, the leader among them.
    let leader = all.leader().expect("all are up");
    for id in [leader, leader % 5 + 1] {
        all.kill(id)?;
    }
    let at = (1..=5).find(|id| ![leader, leader % 5 + 1].contains(id)).expect("three of them");
    all.wait("new leader", |all| all.leader().is_some())?;
    let list = all.json(&all.address(at), &["list"])?;
    assert_eq!(list["members"].as_array().map(Vec::len), Some(5), "{list}");
    for id in [leader, leader % 5 + 1] {
        all.launch(id)?;
    }
    all.wait("all", |all| (1..=5).all(|id| all.role(id).is_some()))?;
    // The leader leaves, and says so.
    let leader = all.leader().expect("all are up");
    let rest = leader % 5 + 1;
    all.json(&all.address(rest), &["remove", &leader.to_string()])?;
    all.wait("end of service", |all| all.role(leader).is_none())?;
    assert!(all.log(leader).contains("no member of the ensemble"), "{}", all.log(leader));
    let list = all.json(&all.address(rest), &["list"])?;
    assert_eq!(list["members"].as_array().map(Vec::len), Some(4), "{list}");
    // It comes back with an empty folder, to follow only.
    all.kill(leader)?;
    all.wipe(leader)?;
    all.write_settings(leader, &[1, 2, 3, 4, 5])?;
    all.launch(leader)?;
    let (peer, client) = (all.peer_address(leader), all.address(leader));
    let id = leader.to_string();
    let add = ["add", &id, "--peer", &peer, "--client", &client, "--observer"];
    all.json(&all.address(rest), &add)?;
    all.wait("observer", |all| all.role(leader).as_deref() == Some("observer"))?;
    // One that does not run is out again, and all are restarted.
    all.json(&all.address(rest), &["remove", &id])?;
    all.kill(leader)?;
    for id in (1..=5).filter(|id| *id != leader) {
        all.kill(id)?;
    }
    for id in (1..=5).filter(|id| *id != leader) {
        all.launch(id)?;
    }
    all.wait("leader of four", |all| all.leader().is_some())?;
    let list = all.json(&all.address(rest), &["list"])?;
    assert_eq!(list["members"].as_array().map(Vec::len), Some(4), "{list}");
    Ok(())
}

#[test]
fn members_are_not_changed_where_settings_forbid_it() -> Result<()> {
    let mut all = Coordinators::start("fixed", 3, "")?;
    let refused = all.command(&all.addresses(), &["remove", "3"])?;
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("reconfigEnabled"), "{said}");
    // Who has the secret, but is none of them, has no link.
    all.add_places(1)?;
    all.write_settings(4, &[1, 2, 3, 4])?;
    all.launch(4)?;
    all.wait("refusal", |all| all.log(1).contains("it says it is server 4"))?;
    Ok(())
}

/// Its file names itself only, and the log has another member: the link from that one has to come in.
#[test]
fn server_that_was_alone_is_found_by_those_who_joined() -> Result<()> {
    let mut all = Coordinators::start("grown", 1, "reconfigEnabled = true\n")?;
    all.add_places(1)?;
    all.write_settings(2, &[1, 2])?;
    all.launch(2)?;
    let (peer, client) = (all.peer_address(2), all.address(2));
    all.json(&all.address(1), &["add", "2", "--peer", &peer, "--client", &client])?;
    all.wait("vote", |all| all.role(2).is_some())?;
    all.kill(1)?;
    all.set_settings("");
    all.write_settings(1, &[1])?;
    all.launch(1)?;
    all.wait("leader of two", |all| all.leader().is_some() && all.role(1) != all.role(2))?;
    let list = all.json(&all.address(1), &["list"])?;
    assert_eq!(list["members"].as_array().map(Vec::len), Some(2), "{list}");
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn operator_moves_leadership_and_sees_it() -> Result<()> {
    let mut all = Coordinators::start("transfer", 3, "")?;
    for asked in 1..=3 {
        let leader = all.leader().expect("nothing was killed");
        let to = leader % 3 + 1;
        let moved = all.json(&all.address(asked), &["transfer", "--to", &to.to_string()])?;
        assert_eq!(
            (moved["leader"].as_u64(), moved["moved"].as_bool()),
            (Some(to as u64), Some(true))
        );
        all.wait("new leader", |all| all.leader() == Some(to))?;
        let again = all.json(&all.address(asked), &["transfer", "--to", &to.to_string()])?;
        assert_eq!(again["moved"].as_bool(), Some(false));
    }
    let leader = all.leader().expect("nothing was killed");
    let chosen = all.json(&all.addresses(), &["transfer"])?;
    assert_ne!(chosen["leader"].as_u64(), Some(leader as u64));

    let stranger = all.command(&all.addresses(), &["transfer", "--auth", "digest:me:mine"])?;
    assert!(!stranger.status.success());
    let said = text(&stranger.stderr);
    assert!(said.contains("you may not move leadership") && said.contains("superDigest"), "{said}");

    let gone =
        (1..=3).find(|id| all.role(*id).as_deref() == Some("follower")).expect("two of them");
    all.kill(gone)?;
    let rest = (1..=3).find(|id| *id != gone).expect("two of them");
    all.wait("loss seen", |all| {
        let list = all.json(&all.address(rest), &["list"]).expect("a majority is up");
        list["members"][gone - 1]["up"].as_bool() == Some(false)
    })?;
    for (to, why) in [(gone, "is not up"), (9, "is not a voting member")] {
        let refused = all.command(&all.address(rest), &["transfer", "--to", &to.to_string()])?;
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }
    let table = text(&all.command(&all.addresses(), &["list"])?.stdout);
    assert_eq!(table.lines().count(), 5, "{table}");
    for word in ["MEMBER", "leader", "follower", "down", "0x"] {
        assert!(table.contains(word), "{table}");
    }
    Ok(())
}
