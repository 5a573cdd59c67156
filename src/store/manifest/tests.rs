use super::*;
use crate::store::testing::{Place, mode};

fn text(manifest: &Manifest) -> String {
    serde_json::to_string(manifest).unwrap()
}

fn two_shards() -> Manifest {
    let mut manifest = Manifest::new().unwrap();
    manifest.extend_to(2).unwrap();
    manifest
}

fn kind(text: &str) -> StoreErrorKind {
    Manifest::parse(text.as_bytes()).unwrap_err().kind()
}

#[test]
fn what_was_written_is_read_again_and_nobody_else_can_read_it() {
    let place = Place::new();
    files::create_directory(&place.path()).unwrap();
    assert_eq!(Manifest::read(&place.path()).unwrap(), None);
    let manifest = two_shards();
    manifest.write(&place.path()).unwrap();
    assert_eq!(Manifest::read(&place.path()).unwrap(), Some(manifest));
    assert_eq!(mode(&place.path().join(MANIFEST_FILE)), 0o600);
}

#[test]
fn a_draft_that_a_crash_left_is_neither_read_nor_in_the_way() {
    let place = Place::new();
    files::create_directory(&place.path()).unwrap();
    let manifest = two_shards();
    manifest.write(&place.path()).unwrap();
    let draft = place.path().join("manifest.json.tmp");
    fs::write(&draft, "half of").unwrap();
    assert_eq!(Manifest::read(&place.path()).unwrap(), Some(manifest.clone()));
    manifest.write(&place.path()).unwrap();
    assert!(!draft.exists());
}

#[test]
fn shards_are_added_and_never_removed() {
    let mut manifest = two_shards();
    let before = manifest.clone();
    assert!(!manifest.extend_to(1).unwrap());
    assert_eq!(manifest, before);
    assert!(manifest.extend_to(3).unwrap());
    assert_eq!(manifest.shards[..2], before.shards[..]);
    assert_eq!(manifest.shards[2].file, "shard-002.db");
    assert_eq!(manifest.shards[2].state, ShardState::Creating);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let whole = text(&two_shards());
    assert!(Manifest::parse(whole.as_bytes()).is_ok());
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert_eq!(kind(&whole[..cut]), StoreErrorKind::Corrupt, "cut at {cut}");
    }
    assert_eq!(kind(&whole.replace("\"format\":1", "\"format\":0")), StoreErrorKind::Corrupt);
}

#[test]
fn a_manifest_of_a_newer_version_is_told_from_a_damaged_one() {
    assert_eq!(kind(r#"{"format": 2, "anything": []}"#), StoreErrorKind::NewerSchema);
}

#[test]
fn an_entry_can_name_no_file_but_its_own() {
    let whole = text(&two_shards());
    for file in ["../../etc/passwd", "/etc/passwd", "shard-000.db", "shard-1.db", ""] {
        let planted = whole.replace("shard-001.db", file);
        assert_eq!(kind(&planted), StoreErrorKind::Corrupt, "{file}");
    }
    let swapped = whole.replace("\"index\":1", "\"index\":5");
    assert_eq!(kind(&swapped), StoreErrorKind::Corrupt);
}

#[test]
fn two_shards_cannot_have_one_identity() {
    let mut manifest = two_shards();
    manifest.shards[1].uuid = manifest.shards[0].uuid.clone();
    assert_eq!(kind(&text(&manifest)), StoreErrorKind::Corrupt);
    manifest.shards[1].uuid = "not-hex".to_owned();
    assert_eq!(kind(&text(&manifest)), StoreErrorKind::Corrupt);
}
