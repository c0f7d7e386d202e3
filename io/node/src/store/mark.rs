//! The mark beside the store's file: that there was a store, and how far it had come.
//!
//! LMDB makes an empty file where it finds none, and takes an old copy for a new one. The mark is written after the
//! file is made and after every checkpoint, so that "empty" is told from "lost", and a truncated or replaced file is
//! noticed.

use crate::directory::write_durably;
use crate::error::OpenError;
use chronos_engine::proto::id::{GroupId, Index};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const HEADER: &str = "chronos store";

/// What the mark says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// LMDB's number of the last checkpoint's transaction; the file has it or the next.
    pub txn: u64,
    /// The file was this long then; it never shrinks.
    pub length: u64,
    /// Each group's state was at this index in the last checkpoint: whatever is recovered must reach it.
    pub applied: Vec<(GroupId, Index)>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("mark")
}

impl Mark {
    /// The mark in a store's directory, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Mark>, OpenError> {
        let path = path(dir);
        match fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Some(mark) => Ok(Some(mark)),
                None => Err(OpenError::Damaged {
                    file: path,
                    problem: "is damaged: its checksum does not hold. Restore the file from a copy; if there is none, and `chronos verify` finds the rest sound, remove it".to_owned(),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(OpenError::Damaged { file: path, problem: "is not text: it is damaged".to_owned() })
            }
            Err(error) => Err(OpenError::io("cannot read", path)(error)),
        }
    }

    /// Writes the mark.
    pub fn write(&self, dir: &Path) -> Result<(), OpenError> {
        write_durably(&path(dir), self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mut body = format!("{HEADER}\ntransaction = {}\nlength = {}\n", self.txn, self.length);
        for (group, index) in &self.applied {
            body.push_str(&format!("applied {group} = {index}\n"));
        }
        let sum = crc32c::crc32c(body.as_bytes());
        format!("{body}checksum = {sum:08x}\n")
    }
}

fn parse(text: &str) -> Option<Mark> {
    let (body, sum) = text.split_at(text.find("checksum = ")?);
    let sum = u32::from_str_radix(sum.strip_prefix("checksum = ")?.strip_suffix('\n')?, 16).ok()?;
    if sum != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut mark = Mark::default();
    let mut lines = body.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    for line in lines {
        let (name, value) = line.split_once(" = ")?;
        let value = value.parse().ok()?;
        match name.strip_prefix("applied ") {
            Some(group) => mark.applied.push((GroupId(group.parse().ok()?), Index(value))),
            None if name == "transaction" => mark.txn = value,
            None if name == "length" => mark.length = value,
            None => return None,
        }
    }
    Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
        let mark =
            Mark { txn: 7, length: 40_960, applied: vec![(GroupId(0), Index(12)), (GroupId(3), Index(1))] };
        mark.write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), Some(mark));
        let whole = fs::read(path(dir.path())).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x01;
            fs::write(path(dir.path()), &bytes).unwrap();
            assert!(Mark::read(dir.path()).is_err(), "byte {at} flipped and accepted");
        }
    }
}
