// SPDX-License-Identifier: GPL-2.0-only
//! Links and paths in the documentation, and references to things that a reader of the repository does not have.

use std::collections::BTreeSet;

use super::files::{File, Kind};

/// Files that may name what is outside the repository, with the reason.
const OUTSIDE_EXCEPT: &[(&str, &str)] = &[(".ci/run", "the default place of the original file, which is optional")];

/// What a path may lead to.
struct Tree<'a> {
    files: BTreeSet<&'a str>,
    folders: BTreeSet<String>,
}

impl Tree<'_> {
    fn new(files: &[File]) -> Tree<'_> {
        let mut folders = BTreeSet::from([String::new()]);
        for file in files {
            for (at, _) in file.path.match_indices('/') {
                folders.insert(file.path[..at].to_owned());
            }
        }
        Tree { files: files.iter().map(|file| file.path.as_str()).collect(), folders }
    }

    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        match path.split_once('*') {
            Some((start, end)) => self.files.iter().any(|file| file.starts_with(start) && file.ends_with(end)),
            None => self.files.contains(path) || self.folders.contains(path),
        }
    }
}

/// `docs` and `../src/lib.rs` make `src/lib.rs`. `None` if that is outside the repository.
fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(crate) fn dead(files: &[File]) -> Vec<String> {
    let tree = Tree::new(files);
    let mut found = Vec::new();
    for page in files.iter().filter(|file| file.kind == Kind::Markdown) {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in page.lines() {
            for link in links(line).filter(|link| !leads_to(files, &tree, page, folder, link)) {
                found.push(page.at(number, &format!("{link} does not exist")));
            }
            for path in paths(line) {
                // Relative to the project or to the page. If neither has its first folder, it is of something else.
                let places: Vec<_> = ["", folder].iter().filter_map(|from| join(from, path)).collect();
                let ours = |place: &String| tree.has(place.split('/').next().unwrap_or_default());
                let first = |from: &&&str| join(from, path.split('/').next().unwrap_or_default());
                let is_ours = places.iter().any(ours)
                    && ["", folder].iter().filter_map(|from| first(&from)).any(|place| tree.has(&place));
                if is_ours && !places.iter().any(|place| tree.has(place)) {
                    found.push(page.at(number, &format!("{path} does not exist")));
                }
            }
        }
    }
    found
}

/// Tests that the documentation has people run, by `--test PROGRAM` and perhaps a part of a test's name.
pub(crate) fn dead_tests(files: &[File]) -> Vec<String> {
    let is_program = |name: &str| {
        let places = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
        files.iter().any(|file| places.contains(&file.path))
    };
    let is_test = |name: &str| {
        let function = |line: &str| line.trim_start().strip_prefix("fn ").is_some_and(|rest| rest.contains(name));
        files.iter().any(|file| file.path.starts_with("tests/") && file.text.lines().any(function))
    };
    let mut found = Vec::new();
    for page in files.iter().filter(|file| file.kind == Kind::Markdown) {
        for (number, line) in page.lines() {
            for (at, option) in line.match_indices("--test ") {
                let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
                let command = line[at + option.len()..].split('`').next().unwrap_or_default();
                let mut words = command.split_whitespace().take_while(|word| word.chars().all(is_name));
                if let Some(program) = words.next().filter(|program| !is_program(program)) {
                    found.push(page.at(number, &format!("there is no tests/{program}.rs")));
                }
                if let Some(test) = words.next().filter(|test| !is_test(test)) {
                    found.push(page.at(number, &format!("there is no test {test}")));
                }
            }
        }
    }
    found
}

fn leads_to(files: &[File], tree: &Tree, page: &File, folder: &str, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let Some(path) = (if path.is_empty() { Some(page.path.clone()) } else { join(folder, path) }) else { return false };
    if !tree.has(&path) {
        return false;
    }
    let target = files.iter().find(|file| file.path == path && file.kind == Kind::Markdown);
    let Some((anchor, target)) = anchor.zip(target) else { return true };
    let headings =
        target.text.lines().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#')));
    headings.into_iter().any(|heading| heading == anchor)
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Targets of links, but for those to other sites. A target that is alone in its line has a link's text before it.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split([')', ' ']).next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// Paths in backticks: the first word of what is quoted, if it can be a path.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2).filter_map(|text| text.split_whitespace().next());
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-+*".contains(c);
    // NAME and the like stand for any.
    let is_any =
        |path: &str| path.split(['/', '.']).any(|part| part.len() > 1 && part.bytes().all(|b| b.is_ascii_uppercase()));
    quoted
        .filter(move |path| path.contains('/') && !path.starts_with('/') && path.chars().all(is_path) && !is_any(path))
}

pub(crate) fn outside(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    // This checker names what it looks for.
    let files = files.iter().filter(|file| file.kind != Kind::Other && !file.path.starts_with("tests/tidy"));
    for file in files.filter(|file| !OUTSIDE_EXCEPT.iter().any(|(path, _)| *path == file.path)) {
        for (number, line) in file.lines() {
            let lower = line.to_ascii_lowercase();
            let place = ["../shared", "/work/"].into_iter().find(|place| lower.contains(place)).map(str::to_owned);
            // Numbers in lists that readers do not have.
            let numbered = ["row", "issue"].into_iter().find_map(|word| numbered(&lower, word));
            found.extend(place.or(numbered).map(|what| file.at(number, &format!("{what} is outside the repository"))));
        }
    }
    found
}

/// "row 5" and the like: the word and a number.
fn numbered(line: &str, word: &str) -> Option<String> {
    line.match_indices(word).find_map(|(at, _)| {
        let starts = !line[..at].ends_with(|before: char| before.is_alphanumeric());
        let after = line[at + word.len()..].trim_start_matches([' ', '_', '-', '#']);
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        (starts && !digits.is_empty()).then(|| format!("{word} {digits}"))
    })
}
