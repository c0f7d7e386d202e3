//! Reads an LMDB file page by page without trusting a byte of it.
//!
//! LMDB maps its file and follows what it finds there: a flipped bit in a page header is a wild pointer, a truncated
//! file a SIGBUS. This reader uses `pread` and checks every offset before it follows it, so it cannot die of what it
//! reads. It holds a whole tree to its rules: each page is where its parent says, of the kind its level says, used
//! once, within the file; nodes fill their page without overlap; keys ascend within the bounds of their parent;
//! counts are those of the meta page; the free list names no page that is in use. Values are the caller's to check.
//!
//! The layout is that of LMDB 0.9 data version 1, as documented in its source, on a little-endian machine with
//! 64-bit page numbers.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const META_BYTES: usize = PAGE_HEADER + 136;
const NO_PAGE: u64 = u64::MAX;
const DEPTH_MAX: u16 = 32;
/// The last pages of a file may be free and never written; no transaction leaves more of them than this.
const BEYOND_END_MAX_BYTES: u64 = 64 << 30;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;
const BIG_DATA: u16 = 0x01;
const INTEGER_KEY: u16 = 0x08;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The page, if it is one page's.
    pub page: Option<u64>,
    /// The byte in the file where that page begins.
    pub offset: Option<u64>,
    /// The store's keys that the damage may concern: from the first, to but without the second. None is an end.
    pub keys: (Option<Vec<u8>>, Option<Vec<u8>>),
    /// What was found.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let (Some(page), Some(offset)) = (self.page, self.offset) {
            write!(f, ", page {page} at byte {offset}")?;
        }
        write!(f, ": {}", self.what)?;
        let hex = |key: &Option<Vec<u8>>, end: &str| match key {
            Some(key) => key.iter().take(64).map(|b| format!("{b:02x}")).collect::<String>(),
            None => end.to_owned(),
        };
        if self.page.is_some() || self.keys.0.is_some() {
            write!(
                f,
                " (keys from {} to {})",
                hex(&self.keys.0, "the first"),
                hex(&self.keys.1, "the last")
            )?;
        }
        Ok(())
    }
}

/// One of the two meta pages: a committed state of the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Which of the two.
    pub slot: u64,
    /// The transaction that wrote it.
    pub txn: u64,
    /// The last page ever used.
    pub last_page: u64,
    free: Tree,
    main: Tree,
}

impl Meta {
    /// Entries in the store.
    pub fn entries(&self) -> u64 {
        self.main.entries
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tree {
    depth: u16,
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
    root: u64,
}

/// What a walk over a whole file counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Entries of the store.
    pub entries: u64,
    /// Pages in use, meta pages and the free list's own among them.
    pub used_pages: u64,
    /// Pages listed as free.
    pub free_pages: u64,
    /// Pages neither in use nor free: lost space, harmless.
    pub lost_pages: u64,
}

/// Is given each key and value, and says what is wrong with it, if anything.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;
/// Is given pages seen and pages in all now and then, and ends a walk by answering false.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Why a walk ended early.
#[derive(Debug)]
pub enum WalkError {
    /// The file is damaged.
    Damage(Box<Damage>),
    /// It could not be read, or the caller ended it.
    Io(io::Error),
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> WalkError {
        WalkError::Io(error)
    }
}

/// An LMDB data file, read with suspicion.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    path: PathBuf,
    length: u64,
    page_bytes: usize,
}

