use std::io::IoSlice;
use std::path::PathBuf;

use super::*;
use crate::RealDisk;

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    Place { _folder: folder, path }
}

fn read_all(path: &Path, tail: Tail) -> Result<(Vec<Vec<u8>>, u64), RecordFileError> {
    let mut seen = Vec::new();
    let recovered = recover(&RealDisk, path, b"owner", tail, &mut |_, payload| {
        seen.push(payload.to_vec());
        Ok(())
    })?;
    assert_eq!(recovered.frames, seen.len() as u64);
    Ok((seen, recovered.cut_bytes))
}

/// Three synced frames, then two that no sync covered; returns where each begins and the end.
fn five_frames(path: &Path) -> Vec<u64> {
    let mut file = RecordFile::create(&RealDisk, path, b"owner").unwrap();
    let mut starts = Vec::new();
    for payload in [b"one".as_slice(), b"two", b""] {
        starts.push(file.append(&[payload]).unwrap());
        file.sync().unwrap();
    }
    starts.push(file.append(&[b"four", b"five"]).unwrap());
    starts.push(starts[3] + FRAME_HEADER_BYTES as u64 + 4);
    starts.push(file.end());
    starts
}

fn flip(path: &Path, position: u64) {
    let file = RealDisk.open(path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_exact_at(position, &mut byte).unwrap();
    file.write_at(position, &[IoSlice::new(&[byte[0] ^ 0x10])]).unwrap();
}

#[test]
fn frames_come_back_in_order_and_appending_goes_on() {
    let place = place();
    let starts = five_frames(&place.path);
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!(seen, [b"one".as_slice(), b"two", b"", b"four", b"five"]);
    assert_eq!(cut, 0);
    let mut recovered =
        recover(&RealDisk, &place.path, b"owner", Tail::MayBeTorn, &mut |_, _| Ok(())).unwrap();
    assert_eq!(recovered.file.append(&[b"six"]).unwrap(), starts[5]);
    assert_eq!(recovered.file.read(starts[5]).unwrap(), b"six");
    assert_eq!(recovered.file.read(starts[4]).unwrap(), b"five");
    recovered.file.sync().unwrap();
    assert_eq!(read_all(&place.path, Tail::Sealed).unwrap().0.len(), 6);
}

#[test]
fn what_no_later_frame_shows_to_be_synced_is_written_again_as_it_was() {
    let place = place();
    let starts = five_frames(&place.path);
    let before = std::fs::read(&place.path).unwrap();
    let mut recovered =
        recover(&RealDisk, &place.path, b"owner", Tail::MayBeTorn, &mut |_, _| Ok(())).unwrap();
    // The last sync came before the fourth frame, which says so.
    assert_eq!(recovered.proven_end, starts[3]);
    recovered.file.write_again(recovered.proven_end).unwrap();
    assert_eq!(std::fs::read(&place.path).unwrap(), before);
    assert_eq!(recovered.file.append(&[b"six"]).unwrap(), starts[5]);
}

#[test]
fn every_cut_leaves_a_prefix() {
    let place = place();
    let starts = five_frames(&place.path);
    let whole = std::fs::read(&place.path).unwrap();
    for length in usize::try_from(starts[0]).unwrap()..whole.len() {
        std::fs::write(&place.path, &whole[..length]).unwrap();
        let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
        let kept = starts[1..].iter().filter(|end| **end <= length as u64).count();
        assert_eq!(seen.len(), kept, "cut at {length}");
        let kept_end = starts[kept];
        let torn = &whole[usize::try_from(kept_end).unwrap()..length];
        let written = torn.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        assert_eq!(cut, written);
        assert_eq!(std::fs::metadata(&place.path).unwrap().len(), kept_end);
    }
}

#[test]
fn flipped_byte_in_the_synced_middle_is_damage_and_changes_nothing() {
    let place = place();
    let starts = five_frames(&place.path);
    let whole = std::fs::read(&place.path).unwrap();
    for position in starts[0]..starts[3] {
        std::fs::write(&place.path, &whole).unwrap();
        flip(&place.path, position);
        let before = std::fs::read(&place.path).unwrap();
        let frame = *starts.iter().rev().find(|start| **start <= position).unwrap();
        match read_all(&place.path, Tail::MayBeTorn) {
            Err(RecordFileError::Damaged { offset, .. }) => assert_eq!(offset, frame),
            other => panic!("byte {position}: {:?}", other.map(|(seen, cut)| (seen.len(), cut))),
        }
        assert_eq!(std::fs::read(&place.path).unwrap(), before);
    }
}

#[test]
fn unreadable_frame_that_no_sync_covered_is_a_torn_tail_even_before_a_whole_one() {
    let place = place();
    let starts = five_frames(&place.path);
    flip(&place.path, starts[3] + 1);
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(cut, starts[5] - starts[3]);
}

#[test]
fn zeros_at_the_end_are_a_torn_tail_but_not_in_a_sealed_file() {
    let place = place();
    let starts = five_frames(&place.path);
    let file = RealDisk.open(&place.path, OpenMode::ReadWrite).unwrap();
    file.truncate(starts[5] + 5000).unwrap();
    assert!(matches!(
        read_all(&place.path, Tail::Sealed),
        Err(RecordFileError::Damaged { offset, .. }) if offset == starts[5]
    ));
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!((seen.len(), cut), (5, 0));
    assert_eq!(std::fs::metadata(&place.path).unwrap().len(), starts[5]);
}

#[test]
fn zeros_written_ahead_are_cut_by_reading_back_and_by_sealing() {
    let place = place();
    let length = || std::fs::metadata(&place.path).unwrap().len();
    let mut file = RecordFile::create(&RealDisk, &place.path, b"owner").unwrap();
    file.fill_ahead(100_000);
    file.append(&[b"one"]).unwrap();
    file.sync().unwrap();
    let filled = length();
    assert_eq!(filled, file.end() + 100_000);
    file.append(&[&[7; 50_000], b"three"]).unwrap();
    file.sync().unwrap();
    assert_eq!(length(), filled, "there was room");
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!((seen.len(), cut, length()), (3, 0, file.end()));

    let mut again = recover(&RealDisk, &place.path, b"owner", Tail::MayBeTorn, &mut |_, _| Ok(()))
        .unwrap()
        .file;
    again.fill_ahead(1_000);
    again.append(&[&[7; 5_000]]).unwrap();
    assert_eq!(length(), again.end() + 1_000);
    again.append(&[&[7; 5_000]]).unwrap();
    assert_eq!(length(), again.end() + 1_000);
    again.seal().unwrap();
    assert_eq!(length(), again.end());
    assert_eq!(read_all(&place.path, Tail::Sealed).unwrap().0.len(), 5);
}

#[test]
fn damage_before_zeros_written_ahead_is_reported_and_a_torn_frame_cut() {
    let place = place();
    let mut file = RecordFile::create(&RealDisk, &place.path, b"owner").unwrap();
    file.fill_ahead(10_000);
    let first = file.append(&[b"one"]).unwrap();
    file.sync().unwrap();
    let second = file.append(&[b"two"]).unwrap();
    flip(&place.path, second + 5);
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!((seen, cut), (vec![b"one".to_vec()], file.end() - second));
    let mut file = recover(&RealDisk, &place.path, b"owner", Tail::MayBeTorn, &mut |_, _| Ok(()))
        .unwrap()
        .file;
    file.fill_ahead(10_000);
    file.append(&[b"two"]).unwrap();
    flip(&place.path, first + 5);
    assert!(matches!(
        read_all(&place.path, Tail::MayBeTorn),
        Err(RecordFileError::Damaged { offset, .. }) if offset == first
    ));
}

#[test]
fn frame_in_a_foreign_place_is_no_frame() {
    let place = place();
    let starts = five_frames(&place.path);
    // The second frame once more, at the end: whole, but it follows the first one only.
    let whole = std::fs::read(&place.path).unwrap();
    let (from, to) = (usize::try_from(starts[1]).unwrap(), usize::try_from(starts[2]).unwrap());
    let doubled = [&whole[..], &whole[from..to]].concat();
    std::fs::write(&place.path, doubled).unwrap();
    let (seen, cut) = read_all(&place.path, Tail::MayBeTorn).unwrap();
    assert_eq!((seen.len(), cut), (5, starts[2] - starts[1]));
}

#[test]
fn file_of_another_owner_is_refused_by_name() {
    let place = place();
    RecordFile::create(&RealDisk, &place.path, b"stranger").unwrap();
    match read_all(&place.path, Tail::MayBeTorn) {
        Err(RecordFileError::Identity { found, expected, .. }) => {
            assert_eq!((found.as_str(), expected.as_str()), ("stranger", "owner"));
        }
        other => panic!("{:?}", other.map(|(seen, _)| seen)),
    }
}

#[test]
fn visitor_that_refuses_stops_the_reading() {
    let place = place();
    let starts = five_frames(&place.path);
    let refused = recover(&RealDisk, &place.path, b"owner", Tail::MayBeTorn, &mut |at, _| {
        if at == starts[1] { Err("not mine".into()) } else { Ok(()) }
    });
    assert!(matches!(
        refused,
        Err(RecordFileError::Damaged { offset, .. }) if offset == starts[1]
    ));
}

#[test]
fn limits_hold_at_the_limit_and_one_more() {
    let place = place();
    let identity = vec![b'i'; IDENTITY_BYTES_MAX + 1];
    assert!(RecordFile::create(&RealDisk, &place.path, &identity[1..]).is_ok());
    assert!(matches!(
        RecordFile::create(&RealDisk, &place.path, &identity),
        Err(RecordFileError::Large { .. })
    ));
    let mut file = RecordFile::create(&RealDisk, &place.path, b"owner").unwrap();
    let payload = vec![0; FRAME_BYTES_MAX + 1];
    assert!(matches!(file.append(&[&payload]), Err(RecordFileError::Large { .. })));
    let start = file.append(&[&payload[1..]]).unwrap();
    assert_eq!(file.read(start).unwrap().len(), FRAME_BYTES_MAX);
    assert_eq!(read_all(&place.path, Tail::MayBeTorn).unwrap().0.len(), 1);
}
