//! Session hijack: who knows a session's id, which stands in the Stat of every ephemeral, has not got the session.

use coordinator_protocol::{ConnectRequest, SessionId, SessionPassword};

use super::create;
use super::ensemble::{Ensemble, Got, connect_request, member};

/// What ZooKeeper gives out as a session's password: 16 bytes of java.util.Random, seeded with the id and a number that everybody
/// knows (ZooKeeperServer.generatePasswd).
fn password_of_zookeeper(session: SessionId) -> Vec<u8> {
    const MULTIPLIER: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let seed = session.get().cast_unsigned() ^ 0xb341_5c00;
    let mut state = (seed ^ MULTIPLIER) & MASK;
    let mut next = || {
        state = (state.wrapping_mul(MULTIPLIER) + 0xb) & MASK;
        let [.., a, b, c, d] = (state >> 16).to_be_bytes();
        [d, c, b, a]
    };
    (0..4).flat_map(|_| next()).collect()
}

#[test]
fn who_knows_the_id_of_a_session_cannot_have_it() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 30_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    let session = ensemble.server(leader).state().tree().get("/e").unwrap().stat().ephemeral_owner;
    assert_eq!(session, ensemble.clients[&id].session());
    let right = ensemble.server(leader).state().session(session).unwrap().password.clone();
    let right = right.as_bytes().to_vec();
    let mut flipped = right.clone();
    flipped[15] ^= 1;
    let longer = [&right[..], &[0]].concat();
    let guesses = [
        password_of_zookeeper(session),
        session.get().to_be_bytes().repeat(2),
        vec![0; 16],
        vec![],
        right[..15].to_vec(),
        flipped,
        longer,
    ];
    for (guess, server) in guesses.iter().flat_map(|guess| (1..=3).map(move |at| (guess, at))) {
        let password = SessionPassword::new(guess.clone());
        let request = ConnectRequest { session, password, ..connect_request(30_000) };
        let thief = ensemble.dial(member(server), request);
        ensemble.run_ms(20);
        assert!(ensemble.clients[&thief].response().is_session_over(), "{guess:?}");
        assert_eq!(ensemble.clients[&thief].got.last(), Some(&Got::Closed));
    }
    assert!(!ensemble.clients[&id].is_closed(), "its owner was put out");
    let held = ensemble.server(leader).state().session(session).unwrap();
    assert_eq!(held.generation, 1);
    assert!(ensemble.ask(id, create("/e2", 1)).is_ok());
}
