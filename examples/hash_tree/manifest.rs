//! What is written in the end: the format of `sha256sum`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file's hash, or why it has none.
pub(crate) type Hash = Result<String, String>;

/// What became of the tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hashed: usize,
    pub(crate) failed: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { hashed, failed } = self;
        write!(f, "files={} hashed={hashed} failed={failed}", hashed + failed)
    }
}

/// Where a manifest grows before it takes its place.
pub(crate) fn draft_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

/// Writes the manifest, sorted by path, and puts it in its place in one step, so that `out` is
/// never half of it. Files without a hash are named on stderr.
pub(crate) fn write(out: &Path, mut files: Vec<(OsString, Hash)>) -> io::Result<Tally> {
    files.sort_unstable();
    let draft = draft_of(out);
    let mut writer = BufWriter::new(File::create(&draft)?);
    let mut tally = Tally::default();
    for (path, hash) in &files {
        match hash {
            Ok(hash) => {
                tally.hashed += 1;
                writer.write_all(&line(path, hash))?;
            }
            Err(reason) => {
                tally.failed += 1;
                eprintln!("{}: {reason}", Path::new(path).display());
            }
        }
    }
    writer.into_inner()?.sync_all()?;
    fs::rename(draft, out)?;
    // the rename, too, is to survive a power cut
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(tally)
}

/// A backslash at the front says that the name is written with escapes.
fn line(path: &OsStr, hash: &str) -> Vec<u8> {
    let name = path.as_encoded_bytes();
    let mut line = Vec::with_capacity(name.len() + hash.len() + 4);
    if name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r')) {
        line.push(b'\\');
    }
    line.extend_from_slice(hash.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(br"\\"),
            b'\n' => line.extend_from_slice(br"\n"),
            b'\r' => line.extend_from_slice(br"\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}