impl PageFile {
    /// Opens a file and learns its page size.
    pub fn open(path: &Path) -> Result<PageFile, WalkError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut pages = PageFile { file, path: path.to_owned(), length, page_bytes: META_BYTES };
        let os_page = rustix::param::page_size();
        // Each meta page names the page size; one of them may be damaged, so the machine's own is tried too.
        let named = pages.read_meta_at(0).map(|bytes| u32_at(&bytes, PAGE_HEADER + 24) as usize);
        let sane = |bytes: &usize| bytes.is_power_of_two() && (512..=32_768).contains(bytes);
        pages.page_bytes = named.ok().filter(sane).unwrap_or(os_page.min(32_768));
        Ok(pages)
    }

    /// The length of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes in a page.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The meta page in a slot, 0 or 1.
    pub fn meta(&self, slot: u64) -> Result<Meta, WalkError> {
        let damage = |what: String| self.damage(Some(slot), (None, None), what);
        let at = slot * self.page_bytes as u64;
        if at + META_BYTES as u64 > self.length {
            return Err(damage(format!(
                "the file is {} bytes long and has no meta page {slot}",
                self.length
            )));
        }
        let bytes = self.read_meta_at(at)?;
        let (flags, magic, version) = (u16_at(&bytes, 10), u32_at(&bytes, 16), u32_at(&bytes, 20));
        if u64_at(&bytes, 0) != slot || flags != META || magic != MAGIC {
            return Err(damage("is not a meta page".to_owned()));
        }
        if version != DATA_VERSION {
            return Err(damage(format!("has LMDB data version {version}, not {DATA_VERSION}")));
        }
        let (free_at, main_at) = (PAGE_HEADER + 24, PAGE_HEADER + 72);
        let page_bytes = u32_at(&bytes, free_at) as usize;
        if page_bytes != self.page_bytes {
            return Err(damage(format!("names a page size of {page_bytes}, not {}", self.page_bytes)));
        }
        let (free, main) = (tree_at(&bytes, free_at), tree_at(&bytes, main_at));
        let kinds = (u16_at(&bytes, free_at + 4), u32_at(&bytes, main_at), u16_at(&bytes, main_at + 4));
        if kinds != (INTEGER_KEY, 0, 0) {
            return Err(damage("has flags that this store never sets".to_owned()));
        }
        let (last_page, txn) = (u64_at(&bytes, PAGE_HEADER + 120), u64_at(&bytes, PAGE_HEADER + 128));
        let map_bytes = u64_at(&bytes, PAGE_HEADER + 16);
        let reach = last_page.saturating_mul(self.page_bytes as u64);
        if last_page == 0 || reach > self.length + BEYOND_END_MAX_BYTES || map_bytes >= 1 << 56 {
            let length = self.length;
            return Err(damage(format!(
                "names a last page of {last_page} and a map of {map_bytes} bytes, the file has {length}"
            )));
        }
        if txn != 0 && txn & 1 != slot {
            return Err(damage(format!("says that transaction {txn} wrote it, which writes the other one")));
        }
        for tree in [&free, &main] {
            let empty = tree.root == NO_PAGE;
            let counts = [u64::from(tree.depth), tree.branch_pages, tree.leaf_pages, tree.entries];
            let sane = match empty {
                true => counts == [0; 4],
                false => {
                    (1..=DEPTH_MAX).contains(&tree.depth)
                        && (2..=last_page).contains(&tree.root)
                        && tree.entries > 0
                }
            };
            if !sane {
                return Err(damage(format!("describes an impossible tree: {tree:?}")));
            }
        }
        Ok(Meta { slot, txn, last_page, free, main })
    }

    /// Walks everything that a meta page reaches: the free list, then the store.
    pub fn walk(&self, meta: &Meta, visit: Visit<'_>, progress: Progress<'_>) -> Result<Walked, WalkError> {
        let mut walk = Walk { pages: self, meta, seen: Bitmap::new(meta.last_page + 1), done: 0, progress };
        walk.claim(0, 2, &Bounds::default())?;
        let mut free = Vec::new();
        let mut lists = |key: &[u8], value: &[u8]| {
            free.extend(free_pages(key, value, meta.txn)?);
            Ok(())
        };
        walk.tree(&meta.free, Order::Integer, &mut lists)?;
        let walked_main = walk.tree(&meta.main, Order::Bytes, visit)?;
        let used_pages = walk.seen.count;
        for page in &free {
            if !(2..=meta.last_page).contains(page) || !walk.seen.set(*page) {
                let what = "is listed as free, but is in use, listed twice or beyond the last page";
                return Err(self.damage(Some(*page), (None, None), what.to_owned()));
            }
        }
        Ok(Walked {
            entries: walked_main,
            used_pages,
            free_pages: free.len() as u64,
            lost_pages: meta.last_page + 1 - walk.seen.count,
        })
    }

    /// The damage that a value is which fails its checksum.
    pub fn damaged_value(&self, key: &[u8]) -> Damage {
        let mut after = key.to_vec();
        after.push(0);
        Damage {
            file: self.path.clone(),
            page: None,
            offset: None,
            keys: (Some(key.to_vec()), Some(after)),
            what: "a value does not match its checksum".to_owned(),
        }
    }

    /// A meta page that says the same as `meta` in the other slot, as the transaction before it; and where it goes.
    pub fn meta_page_before(&self, meta: &Meta) -> io::Result<(Vec<u8>, u64)> {
        let mut bytes = self.read_meta_at(meta.slot * self.page_bytes as u64)?.to_vec();
        let other = 1 - meta.slot;
        bytes[..8].copy_from_slice(&other.to_le_bytes());
        bytes[PAGE_HEADER + 128..].copy_from_slice(&meta.txn.saturating_sub(1).to_le_bytes());
        Ok((bytes, other * self.page_bytes as u64))
    }

    fn read_meta_at(&self, at: u64) -> io::Result<[u8; META_BYTES]> {
        let mut bytes = [0; META_BYTES];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn damage(&self, page: Option<u64>, keys: (Option<Vec<u8>>, Option<Vec<u8>>), what: String) -> WalkError {
        let offset = page.map(|page| page.saturating_mul(self.page_bytes as u64));
        WalkError::Damage(Box::new(Damage { file: self.path.clone(), page, offset, keys, what }))
    }
}

