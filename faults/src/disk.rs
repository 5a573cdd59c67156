//! What a disk would hold after a power cut: everything that was synced, and of the rest a part.
//!
//! A file's *durable* bytes are those that a sync has reached. Writes, truncations and deletions since
//! then are *pending*: a power cut keeps each pending sector of 512 bytes, or loses it, by chance, as
//! SQLite's own crash tests do (src/test6.c), and so with the rest. A failed sync loses what was
//! pending for good, though the system's cache shows it still: so Linux file systems behave (Rebello
//! et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// What a power cut loses or keeps as a whole.
const SECTOR: usize = 512;

/// A change of a file that no sync has reached.
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Default)]
struct Recorded {
    /// `None` if the file isn't sure to be there.
    durable: Option<Vec<u8>>,
    pending: Vec<Pending>,
    /// It was deleted, and the directory wasn't synced since.
    deleted: bool,
}

/// Called with an image when it is taken, before the operation goes on.
type Taken = Box<dyn FnMut(Image) + Send>;

/// The files of a directory as a disk holds them.
#[derive(Default)]
pub(crate) struct Disk {
    files: BTreeMap<OsString, Recorded>,
    ignores_syncs: bool,
    random: Random,
    /// The operations until the next image, and the most that there are between two.
    until_image: u64,
    apart: u64,
    images_left: u64,
    taken: Option<Taken>,
}

/// A power cut's random choices.
#[derive(Default)]
struct Random(u64);

impl Random {
    /// The next number of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
    /// generators", 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// How a directory's files are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// All random choices come from this.
    pub seed: u64,
    /// A disk that says that it has synced, and hasn't: what `synchronous = OFF` makes of any disk.
    pub ignores_syncs: bool,
}

/// The files of a directory as a power cut left them.
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: Vec<(OsString, Vec<u8>)>,
}

impl Image {
    /// Writes them into a directory.
    ///
    /// # Errors
    ///
    /// A file can't be written.
    pub fn write_to(&self, directory: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| std::fs::write(directory.join(name), bytes))
    }
}

impl Disk {
    pub(crate) fn new(recording: Recording) -> Self {
        Disk {
            random: Random(recording.seed),
            ignores_syncs: recording.ignores_syncs,
            ..Disk::default()
        }
    }

    /// Takes `images` images from now on, with 1 to `apart` operations between each two.
    pub(crate) fn take(&mut self, images: u64, apart: u64, taken: Taken) {
        (self.images_left, self.apart, self.taken) = (images, apart, Some(taken));
        self.until_image = 1 + self.random.next() % apart;
    }

    fn file(&mut self, name: &OsString) -> &mut Recorded {
        self.files.entry(name.clone()).or_default()
    }

    pub(crate) fn write(&mut self, name: &OsString, offset: usize, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.file(name).pending.push(Pending::Write { offset, bytes });
        self.step();
    }

    pub(crate) fn truncate(&mut self, name: &OsString, size: usize) {
        self.file(name).pending.push(Pending::Truncate(size));
        self.step();
    }

    pub(crate) fn sync(&mut self, name: &OsString) {
        if !self.ignores_syncs {
            let file = self.file(name);
            let mut durable = file.durable.take().unwrap_or_default();
            for change in file.pending.drain(..) {
                match change {
                    Pending::Write { offset, bytes } => write(&mut durable, offset, &bytes),
                    Pending::Truncate(size) => durable.resize(size, 0),
                }
            }
            (file.durable, file.deleted) = (Some(durable), false);
        }
        self.step();
    }

    /// What files there are is sure from now on.
    pub(crate) fn sync_directory(&mut self) {
        if !self.ignores_syncs {
            self.files.retain(|_, file| !file.deleted);
            for file in self.files.values_mut() {
                file.durable.get_or_insert_default();
            }
        }
    }

    /// A sync that failed: what it was to reach never gets there.
    pub(crate) fn lose(&mut self, name: &OsString) {
        self.file(name).pending.clear();
    }

    pub(crate) fn delete(&mut self, name: &OsString, synced: bool) {
        if synced && !self.ignores_syncs {
            self.files.remove(name);
        } else {
            self.file(name).deleted = true;
        }
        self.step();
    }

    /// Counts an operation, and takes an image when it is time.
    fn step(&mut self) {
        if self.images_left == 0 {
            return;
        }
        self.until_image -= 1;
        if self.until_image == 0 {
            self.images_left -= 1;
            self.until_image = 1 + self.random.next() % self.apart;
            let image = self.image();
            if let Some(taken) = &mut self.taken {
                taken(image);
            }
        }
    }

    /// What a power cut would leave now.
    pub(crate) fn image(&mut self) -> Image {
        let (files, random) = (&self.files, &mut self.random);
        let mut image = Image::default();
        for (name, file) in files {
            if file.deleted && random.coin() || file.durable.is_none() && random.coin() {
                continue;
            }
            let mut bytes = file.durable.clone().unwrap_or_default();
            for change in &file.pending {
                match change {
                    Pending::Write { offset, bytes: written } => {
                        for (index, sector) in written.chunks(SECTOR).enumerate() {
                            if random.coin() {
                                write(&mut bytes, offset + index * SECTOR, sector);
                            }
                        }
                    }
                    Pending::Truncate(size) if random.coin() => bytes.resize(*size, 0),
                    Pending::Truncate(_) => {}
                }
            }
            image.files.push((name.clone(), bytes));
        }
        image
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> Disk {
        Disk::new(Recording { seed, ignores_syncs: false })
    }

    fn name() -> OsString {
        "a.db".into()
    }

    #[test]
    fn what_was_synced_is_in_every_image() {
        for seed in 0..50 {
            let mut disk = disk(seed);
            disk.write(&name(), 0, &[1; 2_000]);
            disk.sync(&name());
            disk.write(&name(), 2_000, &[2; 600]);
            let image = disk.image();
            assert_eq!(image.files[0].1[..2_000], [1; 2_000]);
        }
    }

    #[test]
    fn of_what_was_not_each_sector_is_there_or_not() {
        let kept: Vec<usize> = (0..50)
            .map(|seed| {
                let mut disk = disk(seed);
                disk.sync(&name());
                disk.write(&name(), 0, &[1; 4 * SECTOR]);
                let image = disk.image();
                image.files[0].1.chunks(SECTOR).filter(|sector| sector[0] == 1).count()
            })
            .collect();
        (0..=4).for_each(|sectors| assert!(kept.contains(&sectors), "{sectors} of 4"));
    }

    #[test]
    fn a_failed_sync_loses_what_no_later_one_brings_back() {
        let mut disk = disk(1);
        disk.write(&name(), 0, &[1; SECTOR]);
        disk.lose(&name());
        disk.write(&name(), SECTOR, &[2; SECTOR]);
        disk.sync(&name());
        assert_eq!(disk.image().files[0].1, [[0; SECTOR], [2; SECTOR]].concat());
    }

    #[test]
    fn a_disk_that_ignores_syncs_may_have_nothing() {
        let empty = (0..20).any(|seed| {
            let mut disk = Disk::new(Recording { seed, ignores_syncs: true });
            disk.write(&name(), 0, &[1; SECTOR]);
            disk.sync(&name());
            disk.image().files.is_empty()
        });
        assert!(empty);
    }
}
