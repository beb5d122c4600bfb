// SPDX-License-Identifier: GPL-2.0-only
//! Lengths of files, functions and lines. Functions are found by the layout that rustfmt and the C style give them.

use super::files::{File, Kind};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const CODE_COLUMNS: usize = 120;
const PROSE_COLUMNS: usize = 100;

/// Files that may be longer, with the reason.
const FILES_EXCEPT: &[(&str, &str)] = &[
    ("include/blkmig.h", "generated from src/ffi"),
    ("Cargo.lock", "cargo writes it"),
    ("hosts/reference/blkmig-hv.1", "a manual page is one file"),
];

pub(crate) fn files(files: &[File]) -> Vec<String> {
    let long = |file: &&File| !matches!(file.kind, Kind::Other) && file.text.lines().count() > FILE_LINES;
    files
        .iter()
        .filter(long)
        .filter(|file| !FILES_EXCEPT.iter().any(|(path, _)| *path == file.path))
        .map(|file| file.at(1, &format!("{} lines, at most {FILE_LINES}", file.text.lines().count())))
        .collect()
}

pub(crate) fn functions(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let lines: Vec<_> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let function = match file.kind {
                Kind::Rust => rust_function(&lines, index),
                Kind::C => c_function(&lines, index),
                Kind::Python => python_function(&lines, index),
                Kind::Shell => line.strip_suffix("() {").map(|name| (name.trim(), block_end(&lines, index))),
                _ => None,
            };
            if let Some((name, end)) = function.filter(|(_, end)| end - index + 1 > FUNCTION_LINES) {
                let length = end - index + 1;
                found
                    .push(file.at(index + 1, &format!("function {name} has {length} lines, at most {FUNCTION_LINES}")));
            }
        }
    }
    found
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The index of the line that closes what this one opens: the first with its indentation that starts with a brace.
fn block_end(lines: &[&str], start: usize) -> usize {
    let closes = |line: &&str| indent(line) == indent(lines[start]) && line.trim_start().starts_with('}');
    start + 1 + lines[start + 1..].iter().position(closes).unwrap_or(lines.len() - start - 1)
}

fn rust_function<'a>(lines: &[&'a str], index: usize) -> Option<(&'a str, usize)> {
    let line = lines[index].trim_start();
    let (before, after) = line.split_once("fn ")?;
    let is_qualifier = |word: &str| {
        matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "\"C-unwind\"") || word.starts_with("pub")
    };
    if !before.split_whitespace().all(is_qualifier) || line.ends_with([';', '}']) {
        return None;
    }
    Some((after.split(['(', '<']).next()?, block_end(lines, index)))
}

/// A definition starts in the first column; its body's brace is at the end of that line or alone in a following one.
fn c_function<'a>(lines: &[&'a str], index: usize) -> Option<(&'a str, usize)> {
    let line = lines[index];
    if !line.starts_with(|first: char| first.is_alphabetic() || first == '_') || line.contains('=') {
        return None;
    }
    let name = line.split('(').next()?.rsplit([' ', '*']).next()?;
    let body = (index..lines.len().min(index + 8)).find(|&at| lines[at].ends_with('{') || lines[at].ends_with(';'))?;
    let opens = lines[body] == "{" || lines[body].ends_with(") {");
    (line.contains('(') && opens).then(|| (name, block_end(lines, body)))
}

fn python_function<'a>(lines: &[&'a str], index: usize) -> Option<(&'a str, usize)> {
    let line = lines[index];
    let name = line.trim_start().strip_prefix("def ")?.split('(').next()?;
    let body = (index..lines.len()).find(|&at| lines[at].ends_with(':'))? + 1;
    let inside = |line: &&str| line.is_empty() || indent(line) > indent(lines[index]);
    let end = body + lines[body..].iter().take_while(|line| inside(line)).count();
    (body..end).rev().find(|&at| !lines[at].is_empty()).map(|last| (name, last))
}

pub(crate) fn lines(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.kind != Kind::Other && file.path != "Cargo.lock") {
        let most = if file.kind == Kind::Markdown { PROSE_COLUMNS } else { CODE_COLUMNS };
        let is_prose = prose(file);
        for (number, line) in file.lines() {
            let columns = line.chars().count();
            if columns > most && (file.kind != Kind::Markdown || is_prose[number - 1]) {
                found.push(file.at(number, &format!("{columns} columns, at most {most}")));
            }
        }
    }
    found
}

/// For each line whether it is prose that can be broken: no table, no code, and not one long word.
fn prose(file: &File) -> Vec<bool> {
    let (mut fenced, mut code, mut after_blank) = (false, false, true);
    let is_prose = |(_, line): (usize, &str)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        // Indented by four after an empty line, and so on until something is not indented.
        code = line.starts_with("    ") && (code || after_blank) || code && line.is_empty();
        after_blank = line.is_empty();
        let text = line.trim_start_matches(['-', '*', '#', '>', ' ']);
        !fenced && !fence && !code && !line.starts_with('|') && text.trim_end().contains(' ')
    };
    file.lines().map(is_prose).collect()
}