/// The page numbers of one free list entry: a count, then as many numbers.
fn free_pages(key: &[u8], value: &[u8], txn: u64) -> Result<Vec<u64>, String> {
    let of =
        <[u8; 8]>::try_from(key).map(u64::from_ne_bytes).map_err(|_| "a free list key of another length")?;
    if of == 0 || of > txn {
        return Err(format!("the free list has pages of transaction {of}, but the last one was {txn}"));
    }
    let mut numbers = value.chunks_exact(8).map(|chunk| u64_at(chunk, 0));
    let count = numbers.next().ok_or("an empty free list entry")?;
    if numbers.len() as u64 != count {
        return Err(format!("a free list entry of {} numbers says that it has {count}", numbers.len()));
    }
    let numbers: Vec<u64> = numbers.collect();
    match numbers.is_sorted_by(|a, b| a > b) {
        true => Ok(numbers),
        false => Err("a free list entry is not in order".to_owned()),
    }
}

#[derive(Clone, Copy)]
enum Order {
    Bytes,
    Integer,
}

impl Order {
    fn less(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Order::Bytes => a < b,
            Order::Integer => {
                let number = |key: &[u8]| <[u8; 8]>::try_from(key).map(u64::from_ne_bytes);
                matches!((number(a), number(b)), (Ok(a), Ok(b)) if a < b)
            }
        }
    }
}

/// The keys that a page may hold: from the first, below the second.
#[derive(Clone, Default)]
struct Bounds {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

struct Walk<'a> {
    pages: &'a PageFile,
    meta: &'a Meta,
    seen: Bitmap,
    done: u64,
    progress: Progress<'a>,
}

#[derive(Default)]
struct Counts {
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
}

struct Node {
    at: usize,
    key: std::ops::Range<usize>,
    low: u32,
    flags: u16,
}

