//! A log file that is rotated: `chronos.log`, then `chronos.log.1` and so on, the oldest with the highest number.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is set aside before it grows beyond its limit.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    /// Files kept beside the one that is written.
    max_files: u32,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Opens a file to be appended to; it is made if absent.
    pub fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<LogFile> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), max_bytes, max_files, file, bytes })
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_files == 0 {
            self.file.set_len(0)?;
        } else {
            let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            match remove_file(self.numbered(self.max_files)) {
                Err(error) if !missing(&error) => return Err(error),
                _ => {}
            }
            for number in (1..self.max_files).rev() {
                match rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if !missing(&error) => return Err(error),
                    _ => {}
                }
            }
            rename(&self.path, self.numbered(1))?;
            self.file = append(&self.path)?;
        }
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A line is written whole into one file.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            // A file that cannot be set aside grows: a log that is too long is better than none.
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::read_to_string;

    #[test]
    fn old_lines_move_on_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chronos.log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "a line that is longer than a file\n", "five\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |suffix: &str| read_to_string(format!("{}{suffix}", path.display())).ok();
        assert_eq!(read("").as_deref(), Some("five\n"));
        assert_eq!(read(".1").as_deref(), Some("a line that is longer than a file\n"));
        assert_eq!(read(".2").as_deref(), Some("four\n"));
        assert_eq!(read(".3"), None);
        drop(log);
        let mut log = LogFile::open(&path, 10, 0).unwrap();
        log.write_all(b"six\n").unwrap();
        log.write_all(b"seven\n").unwrap();
        assert_eq!(read("").as_deref(), Some("seven\n"));
    }
}
