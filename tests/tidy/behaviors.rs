// SPDX-License-Identifier: GPL-2.0-only
//! The behaviors B-01, B-02 … of `docs/behaviour.md`, and the tests that prove them.
//!
//! A C test names its behavior in the first comment of its file, a test in a real QEMU in a comment or text of the
//! harness, and a Rust test at the start of its doc comment. The page lists the tests of a behavior in the paragraph
//! **Tests:**.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{File, Kind};

const PAGE: &str = "docs/behaviour.md";

/// Numbers of behaviors that a text names: "B-05".
fn numbers(text: &str) -> Vec<&str> {
    let number = |(at, _): (usize, &str)| {
        let number = text.get(at..at + 4)?;
        let follows = text[at + 4..].starts_with(|next: char| next.is_ascii_alphanumeric());
        let precedes = text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '-');
        (number[2..].bytes().all(|byte| byte.is_ascii_digit()) && !follows && !precedes).then_some(number)
    };
    text.match_indices("B-").filter_map(number).collect()
}

/// A behavior's section of the page.
struct Section<'a> {
    line: usize,
    text: Vec<(usize, &'a str)>,
}

fn sections(files: &[File]) -> BTreeMap<&str, Section<'_>> {
    let page = files.iter().find(|file| file.path == PAGE).unwrap_or_else(|| panic!("there is no {PAGE}"));
    let mut sections = BTreeMap::new();
    let mut current = None;
    for (number, line) in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            current = numbers(heading).first().copied();
            if let Some(name) = current {
                sections.insert(name, Section { line: number, text: Vec::new() });
            }
        }
        if let Some(section) = current.and_then(|name| sections.get_mut(name)) {
            section.text.push((number, line));
        }
    }
    assert!(!sections.is_empty(), "{PAGE} has no behaviors");
    sections
}

struct Test<'a> {
    name: &'a str,
    file: &'a File,
    line: usize,
    /// The behaviors that it proves.
    proves: Vec<&'a str>,
}

/// All tests in Rust.
fn rust_tests(files: &[File]) -> Vec<Test<'_>> {
    let mut tests = Vec::new();
    for file in files.iter().filter(|file| file.kind == Kind::Rust) {
        let (mut proves, mut first, mut is_test) = (Vec::new(), 0, false);
        for (number, line) in file.lines() {
            let line = line.trim_start();
            if let Some(comment) = line.strip_prefix("/// ") {
                first = if first == 0 { number } else { first };
                proves.extend(numbers(comment));
            } else if line.starts_with("#[") {
                is_test |= line == "#[test]";
            } else {
                if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                    let line = if first == 0 { number } else { first };
                    let proves = std::mem::take(&mut proves);
                    tests.extend(is_test.then_some(Test { name, file, line, proves }));
                }
                (proves, first, is_test) = (Vec::new(), 0, false);
            }
        }
    }
    tests
}

/// The programs of `c-tests/tests`, which are in C or Python; the first comment is before the first empty line.
fn c_tests(files: &[File]) -> Vec<Test<'_>> {
    let tests = files.iter().filter_map(|file| {
        let name = file.path.strip_prefix("c-tests/tests/")?.split('.').next()?;
        let head = file.lines().take_while(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let proves = head.flat_map(|(_, line)| numbers(line)).collect();
        matches!(file.kind, Kind::C | Kind::Python).then_some(Test { name, file, line: 1, proves })
    });
    tests.collect()
}

fn qemu_harness(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.path.starts_with("hosts/qemu/") && file.kind == Kind::Python)
}

pub(crate) fn untested(files: &[File]) -> Vec<String> {
    let proved = |tests: &[Test]| tests.iter().flat_map(|test| test.proves.clone()).map(str::to_owned).collect();
    let rust: BTreeSet<String> = proved(&rust_tests(files));
    let mut c: BTreeSet<String> = proved(&c_tests(files));
    c.extend(qemu_harness(files).flat_map(|file| numbers(&file.text)).map(str::to_owned));
    let mut found = Vec::new();
    for (name, section) in sections(files) {
        for (language, tests) in [("C or QEMU", &c), ("Rust", &rust)] {
            if !tests.contains(name) {
                found.push(format!("{PAGE}:{}: {name} has no test in {language}", section.line));
            }
        }
    }
    found
}

pub(crate) fn dangling(files: &[File]) -> Vec<String> {
    let sections = sections(files);
    let (rust, c) = (rust_tests(files), c_tests(files));
    let mut found = Vec::new();
    // Numbers that are no behavior. This checker has made-up ones.
    for file in files.iter().filter(|file| file.kind != Kind::Other && !file.path.starts_with("tests/tidy")) {
        for (line, text) in file.lines() {
            let unknown = numbers(text).into_iter().filter(|name| !sections.contains_key(name));
            found.extend(unknown.map(|name| file.at(line, &format!("there is no behavior {name}"))));
        }
    }
    for (name, section) in &sections {
        let listed = listed(section);
        for (line, test) in &listed {
            let known = if test.contains(' ') {
                qemu_harness(files).any(|file| file.text.contains(test))
            } else {
                rust.iter().chain(&c).any(|known| known.name == *test)
            };
            if !known {
                found.push(format!("{PAGE}:{line}: there is no test {test}"));
            }
        }
        for test in rust.iter().chain(&c).filter(|test| test.proves.contains(name)) {
            if !listed.iter().any(|(_, listed)| *listed == test.name) {
                found.push(test.file.at(test.line, &format!("{PAGE} does not list {} for {name}", test.name)));
            }
        }
    }
    found
}

/// The names in backticks of a section's paragraph **Tests:**, but for paths, which are checked as all paths are.
fn listed<'a>(section: &Section<'a>) -> Vec<(usize, &'a str)> {
    let lines = section.text.iter().skip_while(|(_, line)| !line.contains("**Tests:**"));
    let lines = lines.take_while(|(_, line)| !line.trim().is_empty());
    let names = lines.flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |name| (*number, name)));
    names.filter(|(_, name)| !name.contains('/')).collect()
}