impl Walk<'_> {
    fn tree(&mut self, tree: &Tree, order: Order, visit: Visit<'_>) -> Result<u64, WalkError> {
        let mut counts = Counts::default();
        if tree.root != NO_PAGE {
            self.page(tree.root, tree.depth, order, &Bounds::default(), &mut counts, visit)?;
        }
        let found = (counts.branch_pages, counts.leaf_pages, counts.overflow_pages, counts.entries);
        let said = (tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries);
        if found != said {
            let what = format!(
                "a tree has {found:?} branch, leaf, overflow pages and entries, its meta page says {said:?}"
            );
            return Err(self.pages.damage(Some(self.meta.slot), (None, None), what));
        }
        Ok(counts.entries)
    }

    fn page(
        &mut self,
        number: u64,
        levels: u16,
        order: Order,
        bounds: &Bounds,
        counts: &mut Counts,
        visit: Visit<'_>,
    ) -> Result<(), WalkError> {
        self.claim(number, 1, bounds)?;
        let mut page = vec![0; self.pages.page_bytes];
        self.read(number, &mut page, bounds)?;
        let leaf = levels == 1;
        let nodes = nodes(&page, number, leaf).map_err(|what| self.damage(number, bounds, what))?;
        if leaf {
            counts.leaf_pages += 1;
            counts.entries += nodes.len() as u64;
        } else {
            counts.branch_pages += 1;
        }
        for (i, node) in nodes.iter().enumerate() {
            let key = &page[node.key.clone()];
            // A branch's first key is not used: everything below its second is there.
            let named = leaf || i > 0;
            let before = if leaf { i.checked_sub(1) } else { i.checked_sub(1).filter(|&before| before > 0) };
            let after_before = before.is_none_or(|b| order.less(&page[nodes[b].key.clone()], key));
            let above = bounds.from.as_ref().is_none_or(|from| !order.less(key, from));
            let below = bounds.to.as_ref().is_none_or(|to| order.less(key, to));
            if named && !(after_before && above && below) {
                return Err(self.damage(number, bounds, format!("key {i} is out of order")));
            }
            if leaf {
                let value = self.value(&page, node, number, bounds, counts)?;
                visit(key, &value).map_err(|what| {
                    let mut after = key.to_vec();
                    after.push(0);
                    self.damage(number, &Bounds { from: Some(key.to_vec()), to: Some(after) }, what)
                })?;
            } else {
                let next = nodes.get(i + 1).map(|next| page[next.key.clone()].to_vec());
                let from = if i == 0 { bounds.from.clone() } else { Some(key.to_vec()) };
                let within = Bounds { from, to: next.or_else(|| bounds.to.clone()) };
                let child = u64::from(node.low) | u64::from(node.flags) << 32;
                self.page(child, levels - 1, order, &within, counts, visit)?;
            }
        }
        Ok(())
    }

    fn value<'p>(
        &mut self,
        page: &'p [u8],
        node: &Node,
        number: u64,
        bounds: &Bounds,
        counts: &mut Counts,
    ) -> Result<std::borrow::Cow<'p, [u8]>, WalkError> {
        let length = node.low as usize;
        if node.flags != BIG_DATA {
            return Ok((&page[node.key.end..node.key.end + length]).into());
        }
        let first = u64_at(page, node.key.end);
        let span = ((PAGE_HEADER - 1 + length) / self.pages.page_bytes + 1) as u64;
        self.claim(first, span, bounds)?;
        counts.overflow_pages += span;
        let mut bytes = vec![0; PAGE_HEADER + length];
        self.read(first, &mut bytes, bounds)?;
        let said = (u64_at(&bytes, 0), u16_at(&bytes, 10), u64::from(u32_at(&bytes, 12)));
        if said != (first, OVERFLOW, span) {
            let what = format!("page {first} should begin an overflow run of {span} pages for page {number}");
            return Err(self.damage(first, bounds, what));
        }
        bytes.drain(..PAGE_HEADER);
        Ok(bytes.into())
    }

    /// Takes pages as used: each is within the file and nobody else's.
    fn claim(&mut self, first: u64, count: u64, bounds: &Bounds) -> Result<(), WalkError> {
        let end = first.saturating_add(count);
        if end > self.meta.last_page + 1 || (first < 2 && count != 2) {
            let what =
                format!("pages {first} to {} do not exist: the last is {}", end - 1, self.meta.last_page);
            return Err(self.damage(first, bounds, what));
        }
        for page in first..end {
            if !self.seen.set(page) {
                return Err(self.damage(page, bounds, "is used twice".to_owned()));
            }
        }
        self.done += count;
        if self.done % 256 < count && !(self.progress)(self.done, self.meta.last_page + 1) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "given up").into());
        }
        Ok(())
    }

    fn read(&self, page: u64, bytes: &mut [u8], bounds: &Bounds) -> Result<(), WalkError> {
        let at = page * self.pages.page_bytes as u64;
        match self.pages.file.read_exact_at(bytes, at) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damage(page, bounds, format!("the file ends at byte {}", self.pages.length)))
            }
            Err(error) => Err(self.damage(page, bounds, format!("cannot be read: {error}"))),
        }
    }

    fn damage(&self, page: u64, bounds: &Bounds, what: String) -> WalkError {
        self.pages.damage(Some(page), (bounds.from.clone(), bounds.to.clone()), what)
    }
}

