//! Bad input from strangers: answered with a clear error or a closed connection, memory flat, other
//! clients unaffected.

use anyhow::{Context, Result, ensure};
use e2e::running::Running;
use e2e::wire::{Answer, Batch, Bytes, Wire, header, produce, produce_error, send_alone};

/// How much a server's resident memory may grow over all the bad input, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;
const TOPIC: &str = "bad";
/// ZooKeeper's codes: a request that cannot be read, an argument against the rules, no such node, not allowed.
const MARSHALLING: i32 = -5;
const BAD_ARGUMENTS: i32 = -8;
const NO_NODE: i32 = -101;
const NO_AUTH: i32 = -102;

/// A server under bad input, and a well-behaved client beside it.
struct Victim {
    running: Running,
    name: &'static str,
    address: String,
    resident_kib: u64,
    bystander: Wire,
}

impl Victim {
    fn start(name: &'static str) -> Result<Victim> {
        let running = Running::start(1, 1, &[])?;
        let address = running.cluster.node(name)?.address();
        running.create_topic(TOPIC, 1)?;
        // The topic stands when the controller says so; its leader takes office a moment later.
        let held = e2e::load::read_records(&running.bootstrap(), TOPIC, 1)?;
        ensure!(held.is_empty(), "a new topic holds {} records", held.len());
        let mut bystander = Wire::connect(&address)?;
        if name.starts_with("coordinator") {
            bystander.send(&connect_request(0, 10_000, &[0; 16]));
            ensure!(bystander.answer()? != Answer::Closed, "no session");
        }
        let resident_kib = resident_kib(&running, name)?;
        Ok(Victim { running, name, address, resident_kib, bystander })
    }

    fn closes(&mut self, what: &str, bytes: &[u8]) -> Result<()> {
        let answer = send_alone(&self.address, bytes).with_context(|| what.to_string())?;
        ensure!(answer == Answer::Closed, "{what}: answered {answer:?}");
        self.serves_others().with_context(|| what.to_string())
    }

    /// Whether the bystander is still served; it also keeps a session of his alive.
    fn serves_others(&mut self) -> Result<()> {
        let ping = match self.name.starts_with("coordinator") {
            true => Bytes::default().i32(-2).i32(11).framed(),
            false => header(18, 0, false).framed(),
        };
        self.bystander.send(&ping);
        ensure!(self.bystander.answer()? != Answer::Closed, "the bystander was dropped");
        Ok(())
    }

    /// Whether the server lives, the bystander is served, and memory stayed flat.
    fn is_well(&mut self) -> Result<()> {
        let node = self.running.cluster.node(self.name)?;
        ensure!(node.is_alive(), "dead:\n{}", self.running.cluster.log_tail(self.name));
        let log = self.running.cluster.log_tail(self.name);
        ensure!(!log.contains("panicked"), "panicked:\n{log}");
        self.serves_others()?;
        let now = resident_kib(&self.running, self.name)?;
        let growth = now.saturating_sub(self.resident_kib);
        ensure!(growth < GROWTH_KIB_MAX, "memory grew by {growth} KiB to {now} KiB");
        println!("{}: memory {} KiB before, {now} KiB after", self.name, self.resident_kib);
        Ok(())
    }
}

fn resident_kib(running: &Running, name: &str) -> Result<u64> {
    let process = running.cluster.node(name)?.process.context("never started")?;
    Ok(process.usage().context("no such process")?.resident_kib)
}

fn length(value: i32) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.extend([0; 64]);
    bytes
}

#[test]
fn broker_closes_on_forged_lengths() -> Result<()> {
    let mut victim = Victim::start("broker-1")?;
    for forged in [0, 1, -1, i32::MIN, i32::MAX, 104_857_601] {
        victim.closes(&format!("frame length {forged}"), &length(forged))?;
    }
    victim.is_well()
}

