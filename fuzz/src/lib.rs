//! What the fuzz targets do with their bytes. `tests/hostile_bytes.rs` does the same with the corpus.

pub mod hostile;
