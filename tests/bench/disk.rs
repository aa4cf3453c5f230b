//! What the disk alone can do.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// How long the disk alone is measured.
const DISK_FOR: Duration = Duration::from_secs(1);
/// What one write to the disk holds, in bytes.
const DISK_WRITE_BYTES: usize = 4096;

/// How many times a second the disk under `directory` alone takes a small write for good.
pub fn fsyncs_per_second(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("fsync")).expect("the directory can be written to");
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < DISK_FOR {
        file.write_all(&[0; DISK_WRITE_BYTES]).expect("there is room on the disk");
        file.sync_data().expect("the disk takes what was written");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
