//! docs/envoy-support.md says what the code does: its last part is the table from which the code
//! decides, and the table has exactly the fields about which the code asks.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where what it reads is not there"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use waypoint::intake::served::{Decision, TABLE};

/// The part of the document before what is made.
const MARK: &str = "<!-- table -->\n";

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/envoy-support.md")
}

/// The table as the document has it.
fn table() -> String {
    let mut text = String::new();
    for (title, rows) in TABLE {
        writeln!(
            text,
            "\n### {title}\n\n| field | decision | reason |\n|---|---|---|"
        )
        .unwrap();
        for (decision, message, fields, reason) in *rows {
            let decision = match decision {
                Decision::Ignored => "ignored",
                Decision::Counted => "counted",
                Decision::Refused => "refused",
            };
            let fields = fields.iter().map(|field| format!("`{message}.{field}`"));
            let fields = fields.collect::<Vec<_>>().join(", ");
            writeln!(text, "| {fields} | {decision} | {reason} |").unwrap();
        }
    }
    text
}

#[test]
fn the_document_has_the_table() {
    let path = document();
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, found) = text.split_once(MARK).unwrap();
    let table = table();
    if std::env::var_os("CULVERT_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{MARK}{table}")).unwrap();
        return;
    }
    assert!(
        found == table,
        "docs/envoy-support.md is behind the table: run this test with CULVERT_WRITE_DOCS=1"
    );
}

/// Every file of the intake.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The fields about which the code asks: `unserved!(notes, "Message": field, …)`, and
/// `notes.field("Message", "field", …)`.
fn asked() -> BTreeSet<String> {
    let mut texts = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/intake"),
        &mut texts,
    );
    let mut asked = BTreeSet::new();
    for text in texts {
        // What is told of the macro and of the method, and their own tests, ask about nothing.
        if text.contains("macro_rules! unserved") {
            continue;
        }
        for call in text.split("unserved!(").skip(1) {
            let call = &call[..call.find(')').unwrap()];
            let (_, rest) = call.split_once('"').unwrap();
            let (message, fields) = rest.split_once("\":").unwrap();
            for field in fields
                .split(',')
                .map(str::trim)
                .filter(|field| !field.is_empty())
            {
                asked.insert(format!("{message}.{}", field.trim_start_matches("r#")));
            }
        }
        for call in text.split(".field(").skip(1) {
            let mut words = call.split('"');
            if let (Some(_), Some(message), Some(", "), Some(field)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                asked.insert(format!("{message}.{field}"));
            }
        }
    }
    asked
}

#[test]
fn the_table_has_the_fields_about_which_the_code_asks() {
    let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter());
    let known: BTreeSet<String> = rows
        .flat_map(|(_, message, fields, _)| {
            fields.iter().map(move |field| format!("{message}.{field}"))
        })
        .collect();
    let asked = asked();
    assert!(asked.len() > 100, "the sources weren't read: {asked:?}");
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "the table says nothing of {unknown:?}");
    let unused: Vec<_> = known.difference(&asked).collect();
    assert!(unused.is_empty(), "the code never asks about {unused:?}");
}
