//! A tar file of plain files, as POSIX.1-1988 (ustar) has it: what every system reads.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// Appends a file of exactly so many bytes; what is missing of them is filled with zeros, what is over is left out.
pub fn append(
    out: &mut impl Write,
    name: &str,
    bytes: u64,
    modified: u64,
    content: impl Read,
) -> io::Result<()> {
    out.write_all(&header(name, bytes, modified)?)?;
    let copied = io::copy(&mut content.take(bytes), out)?;
    let missing = bytes - copied + (BLOCK as u64 - bytes % BLOCK as u64) % BLOCK as u64;
    io::copy(&mut io::repeat(0).take(missing), out)?;
    Ok(())
}

/// Ends the archive.
pub fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn header(name: &str, bytes: u64, modified: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    if name.len() >= 100 || bytes >= 1 << 33 {
        return Err(io::Error::other(format!("{name} of {bytes} bytes does not fit into a tar file")));
    }
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, format!("{modified:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        let mut out = std::fs::File::create(&file).unwrap();
        append(&mut out, "b/one", 3, 1_700_000_000, &b"one"[..]).unwrap();
        append(&mut out, "b/block", 512, 0, &[b'x'; 600][..]).unwrap();
        append(&mut out, "b/short", 4, 0, &b"ab"[..]).unwrap();
        finish(&mut out).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().len() % 512, 0);
        let output = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let read = |name: &str| std::fs::read(dir.path().join("b").join(name)).unwrap();
        assert_eq!(
            (read("one"), read("block"), read("short")),
            (b"one".to_vec(), vec![b'x'; 512], b"ab\0\0".to_vec())
        );
    }
}
