//! An ensemble in the hands of its operator, by the `tidegate` command.

use anyhow::Result;
use e2e::coordinators::Coordinators;

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
