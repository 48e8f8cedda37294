//! A file of a folder of resources, as a person might write it: read or refused by name.

use waypoint::source::folder::Folder;

/// The whole input is the file; JSON where it begins so, YAML otherwise.
pub fn check(bytes: &[u8]) {
    let json = matches!(bytes.first(), Some(b'{' | b'['));
    let file = if json { "r.json" } else { "r.yaml" };
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    if std::fs::write(folder.path().join(file), bytes).is_err() {
        return;
    }
    let (changes, errors) = Folder::new(folder.path()).look();
    for error in &errors {
        let text = error.to_string();
        assert!(text.contains(file), "{text}: which file?");
    }
    let taken: usize = changes.iter().map(|change| change.updated.len()).sum();
    assert!(errors.is_empty() || taken == 0, "half a file was taken");
    for change in changes {
        for update in change.updated {
            assert!(!update.name.is_empty(), "a resource without a name");
        }
    }
}
