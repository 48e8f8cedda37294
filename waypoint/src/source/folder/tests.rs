//! Folders as people write them, and what changes when they do.

use super::*;

const CLUSTER: &str = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "NAME", "connect_timeout": "1s"}"#;

struct Place {
    folder: tempfile::TempDir,
    look: Folder,
    /// Seconds by which the next file is newer, so that no clock is waited for.
    age: u64,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let look = Folder::new(folder.path());
        Self {
            folder,
            look,
            age: 0,
        }
    }

    fn write(&mut self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        self.age += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + self.age);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    /// What has changed: `+name`, `-name`, or what is wrong.
    fn look(&mut self) -> Vec<String> {
        let (changes, errors) = self.look.look();
        let mut told = Vec::new();
        for change in changes {
            told.extend(
                change
                    .updated
                    .iter()
                    .map(|update| format!("+{}", update.name)),
            );
            told.extend(change.removed.iter().map(|name| format!("-{name}")));
        }
        told.extend(errors.iter().map(ToString::to_string));
        told
    }
}

fn cluster(name: &str) -> String {
    CLUSTER.replace("NAME", name)
}

#[test]
fn one_resource_a_list_or_a_list_under_resources_in_json_or_yaml() {
    let mut place = Place::new();
    place.write("one.json", &cluster("one"));
    place.write(
        "list.json",
        &format!("[{}, {}]", cluster("two"), cluster("three")),
    );
    place.write(
        "all.yaml",
        "resources:\n- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: four\n---\n'@type': type.googleapis.com/istio.workload.Workload\nuid: Kubernetes//Pod/a/five\nname: five\n",
    );
    place.write("notes.txt", "not ours");
    let (changes, errors) = place.look.look();
    assert!(errors.is_empty(), "{errors:?}");
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, Kind::ALL, "the first look tells of every kind");
    let names = |kind: Kind| -> Vec<_> {
        let of = changes.iter().filter(|change| change.kind == kind);
        let updated = of.flat_map(|change| &change.updated);
        updated.map(|update| update.name.to_string()).collect()
    };
    assert_eq!(names(Kind::Cluster), ["one", "three", "two"]);
    assert_eq!(names(Kind::Endpoints), ["four"]);
    assert_eq!(names(Kind::Workload), ["Kubernetes//Pod/a/five"]);
    assert!(place.look().is_empty(), "nothing has changed since");
}

#[test]
fn only_what_changed_is_told() {
    let mut place = Place::new();
    place.write(
        "a.json",
        &format!("[{}, {}]", cluster("one"), cluster("two")),
    );
    place.look();
    let other = cluster("two").replace("1s", "2s");
    place.write("a.json", &format!("[{}, {other}]", cluster("one")));
    assert_eq!(place.look(), ["+two"]);
    place.write("a.json", &cluster("one"));
    assert_eq!(place.look(), ["-two"]);
    place.write("b.json", &cluster("one"));
    std::fs::remove_file(place.folder.path().join("a.json")).unwrap();
    assert!(place.look().is_empty(), "moved to another file");
    std::fs::remove_file(place.folder.path().join("b.json")).unwrap();
    assert_eq!(place.look(), ["-one"]);
}

#[test]
fn a_bad_file_is_named_once_and_its_last_good_contents_stay() {
    let mut place = Place::new();
    place.write("a.json", &cluster("one"));
    place.write("b.json", &cluster("two"));
    place.look();
    let bad = [
        ("{", "EOF while parsing"),
        ("3", "neither a resource nor a list"),
        (r#"{"resources": {}}"#, "\"resources\" is no list"),
        (r#"{"name": "one"}"#, "no \"@type\""),
        (
            &cluster("one").replace("connect_timeout", "connect_time"),
            "connect_time",
        ),
        (&cluster(""), "a Cluster without a name"),
        (
            r#"{"@type": "type.googleapis.com/envoy.config.core.v3.Node", "id": "a"}"#,
            "envoy.config.core.v3.Node is no listener",
        ),
    ];
    for (text, wrong) in bad {
        place.write("a.json", text);
        let told = place.look();
        let [told] = told.as_slice() else {
            panic!("{text}: {told:?}");
        };
        assert!(told.contains("a.json") && told.contains(wrong), "{told}");
        assert!(place.look().is_empty(), "said once");
    }
    place.write("a.json", &cluster("three"));
    assert_eq!(place.look(), ["+three", "-one"]);
}

#[test]
fn a_folder_that_has_gone_changes_nothing() {
    let mut place = Place::new();
    place.write("a.json", &cluster("one"));
    place.look();
    let away = tempfile::tempdir().unwrap();
    let moved = away.path().join("moved");
    std::fs::rename(place.folder.path(), &moved).unwrap();
    let told = place.look();
    assert!(
        told.len() == 1 && told[0].contains("No such file"),
        "{told:?}"
    );
    std::fs::rename(&moved, place.folder.path()).unwrap();
    assert!(place.look().is_empty());
}