#[test]
fn broker_closes_on_requests_cut_at_every_byte() -> Result<()> {
    let mut victim = Victim::start("broker-1")?;
    let metadata = header(3, 1, false).i32(1).string(TOPIC).0;
    let flexible = header(3, 9, true).raw(&[2, 4]).raw(b"bad").raw(&[0, 1, 0, 0, 0]).0;
    let batch = Batch::default().encode();
    for whole in [metadata, flexible, produce(TOPIC, &batch)[4..].to_vec()] {
        for cut in 0..whole.len() {
            let framed = Bytes::default().buffer(&whole[..cut]).0;
            victim.closes(&format!("{cut} of {} bytes", whole.len()), &framed)?;
            // The same bytes with the true length: the rest never comes.
            let mut wire = Wire::connect(&victim.address)?;
            wire.send(&Bytes::default().buffer(&whole).0[..4 + cut]);
            wire.finish();
            ensure!(wire.answer()? == Answer::Closed, "half a frame of {cut} bytes was answered");
        }
    }
    victim.is_well()
}

#[test]
fn broker_answers_unknown_versions_and_closes_on_unknown_keys() -> Result<()> {
    let mut victim = Victim::start("broker-1")?;
    for key in [-1, 93, 999, i16::MAX, i16::MIN] {
        victim.closes(&format!("api key {key}"), &header(key, 0, false).framed())?;
    }
    for (key, version) in [(3, 99), (0, 99), (1, -1), (19, 99), (2, i16::MAX)] {
        victim.closes(
            &format!("key {key} version {version}"),
            &header(key, version, false).framed(),
        )?;
    }
    // What only brokers say to each other is not taken from strangers.
    for (key, version) in [(56, 3), (7, 3), (10_000, 0), (1, 13)] {
        victim.closes(
            &format!("key {key} version {version}"),
            &header(key, version, true).framed(),
        )?;
    }
    let Answer::Frame(frame) = send_alone(&victim.address, &header(18, 99, false).framed())? else {
        anyhow::bail!("an unknown version of ApiVersions was not answered")
    };
    ensure!(frame[..4] == 77_i32.to_be_bytes(), "correlation id of {frame:?}");
    ensure!(frame[4..6] == 35_i16.to_be_bytes(), "UNSUPPORTED_VERSION expected in {frame:?}");
    ensure!(frame[6..10] == 1_i32.to_be_bytes(), "one api listed, in {frame:?}");
    ensure!(frame[10..12] == 18_i16.to_be_bytes(), "ApiVersions listed, in {frame:?}");
    victim.is_well()
}

