// SPDX-License-Identifier: GPL-2.0-only
//! What is written about the options agrees with `src/settings.rs`: the header's comments and the table of the
//! documentation.

use std::fs;
use std::path::{Path, PathBuf};

use blkmig::settings::{OPTIONS, OptionInfo};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The comment before a field of `BlkMigOptions`, in one line.
fn header_comment(header: &str, field: &str) -> String {
    let body = header.split("typedef struct BlkMigOptions {").nth(1).expect("the header has the struct");
    let before = body.split(&format!("uint32_t {field};")).next().expect("a split has a start");
    assert_ne!(before, body, "BlkMigOptions has no field {field}");
    let comment = before.rsplit("/**").next().expect("a split has an end");
    comment.lines().map(|line| line.trim().trim_start_matches('*').trim()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_header_says_the_defaults_and_bounds() {
    let header = fs::read_to_string(root().join("include/blkmig.h")).unwrap();
    for OptionInfo { name, default, most } in OPTIONS {
        let comment = header_comment(&header, name);
        let said = if most == 1 { "0 or 1.".to_owned() } else { format!("default {default}, at most {most}.") };
        assert!(comment.contains(&said), "the comment of {name} does not say {said:?}: {comment}");
    }
}

#[test]
fn the_fields_of_the_c_struct_are_the_options_in_order() {
    let header = fs::read_to_string(root().join("include/blkmig.h")).unwrap();
    let body = header.split("typedef struct BlkMigOptions {").nth(1).expect("the header has the struct");
    let body = body.split('}').next().expect("a split has a start");
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("uint32_t ")?.strip_suffix(';'));
    assert_eq!(fields.collect::<Vec<_>>(), OPTIONS.map(|option| option.name));
}

#[test]
fn one_table_of_the_documentation_has_them_with_their_defaults() {
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    for OptionInfo { name, default, .. } in OPTIONS {
        let row = format!("| `{name}` | ");
        let rows: Vec<String> = pages
            .iter()
            .flat_map(|page| fs::read_to_string(page).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.starts_with(&row))
            .collect();
        assert_eq!(rows.len(), 1, "{name} is in {} tables", rows.len());
        assert!(rows[0].starts_with(&format!("{row}{default} | ")), "the default of {name} is {default}: {}", rows[0]);
    }
}
