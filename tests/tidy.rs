// SPDX-License-Identifier: GPL-2.0-only
//! The rules of `CONTRIBUTING.md` that a program can check, for every file of the project.
//!
//! Each test prints all that it finds, as `file:line: what is wrong`. An exception to a rule is a line in one of the
//! lists named `EXCEPT`, with its reason.

#[path = "tidy/behaviors.rs"]
mod behaviors;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/lengths.rs"]
mod lengths;
#[path = "tidy/links.rs"]
mod links;

use files::{File, Kind, all, assert_none};

/// Files that may lack the license line, with the reason.
const NO_LICENSE_LINE_EXCEPT: &[(&str, &str)] = &[
    ("Cargo.lock", "cargo writes it"),
    ("packaging/debian/changelog", "its format has no comments"),
    ("packaging/debian/source/format", "its format has no comments"),
];

#[test]
fn no_file_is_longer_than_500_lines() {
    assert_none(&lengths::files(&all()));
}

#[test]
fn no_function_is_longer_than_70_lines() {
    assert_none(&lengths::functions(&all()));
}

#[test]
fn no_line_is_too_long() {
    assert_none(&lengths::lines(&all()));
}

#[test]
fn no_line_has_tabs_or_trailing_blanks() {
    let mut found = Vec::new();
    for file in all().iter().filter(|file| file.kind != Kind::Other) {
        for (number, line) in file.lines() {
            if line.contains('\t') && file.kind != Kind::Makefile {
                found.push(file.at(number, "a tab"));
            }
            if line.ends_with([' ', '\t', '\r']) {
                found.push(file.at(number, "blanks at the end of the line"));
            }
        }
        if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
            found.push(file.at(file.text.lines().count(), "the file must end with exactly one newline"));
        }
    }
    assert_none(&found);
}

#[test]
fn every_source_file_has_the_license_line() {
    let line = ["SPDX-License-", "Identifier: GPL-2.0-only"].concat();
    let missing = |file: &&File| !file.text.lines().take(6).any(|head| head.contains(&line));
    let files = all();
    let found = files
        .iter()
        .filter(|file| !matches!(file.kind, Kind::Markdown | Kind::Other))
        .filter(|file| !NO_LICENSE_LINE_EXCEPT.iter().any(|(path, _)| *path == file.path))
        .filter(missing)
        .map(|file| file.at(1, "no license line"));
    assert_none(&found.collect::<Vec<_>>());
}

/// Unsafe code is confined to the C interface and the buffers, whose memory the host's threads write to.
#[test]
fn unsafe_code_is_forbidden_outside_the_c_interface_and_the_buffers() {
    let files = all();
    let may_be_unsafe = |path: &str| path.starts_with("src/ffi/") || path == "src/buffers.rs";
    let found = files
        .iter()
        // An attribute of the crate would apply to the C interface, too.
        .filter(|file| file.path.starts_with("src/") && file.kind == Kind::Rust && file.path != "src/lib.rs")
        .filter(|file| !may_be_unsafe(&file.path))
        .filter(|file| {
            let code = |line: &&str| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#![");
            let head = file.text.lines().take_while(|line| !code(line));
            !head.into_iter().any(|line| line == "#![forbid(unsafe_code)]")
        })
        .map(|file| file.at(1, "no #![forbid(unsafe_code)] at the head"));
    assert_none(&found.collect::<Vec<_>>());
}

#[test]
fn modules_do_not_import_each_other_in_circles() {
    assert_none(&imports::circles(&all()));
}

#[test]
fn every_behavior_has_a_test_in_c_and_in_rust() {
    assert_none(&behaviors::untested(&all()));
}

#[test]
fn the_list_of_behaviors_and_the_tests_name_each_other() {
    assert_none(&behaviors::dangling(&all()));
}

#[test]
fn links_and_paths_in_the_documentation_lead_somewhere() {
    assert_none(&links::dead(&all()));
}

#[test]
fn tests_that_the_documentation_runs_exist() {
    assert_none(&links::dead_tests(&all()));
}

#[test]
fn nothing_refers_to_what_is_outside_the_repository() {
    assert_none(&links::outside(&all()));
}

/// The checks themselves, on made-up files.
mod self_test {
    use super::files::{File, Kind};
    use super::{behaviors, imports, lengths, links};

    fn file(path: &str, text: &str) -> File {
        File::new(path, text.to_owned())
    }