#[test]
fn broker_closes_on_forged_counts_nulls_and_strings() -> Result<()> {
    let mut victim = Victim::start("broker-1")?;
    let long = "n".repeat(32_000);
    let mut many_tags = header(3, 9, false);
    many_tags = many_tags.raw(&[0xc0, 0x84, 0x3d]);
    many_tags = many_tags.raw(&[1, 0].repeat(1_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("array of 2^31-1", header(3, 1, false).i32(i32::MAX).framed()),
        ("array of -2", header(3, 1, false).i32(-2).framed()),
        ("null topic name", header(3, 1, false).i32(1).i16(-1).framed()),
        ("topic name of -7 bytes", header(3, 1, false).i32(1).i16(-7).framed()),
        ("name longer than the frame", header(3, 1, false).i32(1).i16(999).raw(b"x").framed()),
        ("name that is not UTF-8", header(3, 1, false).i32(1).i16(2).raw(&[0xc3, 0x28]).framed()),
        ("compact count of five 0xff", header(3, 9, true).raw(&[0xff; 5]).framed()),
        ("compact count of ten 0xff", header(3, 9, true).raw(&[0xff; 10]).framed()),
        ("compact count 2^28", header(3, 9, true).raw(&[0xff, 0xff, 0xff, 0x7f]).framed()),
        ("a million tagged fields", many_tags.framed()),
        (
            "topics within topics",
            header(0, 7, false)
                .i16(-1)
                .i16(1)
                .i32(1)
                .i32(1 << 20)
                .string("t")
                .i32(1 << 20)
                .framed(),
        ),
        ("null topics", header(0, 7, false).i16(-1).i16(1).i32(1).i32(-1).framed()),
    ];
    for (what, bytes) in &cases {
        victim.closes(what, bytes)?;
    }
    // A long client id and one with control characters are legal; they must not harm.
    for id in [long.as_str(), "a\0b\n\u{1b}[31mred"] {
        let request = Bytes::default().i16(18).i16(0).i32(5).string(id).framed();
        ensure!(send_alone(&victim.address, &request)? != Answer::Closed, "client id {id:.20}");
    }
    victim.is_well()
}

#[test]
fn broker_refuses_damaged_batches_and_appends_nothing() -> Result<()> {
    const CORRUPT: i16 = 2;
    const INVALID: i16 = 87;
    let mut victim = Victim::start("broker-1")?;
    let good = Batch::default();
    let cases: Vec<(&str, Batch, &[i16])> = vec![
        ("wrong CRC", Batch { crc_error: 1, ..good.clone() }, &[CORRUPT]),
        ("length too long", Batch { length_error: 5, ..good.clone() }, &[CORRUPT, INVALID]),
        ("length too short", Batch { length_error: -5, ..good.clone() }, &[CORRUPT, INVALID]),
        ("negative length", Batch { length_error: -500, ..good.clone() }, &[CORRUPT, INVALID]),
        ("magic 0", Batch { magic: 0, ..good.clone() }, &[INVALID, CORRUPT]),
        ("magic 1", Batch { magic: 1, ..good.clone() }, &[INVALID, CORRUPT]),
        ("magic 3", Batch { magic: 3, ..good.clone() }, &[INVALID, CORRUPT]),
        ("count 0", Batch { record_count: 0, ..good.clone() }, &[INVALID]),
        ("count 2 of 1", Batch { record_count: 2, ..good.clone() }, &[INVALID]),
        ("count 2^31-1", Batch { record_count: i32::MAX, ..good.clone() }, &[INVALID]),
        ("last offset delta -1", Batch { last_offset_delta: -1, ..good.clone() }, &[INVALID]),
        ("last offset delta 9", Batch { last_offset_delta: 9, ..good.clone() }, &[INVALID]),
        ("trailing bytes", Batch { trailing: vec![0; 70], ..good.clone() }, &[INVALID, CORRUPT]),
        ("control bit", Batch { attributes: 0x20, ..good.clone() }, &[INVALID]),
        ("compression 5", Batch { attributes: 5, ..good.clone() }, &[INVALID, 76]),
        ("compression 7", Batch { attributes: 7, ..good.clone() }, &[INVALID, 76]),
        (
            "producer without sequence",
            Batch { producer_id: 7, producer_epoch: 0, ..good.clone() },
            &[INVALID],
        ),
    ];
    for (what, batch, codes) in &cases {
        let answer = send_alone(&victim.address, &produce(TOPIC, &batch.encode()))?;
        let Answer::Frame(frame) = answer else { anyhow::bail!("{what}: closed") };
        let code = produce_error(&frame, TOPIC)?;
        ensure!(codes.contains(&code), "{what}: error {code}, expected one of {codes:?}");
    }
    for batch in [vec![], vec![0; 60], Batch::default().encode()[..60].to_vec()] {
        let answer = send_alone(&victim.address, &produce(TOPIC, &batch))?;
        let Answer::Frame(frame) = answer else { anyhow::bail!("{} bytes: closed", batch.len()) };
        ensure!(produce_error(&frame, TOPIC)? != 0, "{} bytes of a batch were taken", batch.len());
    }
    sequences(&victim)?;
    let held = e2e::load::read_records(&victim.running.bootstrap(), TOPIC, 1)?;
    ensure!(held.len() == 2, "{} records in the log, 2 were right", held.len());
    victim.is_well()
}

/// Sequence and epoch rules of an idempotent producer; leaves two records behind.
fn sequences(victim: &Victim) -> Result<()> {
    let batch = |epoch, sequence| Batch {
        producer_id: 4_000,
        producer_epoch: epoch,
        base_sequence: sequence,
        ..Batch::default()
    };
    let steps: [(&str, Batch, i16); 5] = [
        ("first", batch(1, 0), 0),
        ("again: a duplicate succeeds without a second append", batch(1, 0), 0),
        ("gap", batch(1, 5), 45),
        ("older epoch", batch(0, 1), 47),
        ("next", batch(1, 1), 0),
    ];
    for (what, batch, expected) in steps {
        let answer = send_alone(&victim.address, &produce(TOPIC, &batch.encode()))?;
        let Answer::Frame(frame) = answer else { anyhow::bail!("{what}: closed") };
        let code = produce_error(&frame, TOPIC)?;
        ensure!(code == expected, "{what}: error {code}, expected {expected}");
    }
    Ok(())
}

fn connect_request(session: i64, timeout_ms: i32, password: &[u8]) -> Vec<u8> {
    Bytes::default().i32(0).i64(0).i32(timeout_ms).i64(session).buffer(password).i8(0).framed()
}

#[test]
fn coordinator_closes_on_forged_lengths_and_cut_frames() -> Result<()> {
    let mut victim = Victim::start("coordinator-1")?;
    for forged in [0, 1, -1, i32::MIN, i32::MAX, 1_048_576] {
        victim.closes(&format!("frame length {forged}"), &length(forged))?;
    }
    let told = answer_to_word(&victim.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    ensure!(told.starts_with("HTTP/1.1 400 "), "HTTP on the client port was answered {told:?}");
    let whole = connect_request(0, 10_000, &[0; 16]);
    for cut in 0..whole.len() - 5 {
        victim.closes(
            &format!("handshake of {cut} bytes"),
            &Bytes::default().buffer(&whole[4..4 + cut]).0,
        )?;
        let mut wire = Wire::connect(&victim.address)?;
        wire.send(&whole[..cut]);
        wire.finish();
        ensure!(wire.answer()? == Answer::Closed, "half a handshake of {cut} bytes was answered");
    }
    victim.is_well()
}

#[test]
fn coordinator_refuses_what_no_client_should_send() -> Result<()> {
    let mut victim = Victim::start("coordinator-1")?;
    // An unknown session, a wrong password, a state from the future.
    let Answer::Frame(frame) =
        send_alone(&victim.address, &connect_request(12_345, 10_000, &[7; 16]))?
    else {
        anyhow::bail!("an unknown session was not answered")
    };
    ensure!(frame[4..8] == [0; 4], "an unknown session has time-out 0: {frame:?}");
    let future =
        Bytes::default().i32(0).i64(i64::MAX).i32(10_000).i64(0).buffer(&[0; 16]).i8(0).framed();
    victim.closes("a last zxid from the future", &future)?;
    handshakes_with_absurd_numbers(&mut victim)?;
    for garbage in [&b"xxxx"[..], b"RUOK", b"ruo\0", b"stmk", b"kill"] {
        let answer = answer_to_word(&victim.address, garbage)?;
        ensure!(!answer.contains("imok"), "{garbage:?} was answered {answer:?}");
    }
    wrong_password(&mut victim)?;
    for (what, request, code) in requests() {
        victim.serves_others()?;
        let mut wire = Wire::connect(&victim.address)?;
        wire.send(&connect_request(0, 10_000, &[0; 16]));
        ensure!(wire.answer()? != Answer::Closed, "{what}: no session");
        wire.send(&request.framed());
        match (wire.answer()?, code) {
            (Answer::Closed, None) => {}
            (Answer::Frame(frame), Some(code)) => {
                let found = i32::from_be_bytes(frame[12..16].try_into()?);
                ensure!(found == code, "{what}: error {found}, expected {code}");
                wire.send(&Bytes::default().i32(-2).i32(11).framed());
                ensure!(wire.answer()? != Answer::Closed, "{what}: the session was dropped");
            }
            (Answer::Frame(frame), None) => {
                let found = i32::from_be_bytes(frame[12..16].try_into()?);
                ensure!(found == MARSHALLING, "{what}: error {found}, expected {MARSHALLING}");
            }
            (Answer::Closed, Some(_)) => {
                anyhow::bail!("{what}: expected {code:?}");
            }
        }
    }
    victim.is_well()
}

/// Bytes in the place of a four-letter word, then end-of-file, and all that came back.
fn answer_to_word(address: &str, word: &[u8]) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    stream.write_all(word)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("neither answered nor closed")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Time-outs are brought into the server's bounds; sessions that nobody was given are over; each alone.
fn handshakes_with_absurd_numbers(victim: &mut Victim) -> Result<()> {
    for (asked, given) in [(-5, 4_000), (i32::MIN, 4_000), (0, 4_000), (i32::MAX, 40_000)] {
        let answer = send_alone(&victim.address, &connect_request(0, asked, &[0; 16]))?;
        let Answer::Frame(frame) = answer else { anyhow::bail!("time-out {asked}: closed") };
        let found = i32::from_be_bytes(frame[4..8].try_into()?);
        ensure!(found == given, "time-out {asked} became {found}, expected {given}");
    }
    let passwords: [&[u8]; 4] = [&[0; 16], &[], &[1], &[7; 900]];
    for (session, password) in
        [-1, i64::MIN, i64::MAX].into_iter().flat_map(|id| passwords.map(|password| (id, password)))
    {
        let answer = send_alone(&victim.address, &connect_request(session, 10_000, password))?;
        let Answer::Frame(frame) = answer else {
            anyhow::bail!("session {session}, {} bytes of password: closed", password.len())
        };
        ensure!(frame[4..16] == [0; 12], "session {session} is over: {frame:?}");
    }
    let hello = Bytes::default().i32(0).i64(0).i32(10_000).i64(0);
    victim.closes("a password of -9 bytes", &hello.clone().i32(-9).i8(0).framed())?;
    victim.closes("a password of 1,000 bytes", &connect_request(0, 10_000, &[7; 1_000]))?;
    victim.closes("a password of 2^31-1 bytes", &hello.i32(i32::MAX).i8(0).framed())
}

/// Somebody else's session cannot be had with a guess, and stays where it is.
fn wrong_password(victim: &mut Victim) -> Result<()> {
    let mut owner = Wire::connect(&victim.address)?;
    owner.send(&connect_request(0, 30_000, &[0; 16]));
    let Answer::Frame(frame) = owner.answer()? else { anyhow::bail!("no session") };
    let session = i64::from_be_bytes(frame[8..16].try_into()?);
    let guess = send_alone(&victim.address, &connect_request(session, 30_000, &[1; 16]))?;
    let Answer::Frame(frame) = guess else { anyhow::bail!("a wrong password was not answered") };
    ensure!(frame[4..8] == [0; 4], "a wrong password has time-out 0: {frame:?}");
    owner.send(&Bytes::default().i32(-2).i32(11).framed());
    ensure!(owner.answer()? != Answer::Closed, "the owner was dropped by a wrong password");
    Ok(())
}

/// Requests after the handshake, with the error code that answers them (`None`: it cannot be read, so it is
/// answered with the code for that, or by closing).
fn requests() -> Vec<(&'static str, Bytes, Option<i32>)> {
    let long = format!("/{}", "x".repeat(1_000_000));
    let request = |op: i32| Bytes::default().i32(1).i32(op);
    let path = |text: &str| Bytes::default().buffer(text.as_bytes()).0;
    let acl = Bytes::default().i32(1).i32(31).buffer(b"world").buffer(b"anyone").0;
    let create = |text: &str| request(1).raw(&path(text)).buffer(b"").raw(&acl).i32(0);
    let mut cases: Vec<(&str, Bytes, Option<i32>)> = [
        "",
        "//",
        "/zookeeper/..",
        "/zookeeper/.",
        "a",
        "/zookeeper/",
        "/nul\0",
        "/\u{1}",
        "/\u{f8ff}",
    ]
    .into_iter()
    .map(|text| ("a path that is none", create(text), Some(BAD_ARGUMENTS)))
    .collect();
    cases.extend([
        ("unknown op", request(999), Some(-6)),
        ("an operation of -7", request(-7), Some(-6)),
        (
            "more than 256 components",
            request(3).raw(&path(&"/a".repeat(257))).i8(0),
            Some(BAD_ARGUMENTS),
        ),
        ("a character beyond the basic plane", create("/\u{1f600}"), Some(BAD_ARGUMENTS)),
        ("a path of a million bytes", request(3).raw(&path(&long)).i8(0), Some(NO_NODE)),
        ("half a surrogate pair", request(4).buffer(b"/\xed\xa0\x80").i8(0), None),
        ("a pair as Java writes it", request(4).buffer(b"/\xed\xa0\xbd\xed\xb8\x80").i8(0), None),
        ("NUL as Java writes it", request(4).buffer(b"/\xc0\x80").i8(0), None),
        ("a path that is cut within a letter", request(4).buffer(b"/\xe2\x82").i8(0), None),
        ("no acl", request(1).raw(&path("/x")).buffer(b"").i32(-1).i32(0), Some(-114)),
        ("empty acl", request(1).raw(&path("/x")).buffer(b"").i32(0).i32(0), Some(-114)),
        (
            "1,001 acls",
            request(1).raw(&path("/x")).buffer(b"").raw(&acls(1_001)).i32(0),
            Some(-114),
        ),
        ("a million acls", request(1).raw(&path("/x")).buffer(b"").i32(1_000_000).i32(0), None),
        ("path of 2^31-1 bytes", request(4).i32(i32::MAX).i8(0), None),
        ("path of -9 bytes", request(4).i32(-9).i8(0), None),
        ("a path that is not UTF-8", request(4).buffer(&[0xc3, 0x28]).i8(0), None),
        ("a million watches", request(101).i64(0).i32(1_000_000), None),
        ("20,001 persistent watches", request(105).i64(0).raw(&persistent_watches(20_001)), None),
        ("a multi that never ends", request(14).i32(1).i8(0).i32(-1), None),
        (
            "a multi in a multi",
            request(14).raw(&[0, 0, 0, 14, 0, 255, 255, 255, 255].repeat(9)),
            None,
        ),
        ("a million empty checks", request(14).raw(&[0; 1_000_000]), None),
    ]);
    cases.extend(below_zookeeper());
    cases
}

/// Nobody takes away or rewrites what the server itself keeps there.
fn below_zookeeper() -> Vec<(&'static str, Bytes, Option<i32>)> {
    let request = |op: i32, path: &str| Bytes::default().i32(1).i32(op).buffer(path.as_bytes());
    let acl = Bytes::default().i32(1).i32(31).buffer(b"world").buffer(b"anyone").0;
    let create = |path: &str| request(1, path).buffer(b"").raw(&acl).i32(0);
    let delete = |path: &str| request(2, path).i32(-1);
    let set = |path: &str| request(5, path).buffer(b"x").i32(-1);
    let list = |path: &str| request(7, path).raw(&acl).i32(-1);
    vec![
        ("a system node once more", create("/zookeeper/quota"), Some(-110)),
        ("a node below the configuration", create("/zookeeper/config/x"), Some(NO_AUTH)),
        ("a node below a system node that is none", create("/zookeeper/x/y"), Some(NO_NODE)),
        ("the root deleted", delete("/"), Some(BAD_ARGUMENTS)),
        ("/zookeeper deleted", delete("/zookeeper"), Some(BAD_ARGUMENTS)),
        ("the quotas deleted", delete("/zookeeper/quota"), Some(BAD_ARGUMENTS)),
        ("the configuration deleted", delete("/zookeeper/config"), Some(BAD_ARGUMENTS)),
        ("the configuration written", set("/zookeeper/config"), Some(NO_AUTH)),
        ("the configuration opened to all", list("/zookeeper/config"), Some(NO_AUTH)),
        (
            "a quota of a node that is not there",
            set("/zookeeper/quota/n/zookeeper_limits"),
            Some(NO_NODE),
        ),
    ]
}

/// As many entries of an access list, all of them different.
fn acls(count: i32) -> Vec<u8> {
    let one = |number: i32| {
        let address = format!("10.0.{}.{}", number / 256, number % 256);
        Bytes::default().i32(31).buffer(b"ip").buffer(address.as_bytes()).0
    };
    Bytes::default().i32(count).raw(&(0..count).flat_map(one).collect::<Vec<u8>>()).0
}

/// As many paths with persistent watches, and none of the other kinds.
fn persistent_watches(count: i32) -> Vec<u8> {
    let several =
        Bytes::default().buffer(b"/").0.repeat(usize::try_from(count).unwrap_or_default());
    Bytes::default().i32(0).i32(0).i32(0).i32(count).raw(&several).i32(0).0
}

/// Operations of a multi that fill a frame are carried out, all or none; limits that are nonsense limit nothing.
#[test]
fn coordinator_carries_out_the_largest_multi_and_shrugs_at_nonsense_in_quotas() -> Result<()> {
    let mut victim = Victim::start("coordinator-1")?;
    let mut wire = Wire::connect(&victim.address)?;
    wire.send(&connect_request(0, 30_000, &[0; 16]));
    ensure!(wire.answer()? != Answer::Closed, "no session");
    let mut ask = |request: Bytes| -> Result<(i32, Vec<u8>)> {
        wire.send(&request.framed());
        let Answer::Frame(frame) = wire.answer()? else { anyhow::bail!("closed") };
        Ok((i32::from_be_bytes(frame[12..16].try_into()?), frame))
    };
    let head = |op: i32| Bytes::default().i32(op).i8(0).i32(-1).0;
    let end = Bytes::default().i32(-1).i8(1).i32(-1).0;
    let check = [head(13), Bytes::default().buffer(b"/").i32(-1).0].concat();
    let count = 1_000_000 / check.len();
    let multi = |ops: Vec<u8>| Bytes::default().i32(1).i32(14).raw(&ops).raw(&end);
    let (error, frame) = ask(multi(check.repeat(count)))?;
    // A result of a check is its header alone, and so is the end.
    ensure!(error == 0 && frame.len() == 16 + 9 * (count + 1), "{error}, {} bytes", frame.len());

    let acl = Bytes::default().i32(1).i32(31).buffer(b"world").buffer(b"anyone").0;
    let create = |path: &str, data: &[u8]| {
        Bytes::default().buffer(path.as_bytes()).buffer(data).raw(&acl).i32(0).0
    };
    let some = 2_000;
    let creates: Vec<u8> =
        (0..some).flat_map(|n| [head(1), create(&format!("/m{n}"), b"")].concat()).collect();
    let missing = [head(13), Bytes::default().buffer(b"/nowhere").i32(-1).0].concat();
    let exists = || Bytes::default().i32(2).i32(3).buffer(b"/m0").i8(0);
    let (_, frame) = ask(multi([creates.clone(), missing].concat()))?;
    ensure!(frame.len() == 16 + 13 * (some + 1) + 9, "errors alone: {} bytes", frame.len());
    ensure!(ask(exists())?.0 == NO_NODE, "one of a multi that failed is there");
    ensure!(ask(multi(creates))?.0 == 0, "{some} creates");
    ensure!(ask(exists())?.0 == 0, "they are not there");

    for (path, data) in [
        ("/zookeeper/quota/m0", &b""[..]),
        (
            "/zookeeper/quota/m0/zookeeper_limits",
            b"count=,,;=;byteHardLimit=\xff;countHardLimit=-9",
        ),
        ("/m0/below", b"a quota that cannot be read"),
    ] {
        let (error, _) = ask(Bytes::default().i32(3).i32(1).raw(&create(path, data)))?;
        ensure!(error == 0, "{path}: error {error}");
    }
    victim.is_well()
}
