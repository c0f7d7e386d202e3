//! Writing blocks.

use super::format::{ENTRIES_BYTES, FORMAT_VERSION, GroupEnd, GroupHead, Head, Kind, checksum, header};
use chronos_engine::node::Export;
use chronos_engine::proto::codec;
use chronos_engine::proto::time::Timestamp;
use chronos_engine::state::{Digests, STATE_VERSION};
use chronos_engine::store::StoreError;
use chronos_engine::{Snapshot, keys};
use ring::digest::{Context, SHA256};
use std::io::{self, Write};

/// Why a snapshot was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The state could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a snapshot file, block by block.
pub struct Writer<W> {
    output: W,
    at: u64,
    seal: Context,
    entries: Vec<u8>,
    digests: Digests,
    end: GroupEnd,
}

const NOTHING: GroupEnd = GroupEnd { entries: 0, bytes: 0, data_digest: 0 };

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn begin(output: W, head: &Head) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            output,
            at: 0,
            seal: Context::new(&SHA256),
            entries: Vec::new(),
            digests: Digests::default(),
            end: NOTHING,
        };
        writer.put(&header(FORMAT_VERSION))?;
        writer.block(Kind::Head, &codec::encode(head))?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.seal.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let mut front = [kind as u8, 0, 0, 0, 0, 0, 0, 0];
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        front[4..].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(self.at, &front, body);
        self.put(&front)?;
        self.put(&crc.to_le_bytes())?;
        self.put(body)
    }

    /// Begins a group.
    pub fn group(&mut self, head: &GroupHead) -> io::Result<()> {
        (self.digests, self.end) = (Digests::default(), NOTHING);
        self.block(Kind::Group, &codec::encode(head))
    }

    /// The group's next entry; keys ascend.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if !self.entries.is_empty() && self.entries.len() + key.len() + value.len() > ENTRIES_BYTES {
            self.flush_entries()?;
        }
        for part in [key, value] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.entries.extend_from_slice(&length.to_le_bytes());
        }
        self.entries.extend_from_slice(key);
        self.entries.extend_from_slice(value);
        self.end.entries += 1;
        self.end.bytes += (key.len() + value.len()) as u64;
        if keys::is_summed(key) {
            self.digests.replace(key, 0, codec::digest(key, value));
        }
        Ok(())
    }

    fn flush_entries(&mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        let written = if entries.is_empty() { Ok(()) } else { self.block(Kind::Entries, &entries) };
        self.entries = entries;
        self.entries.clear();
        written
    }

    /// Ends the group.
    pub fn end_group(&mut self) -> io::Result<GroupEnd> {
        self.flush_entries()?;
        let end = GroupEnd { data_digest: self.digests.data(), ..self.end };
        self.block(Kind::GroupEnd, &codec::encode(&end))?;
        Ok(end)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.at
    }

    /// Seals the file.
    pub fn seal(mut self) -> io::Result<W> {
        let seal = self.seal.clone().finish();
        self.block(Kind::Seal, seal.as_ref())?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Writes the state of one group as a file of its own.
pub fn write<W: Write>(output: W, export: &Export, time: Timestamp) -> Result<(W, GroupEnd), WriteError> {
    let Export { snapshot, last, .. } = export;
    let Snapshot { group, applied_time, .. } = *snapshot;
    let release = env!("CARGO_PKG_VERSION").to_owned();
    let head = Head { cluster: export.cluster, time, groups: vec![group], release };
    let mut writer = Writer::begin(output, &head)?;
    writer.group(&GroupHead {
        group,
        last: *last,
        time: applied_time,
        state_version: STATE_VERSION,
        hash_seed: export.hash_seed,
    })?;
    let everything = keys::portable();
    let mut scan = snapshot.scan(&everything, false);
    while let Some(entry) = scan.next_entry() {
        let entry = entry?;
        writer.entry(entry.key(), entry.value())?;
    }
    let end = writer.end_group()?;
    Ok((writer.seal()?, end))
}
