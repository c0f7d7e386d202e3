use super::*;
use chronos_engine::state::STATE_VERSION;
use std::fs;

/// A file of the first format, from a node with a table, a topic, an event and a timer.
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/snapshot-v1.bin");

fn read(bytes: &[u8]) -> Result<Vec<Part>, ReadError> {
    let mut reader = Reader::open(bytes)?;
    let mut parts = Vec::new();
    loop {
        match reader.next_part()? {
            Part::End => return Ok(parts),
            part => parts.push(part),
        }
    }
}

#[test]
fn the_first_format_is_read_and_written_as_it_was() {
    let head = Reader::open(GOLDEN).unwrap().head().clone();
    let mut writer = Writer::begin(Vec::new(), &head).unwrap();
    let mut entries = 0;
    for part in read(GOLDEN).unwrap() {
        match part {
            Part::Group(head) => {
                assert_eq!(head.state_version, STATE_VERSION);
                writer.group(&head).unwrap();
            }
            Part::Entries(all) => {
                for (key, value) in &all {
                    writer.entry(key, value).unwrap();
                    entries += 1;
                }
            }
            Part::GroupEnd(end) => {
                assert_eq!(writer.end_group().unwrap(), end);
                assert_eq!(end.entries, entries);
            }
            Part::End => unreachable!("it ends the parts"),
        }
    }
    assert!(entries > 10, "{entries}");
    assert_eq!(writer.seal().unwrap(), GOLDEN);
}

#[test]
fn every_bit_counts_and_so_does_every_end() {
    for at in 0..GOLDEN.len() {
        for bit in 0..8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= 1 << bit;
            let error = read(&bytes).unwrap_err();
            let expected = match &error {
                ReadError::Damaged { offset, .. } => *offset <= at as u64,
                ReadError::Other => at < 8,
                _ => false,
            };
            assert!(expected, "bit {bit} of byte {at}: {error}");
        }
        let error = read(&GOLDEN[..at]).unwrap_err();
        assert!(
            matches!(error, ReadError::Damaged { offset, .. } if offset <= at as u64),
            "cut at {at}: {error}"
        );
    }
}

#[test]
fn blocks_have_their_place_and_states_their_sums() {
    // A key that is left out, with every checksum in order.
    let head = Reader::open(GOLDEN).unwrap().head().clone();
    let mut writer = Writer::begin(Vec::new(), &head).unwrap();
    for part in read(GOLDEN).unwrap() {
        match part {
            Part::Group(head) => writer.group(&head).unwrap(),
            Part::Entries(all) => {
                let (last, rest) = all.split_last().unwrap();
                assert!(last.0[0] >= 0x10);
                rest.iter().for_each(|(key, value)| writer.entry(key, value).unwrap());
            }
            Part::GroupEnd(_) => drop(writer.end_group().unwrap()),
            Part::End => unreachable!("it ends the parts"),
        }
    }
    let error = read(&writer.seal().unwrap()).unwrap_err();
    assert!(error.to_string().contains("its own sums"), "{error}");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = GOLDEN.to_vec();
    bytes[..format::HEADER_BYTES].copy_from_slice(&format::header(FORMAT_VERSION + 1));
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, ReadError::Newer { found } if found == FORMAT_VERSION + 1), "{error}");
}

#[test]
fn what_was_there_stays_until_the_new_store_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data_dir) = (folder.path().join("all.snapshot"), folder.path().join("data"));
    fs::write(&file, GOLDEN).unwrap();
    let summary = check(&file, &mut |_, _| {}).unwrap();
    let target = |force| Target { data_dir: data_dir.clone(), node: None, force };
    let restored = restore(&file, summary.clone(), &target(false), &mut |_, _| {}).unwrap();
    let identity = fs::read(data_dir.join("identity")).unwrap();
    let again = restore(&file, summary.clone(), &target(false), &mut |_, _| {}).unwrap_err();
    assert!(matches!(again, RestoreError::Occupied { .. }), "{again}");
    // The file is changed after it was checked.
    let mut changed = GOLDEN.to_vec();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    fs::write(&file, &changed).unwrap();
    let error = restore(&file, summary.clone(), &target(true), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, RestoreError::File { .. }), "{error}");
    assert_eq!(fs::read(data_dir.join("identity")).unwrap(), identity);
    assert!(!data_dir.join("restore.tmp").exists());
    fs::write(&file, GOLDEN).unwrap();
    let anew = restore(&file, summary, &target(true), &mut |_, _| {}).unwrap();
    assert_eq!(anew.cluster, restored.cluster);
    assert_ne!(anew.incarnation, restored.incarnation, "another life of the store");
}

#[test]
fn a_restore_that_was_cut_short_does_not_pass_for_a_new_node() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("restore.tmp")).unwrap();
    let error = crate::open(crate::Options::new(folder.path())).unwrap_err();
    assert!(error.to_string().contains("restore.tmp"), "{error}");
}