/// The nodes of a branch or leaf page. Every range that comes back lies within the page.
fn nodes(page: &[u8], number: u64, leaf: bool) -> Result<Vec<Node>, String> {
    let kind = if leaf { LEAF } else { BRANCH };
    if u64_at(page, 0) != number {
        return Err(format!("says that it is page {}", u64_at(page, 0)));
    }
    if u16_at(page, 8) != 0 || u16_at(page, 10) != kind {
        return Err(format!("has flags {:04x}, expected {kind:04x}", u16_at(page, 10)));
    }
    let (lower, upper) = (usize::from(u16_at(page, 12)), usize::from(u16_at(page, 14)));
    if lower < PAGE_HEADER || lower % 2 != 0 || lower > upper || upper > page.len() {
        return Err(format!("has its free space from {lower} to {upper}"));
    }
    let count = (lower - PAGE_HEADER) / 2;
    if count < if leaf { 1 } else { 2 } {
        return Err(format!("has {count} nodes"));
    }
    let mut nodes = Vec::with_capacity(count);
    let mut spans = Vec::with_capacity(count);
    for i in 0..count {
        let at = usize::from(u16_at(page, PAGE_HEADER + 2 * i));
        if at < upper || at + NODE_HEADER > page.len() {
            return Err(format!("has node {i} at byte {at}"));
        }
        let low = u32::from(u16_at(page, at)) | u32::from(u16_at(page, at + 2)) << 16;
        let (flags, key_bytes) = (u16_at(page, at + 4), usize::from(u16_at(page, at + 6)));
        let data_bytes = match (leaf, flags) {
            (false, _) => 0,
            (true, 0) => low as usize,
            (true, BIG_DATA) => 8,
            (true, _) => return Err(format!("has node {i} with flags {flags:04x}")),
        };
        let key = at + NODE_HEADER..at + NODE_HEADER + key_bytes;
        let end = key.end.saturating_add(data_bytes);
        if end > page.len() {
            return Err(format!("has node {i} that ends at byte {end}"));
        }
        spans.push((at, end.next_multiple_of(2)));
        nodes.push(Node { at, key, low, flags });
    }
    spans.sort_unstable();
    let adjoin = spans.windows(2).all(|pair| pair[0].1 == pair[1].0);
    let (first, last) = (spans.first().map(|s| s.0), spans.last().map(|s| s.1));
    if !adjoin || first != Some(upper) || last != Some(page.len()) {
        return Err("has nodes that overlap or leave gaps".to_owned());
    }
    debug_assert!(nodes.iter().all(|node| node.at >= upper));
    Ok(nodes)
}