    #[track_caller]
    fn one(found: &[String], start: &str) {
        assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn lengths_are_measured_in_each_language() {
        let body = "    x;\n".repeat(69);
        for (path, text) in [
            ("a.rs", format!("fn f(\n    a: u8,\n) {{\n{body}}}\n")),
            ("a.c", format!("int f(void)\n{{\n{body}}}\n")),
            ("a.h", format!("static inline int f(void) {{\n{body}x;\n}}\n")),
            ("a.py", format!("def f(a,\n      b):\n{body}\n\ng()\n")),
            ("a.sh", format!("f() {{\n{body}x\n}}\n")),
        ] {
            let long = [file(path, &text)];
            one(&lengths::functions(&long), &format!("{path}:1: function f has 7"));
            let short = [file(path, &text.replacen("    x;\n", "", 4))];
            assert_eq!(lengths::functions(&short), [] as [String; 0], "{path}");
        }
        one(&lengths::files(&[file("a.c", &"x;\n".repeat(501))]), "a.c:1: 501 lines");
        one(&lengths::lines(&[file("a.c", &"x".repeat(121))]), "a.c:1: 121 columns");
        let prose = "word ".repeat(21);
        one(&lengths::lines(&[file("a.md", &prose)]), "a.md:1: 105 columns");
        let not_prose = format!("| {prose} |\n\n    {prose}\n\n```\n{prose}\n```\n{}\n", "x".repeat(101));
        assert_eq!(lengths::lines(&[file("a.md", &not_prose)]), [] as [String; 0]);
    }

    #[test]
    fn circles_of_imports_are_found() {
        let lib = file("src/lib.rs", "mod a;\nmod b;\nmod c;\n");
        let a = file("src/a.rs", "use crate::{b::B, c};\n");
        let c = file("src/c/mod.rs", "mod d;\nfn f() {}\n");
        let d = file("src/c/d.rs", "fn f() { crate::b::f() }\n// crate::a\n#[cfg(test)]\nuse crate::a;\n");
        let straight = [lib, a, file("src/b.rs", "use std::rc::Rc;\n"), c, d];
        assert_eq!(imports::circles(&straight), [] as [String; 0]);
        let [lib, a, _, c, d] = straight;
        let b = file("src/b.rs", "pub fn g() -> super::a::A {}\n");
        one(&imports::circles(&[lib, a, b, c, d]), "a -> b -> a");
    }

    #[test]
    fn behaviors_without_tests_and_tests_without_behaviors_are_found() {
        let doc =
            "## B-01: x\n\n- **Tests:** in C [`x`](../c-tests/tests/x.c);\n  in Rust `y` ([z.rs](../tests/z.rs)).\n";
        let c = "/* SPDX */\n/* B-01: x */\n";
        let rust = "/// B-01: y\n#[test]\nfn y() {}\n";
        let files = |doc: &str, c: &str, rust: &str| {
            [file("docs/behaviour.md", doc), file("c-tests/tests/x.c", c), file("tests/z.rs", rust)]
        };
        let good = files(doc, c, rust);
        assert_eq!(behaviors::untested(&good), [] as [String; 0]);
        assert_eq!(behaviors::dangling(&good), [] as [String; 0]);
        one(&behaviors::untested(&files(doc, "/* */", rust)), "docs/behaviour.md:1: B-01 has no test in C");
        one(&behaviors::untested(&files(doc, c, "fn y() {}")), "docs/behaviour.md:1: B-01 has no test in Rust");
        one(&behaviors::dangling(&files(&doc.replace("`y`", "`q`"), c, "")), "docs/behaviour.md:4: there is no test q");
        let other = format!("{rust}/// B-02: q\n#[test]\nfn q() {{}}\n");
        one(&behaviors::dangling(&files(doc, c, &other)), "tests/z.rs:4: there is no behavior B-02");
        let unlisted = rust.replace("fn y", "fn w");
        assert_eq!(behaviors::dangling(&files(doc, c, &unlisted)).len(), 2);
    }

    #[test]
    fn dead_links_and_references_to_the_outside_are_found() {
        let page = |text: &str| [file("docs/a.md", text), file("src/lib.rs", ""), file("docs/b.md", "# One `two`-3\n")];
        let good = "[b](b.md) [c](b.md#one-two-3) [d](https://e.org/f) `src/lib.rs` `src/*.rs` `make/x` ![s](../src)\n";
        assert_eq!(links::dead(&page(good)), [] as [String; 0]);
        one(&links::dead(&page("[x](c.md)")), "docs/a.md:1: c.md");
        one(&links::dead(&page("[x](b.md#two)")), "docs/a.md:1: b.md#two");
        one(&links::dead(&page("\n`src/main.rs --help`")), "docs/a.md:2: src/main.rs");
        let test = file("tests/z.rs", "fn one_and_two() {}\n");
        let files = |command: &str| [file("a.md", command), file("tests/z.rs", &test.text)];
        assert_eq!(links::dead_tests(&files("`cargo test --test z one_and -- x` or `--test NAME`")), [] as [String; 0]);
        one(&links::dead_tests(&files("run --test q")), "a.md:1: there is no tests/q.rs");
        one(&links::dead_tests(&files("run --test z three")), "a.md:1: there is no test three");
        for text in [["../", "shared/x"].concat(), ["see row", "_05"].concat(), ["as issue", " 7 says"].concat()] {
            one(&links::outside(&page(&text)), "docs/a.md:1: ");
        }
        assert_eq!(links::outside(&page("arrow 1, a tissue 2, issues")), [] as [String; 0]);
    }

    #[test]
    fn files_are_told_apart() {
        for (path, text, kind) in [
            ("scripts/x", "#!/bin/sh\n", Kind::Shell),
            ("x", "#!/usr/bin/env python3\n", Kind::Python),
            ("packaging/debian/rules", "#!/usr/bin/make -f\n", Kind::Makefile),
            ("a/meson.build", "", Kind::Config),
            ("LICENSE", "", Kind::Other),
        ] {
            assert_eq!(file(path, text).kind, kind, "{path}");
        }
    }
}
