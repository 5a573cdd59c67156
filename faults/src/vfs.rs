//! The VFS: C functions between SQLite and the VFS that it would use by itself.
//!
//! Only what can fail by a plan has a body of its own here; the rest is passed on. SQLite gives each
//! open file a piece of memory of the size that the VFS asks for: ours begins with a [`Watched`],
//! behind which the original VFS finds the piece that it expects.

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Once};

use rusqlite::ffi::{
    self, SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
};

use crate::disk::Disk;
use crate::plan::{File, Operation, Verdict};
use crate::scope::{self, Scope};

/// The system's error of a disk that is broken.
const EIO: i32 = 5;

/// The VFS that was the default, to which everything is passed on.
static ORIGINAL: AtomicPtr<sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

/// An open file of ours. The original VFS's own follows it in memory.
#[repr(C)]
struct Watched {
    /// What SQLite knows of it: must come first.
    base: sqlite3_file,
    /// A box that the file owns; null if nobody watches it.
    watch: *mut Watch,
}

/// Who watches a file.
struct Watch {
    scope: Arc<Scope>,
    file: File,
    name: OsString,
    /// Its first sync reaches the directory as well: SQLite does so for logs and journals that it
    /// may have created.
    syncs_directory: AtomicBool,
}

/// Makes this VFS the default of the process, once.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a null name asks for the default VFS, which lives as long as the process.
        let original = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!original.is_null(), "SQLite has a VFS");
        ORIGINAL.store(original, Ordering::Release);
        // SAFETY: it was just found. A copy keeps the functions that aren't about a file, and the
        // data that they look at.
        let mut ours = unsafe { *original };
        ours.zName = c"faults".as_ptr();
        ours.szOsFile += size_of::<Watched>() as c_int;
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        // SAFETY: it is leaked, so it lives as long as the process.
        let registered = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) };
        assert_eq!(registered, SQLITE_OK, "SQLite takes the VFS");
    });
}

/// The functions of an open file, of the version without memory mapping: it isn't used.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The original VFS's part of a file.
///
/// # Safety
///
/// `file` is memory that SQLite allocated for this VFS.
unsafe fn original(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: `szOsFile` asked for room for both.
    unsafe { file.cast::<Watched>().add(1).cast() }
}

/// The code with which an operation fails, the system's error set beside it.
fn fail(verdict: Verdict) -> Option<c_int> {
    match verdict {
        Verdict::Hangs => None,
        Verdict::Fails(code) => Some(code),
        Verdict::Breaks(code) => {
            // memory that isn't there is read as from a broken disk: the system's error is real
            let mut byte = [0];
            let read =
                std::fs::File::open("/proc/self/mem").and_then(|mut mem| mem.read(&mut byte));
            assert_eq!(read.err().and_then(|error| error.raw_os_error()), Some(EIO));
            Some(code)
        }
    }
}

/// Counts an operation on an open file; an error code if it is to fail.
///
/// # Safety
///
/// `file` was opened by [`open`] and isn't closed yet.
unsafe fn meet(file: *mut sqlite3_file, operation: Operation) -> Option<c_int> {
    // SAFETY: such a file begins with a `Watched`, whose box lives until the close.
    let watch = unsafe { (*file.cast::<Watched>()).watch.as_ref() }?;
    fail(watch.scope.meet(operation, watch.file)?)
}

/// Tells the recorded disk of an operation; false if none is recorded.
///
/// # Safety
///
/// `file` was opened by [`open`] and isn't closed yet.
unsafe fn record(file: *mut sqlite3_file, tell: impl FnOnce(&mut Disk, &OsString)) -> bool {
    // SAFETY: such a file begins with a `Watched`, whose box lives until the close.
    let Some(watch) = (unsafe { (*file.cast::<Watched>()).watch.as_ref() }) else { return false };
    match &mut *watch.scope.disk() {
        Some(disk) => {
            tell(disk, &watch.name);
            true
        }
        None => false,
    }
}