fn tree_at(bytes: &[u8], at: usize) -> Tree {
    Tree {
        depth: u16_at(bytes, at + 6),
        branch_pages: u64_at(bytes, at + 8),
        leaf_pages: u64_at(bytes, at + 16),
        overflow_pages: u64_at(bytes, at + 24),
        entries: u64_at(bytes, at + 32),
        root: u64_at(bytes, at + 40),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Pages seen.
struct Bitmap {
    words: Vec<u64>,
    count: u64,
}

impl Bitmap {
    fn new(bits: u64) -> Bitmap {
        Bitmap { words: vec![0; bits.div_ceil(64) as usize], count: 0 }
    }

    /// False if it was set.
    fn set(&mut self, bit: u64) -> bool {
        let (word, mask) = ((bit / 64) as usize, 1 << (bit % 64));
        let fresh = self.words[word] & mask == 0;
        self.words[word] |= mask;
        self.count += u64::from(fresh);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::state::sealed;
    use heed::types::Bytes;
    use heed::{CommitOrAbort, EnvOpenOptions};
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn value(key: &[u8], n: u64, length: usize) -> Vec<u8> {
        let value: Vec<u8> = n.to_le_bytes().into_iter().cycle().take(length).collect();
        sealed::seal(key, &value).to_vec()
    }

    /// A file with every kind of page: branches, long values, a free list of some length.
    fn build(dir: &Path) -> Model {
        let mut model = Model::new();
        let mut options = EnvOpenOptions::new();
        options.map_size(64 << 20);
        // SAFETY: the test alone has the file.
        let env = unsafe { options.open(dir) }.unwrap();
        let opened = env.open_databases_and_commit(env.read_txn().unwrap(), |opener, txn| {
            opener
                .open_database::<Bytes, Bytes>(txn, None)
                .map(|db| CommitOrAbort::<_, ()>::Commit(db.unwrap()))
        });
        let db = opened.unwrap().unwrap_commit();
        for round in 0..6u64 {
            let mut txn = env.write_txn().unwrap();
            for i in 0..600u64 {
                let n = (i * 7 + round * 13) % 900;
                let key = [&b"key"[..], &n.to_be_bytes(), &vec![b'x'; (n % 40) as usize]].concat();
                if (i + round) % 5 == 0 {
                    db.delete(&mut txn, &key).unwrap();
                    model.remove(&key);
                } else {
                    let length = if n % 50 == 0 { 9_000 } else { 20 + (n % 90) as usize };
                    let value = value(&key, n + round, length);
                    db.put(&mut txn, &key, &value).unwrap();
                    model.insert(key, value);
                }
            }
            txn.commit().unwrap();
        }
        model
    }

    fn newest(file: &PageFile) -> Result<Meta, WalkError> {
        let (a, b) = (file.meta(0)?, file.meta(1)?);
        Ok(if a.txn > b.txn { a } else { b })
    }

    fn read(path: &Path) -> Result<(Model, Walked), WalkError> {
        let file = PageFile::open(path)?;
        let mut model = Model::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            let sealed = bytes::Bytes::copy_from_slice(value);
            sealed::open(key, &sealed).map_err(|error| error.to_string())?;
            model.insert(key.to_vec(), value.to_vec());
            Ok(())
        };
        let walked = file.walk(&newest(&file)?, &mut visit, &mut |_, _| true)?;
        Ok((model, walked))
    }

    #[test]
    fn a_walk_reads_what_lmdb_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let model = build(dir.path());
        let (read, walked) = read(&dir.path().join("data.mdb")).unwrap();
        assert_eq!(read, model);
        assert_eq!(walked.entries, model.len() as u64);
        assert!(walked.free_pages > 0, "{walked:?}");
        assert_eq!(walked.lost_pages, 0, "{walked:?}");
    }

    /// A flipped bit is found, or it is where nothing is stored.
    #[test]
    fn no_flipped_bit_changes_what_is_read_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let model = build(dir.path());
        let path = dir.path().join("data.mdb");
        let whole = std::fs::read(&path).unwrap();
        let damaged = dir.path().join("damaged.mdb");
        let (mut found, mut harmless) = (0, 0);
        for at in (0..300).chain((300..whole.len()).step_by(1_009)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&damaged, &bytes).unwrap();
            match read(&damaged) {
                Err(WalkError::Damage(_)) => found += 1,
                Err(WalkError::Io(error)) => panic!("byte {at}: {error}"),
                Ok((read, _)) => {
                    harmless += 1;
                    assert!(read == model, "byte {at}");
                }
            }
        }
        assert!(found > 30 && harmless > 30, "found {found}, harmless {harmless}");
    }

    #[test]
    fn truncated_zeroed_and_swapped_pages_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let model = build(dir.path());
        let path = dir.path().join("data.mdb");
        let whole = std::fs::read(&path).unwrap();
        let page = 4096;
        let damaged = dir.path().join("damaged.mdb");
        let check = |bytes: &[u8], what: &str| {
            std::fs::write(&damaged, bytes).unwrap();
            match read(&damaged) {
                Err(WalkError::Damage(damage)) => assert!(damage.to_string().contains("damaged.mdb")),
                Err(WalkError::Io(_)) if bytes.len() < META_BYTES => {}
                Err(WalkError::Io(error)) => panic!("{what}: {error}"),
                // A page that is not in use.
                Ok((read, _)) => assert_eq!(read, model, "{what}"),
            }
        };
        for number in 0..whole.len() / page {
            let range = number * page..(number + 1) * page;
            let mut bytes = whole.clone();
            bytes[range.clone()].fill(0);
            check(&bytes, &format!("page {number} zeroed"));
            let other = (number + 5) % (whole.len() / page);
            let mut bytes = whole.clone();
            bytes.copy_within(other * page..(other + 1) * page, range.start);
            bytes[other * page..(other + 1) * page].copy_from_slice(&whole[range]);
            check(&bytes, &format!("pages {number} and {other} swapped"));
            check(&whole[..number * page], &format!("truncated to {number} pages"));
        }
    }
}
