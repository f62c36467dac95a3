//! A new member that needs a large snapshot over a slow link.

use bytes::Bytes;
use coordinator_protocol::{Acl, CreateRequest, ErrorCode, Request, Response};

use super::ensemble::member;
use super::reconfiguration::{World, configure, joining, text_of, voters};
use crate::ServerId;

const JOINER: ServerId = ServerId::new(4).unwrap();

/// Three, and one that is to join: four pieces of the state get there in about a second.
fn world() -> World {
    let mut world = World::with(3, |config| {
        configure(config);
        config.snapshot_chunk_bytes = 64;
    });
    for number in 0..15 {
        let data = Some(Bytes::from(vec![b'x'; 1_000]));
        let path = format!("/data/{number}");
        let node = CreateRequest { path, data, acl: Acl::open(), flags: 0 };
        world.ask(Request::Create(node)).unwrap();
    }
    // What the log has of it is too old for a newcomer.
    for _ in 0..40 {
        world.write();
    }
    world.boot(4, &[1, 2, 3]);
    world.ensemble.far_ms.insert(JOINER, 1_000);
    world
}

/// Has it join, with `meanwhile` after 20 s. The answer, and how long it took from there.
fn join(
    world: &mut World,
    meanwhile: impl FnOnce(&mut World),
) -> (Result<Response, ErrorCode>, u64) {
    let operator = world.operator();
    let asked = world.ensemble.send(operator, joining(4, "participant"));
    world.ensemble.run_ms(20_000);
    meanwhile(world);
    let begun = world.ensemble.now;
    while world.ensemble.clients[&operator].reply(asked).is_none() {
        assert!(world.ensemble.now.since(begun) < 300_000, "no answer");
        world.ensemble.send(operator, Request::Ping);
        world.ensemble.run_ms(1_000);
    }
    let answer = world.ensemble.clients[&operator].reply(asked).unwrap();
    (answer, world.ensemble.now.since(begun))
}

#[test]
fn newcomer_is_waited_for_as_long_as_it_gets_more_of_the_snapshot() {
    let mut world = world();
    let (answer, took_ms) = join(&mut world, |_| {});
    text_of(answer);
    assert!(took_ms > 30_000, "{took_ms}");
    world.await_members(&voters(&[1, 2, 3, 4]));
}

#[test]
fn newcomer_that_gets_no_more_of_the_snapshot_is_out_after_a_while() {
    let mut world = world();
    let (answer, took_ms) = join(&mut world, |world| {
        for id in (1..=3).map(member) {
            world.ensemble.lose_silently(JOINER, id, true);
        }
    });
    assert_eq!(answer, Err(ErrorCode::NewConfigNoQuorum));
    assert!((29_000..36_000).contains(&took_ms), "{took_ms}");
    world.await_members(&voters(&[1, 2, 3]));
}