/// Calls a function of the original's file. The file must be open.
macro_rules! pass_on {
    ($file:ident.$method:ident($($argument:expr),*)) => {{
        let inner = original($file);
        let method = (*(*inner).pMethods).$method.expect("the original VFS has all functions");
        method(inner $(, $argument)*)
    }};
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // a file without a name is a temporary one, which nobody watches
    // SAFETY: any other name is a path that ends with a NUL.
    let watch = unsafe { (!name.is_null()).then(|| watch(name)).flatten() };
    if let Some(watch) = &watch {
        let created = flags & ffi::SQLITE_OPEN_CREATE != 0 && watch.file != File::Database;
        watch.syncs_directory.store(created, Ordering::Relaxed);
    }
    // SAFETY: SQLite gives us room for a file. Without functions, it takes the file for not open.
    unsafe { (*file).pMethods = std::ptr::null() };
    if let Some(watch) = &watch
        && let Some(failed) = watch.scope.meet(Operation::Open, watch.file).and_then(fail)
    {
        return failed;
    }
    // SAFETY: the original gets what it would have got, and room of its own for the file.
    unsafe {
        let vfs = ORIGINAL.load(Ordering::Acquire);
        let inner = original(file);
        let open = (*vfs).xOpen.expect("the original VFS has all functions");
        let opened = open(vfs, name, inner, flags, flags_out);
        // also a file that failed to open has to be closed, if the original gave it functions
        if !(*inner).pMethods.is_null() {
            let boxed = watch.map_or(std::ptr::null_mut(), |watch| Box::into_raw(Box::new(watch)));
            file.cast::<Watched>().write(Watched {
                base: sqlite3_file { pMethods: &raw const METHODS },
                watch: boxed,
            });
        }
        opened
    }
}

/// Who watches the file of this name.
///
/// # Safety
///
/// `name` ends with a NUL.
unsafe fn watch(name: *const c_char) -> Option<Watch> {
    // SAFETY: it does.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let end = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    let own = || OsString::from_vec(end.to_vec());
    let (file, syncs_directory) = (File::of(name), AtomicBool::new(false));
    scope::of(name).map(|scope| Watch { scope, file, name: own(), syncs_directory })
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite names the file by a path that ends with a NUL, and the original gets the same.
    unsafe {
        if let Some(watch) = watch(name)
            && let Some(failed) = watch.scope.meet(Operation::Delete, watch.file).and_then(fail)
        {
            return failed;
        }
        let vfs = ORIGINAL.load(Ordering::Acquire);
        let delete = (*vfs).xDelete.expect("the original VFS has all functions");
        let deleted = delete(vfs, name, sync);
        if deleted == SQLITE_OK
            && let Some(watch) = watch(name)
            && let Some(disk) = &mut *watch.scope.disk()
        {
            disk.delete(&watch.name, sync != 0);
        }
        deleted
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open, and SQLite doesn't use it again: its box ends here.
    unsafe {
        let watch = (*file.cast::<Watched>()).watch;
        if !watch.is_null() {
            drop(Box::from_raw(watch));
        }
        pass_on!(file.xClose())
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    bytes: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls this for an open file.
    unsafe {
        match meet(file, Operation::Read) {
            Some(failed) => failed,
            None => pass_on!(file.xRead(bytes, amount, offset)),
        }
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls this for an open file.
    unsafe {
        match meet(file, Operation::Write) {
            Some(failed) => failed,
            None => {
                let written = pass_on!(file.xWrite(bytes, amount, offset));
                if written == SQLITE_OK {
                    record(file, |disk, name| {
                        let bytes = std::slice::from_raw_parts(bytes.cast(), amount as usize);
                        disk.write(name, offset as usize, bytes);
                    });
                }
                written
            }
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls this for an open file.
    unsafe {
        match meet(file, Operation::Truncate) {
            Some(failed) => failed,
            None => {
                let cut = pass_on!(file.xTruncate(size));
                if cut == SQLITE_OK {
                    record(file, |disk, name| disk.truncate(name, size as usize));
                }
                cut
            }
        }
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite calls this for an open file.
    unsafe {
        match meet(file, Operation::Sync) {
            Some(failed) => {
                record(file, Disk::lose);
                failed
            }
            // a recorded disk is a simulated one
            None if record(file, Disk::sync) => {
                let watch = (*file.cast::<Watched>()).watch.as_ref();
                if watch.is_some_and(|watch| watch.syncs_directory.swap(false, Ordering::Relaxed)) {
                    record(file, |disk, _| disk.sync_directory());
                }
                SQLITE_OK
            }
            None => pass_on!(file.xSync(flags)),
        }
    }
}

/// Defines functions that only pass their call on.
macro_rules! passed_on {
    ($(fn $name:ident = $method:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) $(-> $result)? {
            // SAFETY: SQLite calls this for an open file.
            unsafe { pass_on!(file.$method($($argument),*)) }
        }
    )*};
}

passed_on! {
    fn file_size = xFileSize(size: *mut sqlite3_int64) -> c_int;
    fn lock = xLock(level: c_int) -> c_int;
    fn unlock = xUnlock(level: c_int) -> c_int;
    fn check_reserved_lock = xCheckReservedLock(held: *mut c_int) -> c_int;
    fn file_control = xFileControl(request: c_int, argument: *mut c_void) -> c_int;
    fn sector_size = xSectorSize() -> c_int;
    fn device_characteristics = xDeviceCharacteristics() -> c_int;
    fn shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, to: *mut *mut c_void) -> c_int;
    fn shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    fn shm_barrier = xShmBarrier();
    fn shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}
