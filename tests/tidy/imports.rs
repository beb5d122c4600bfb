// SPDX-License-Identifier: GPL-2.0-only
//! Which module of `src` uses which. Code for tests, from `#[cfg(test)]` to the end of a file, does not count, nor does
//! that a parent declares its children.

use std::collections::{BTreeMap, BTreeSet};

use super::files::File;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Each circle once, as `a -> b -> a`.
pub(crate) fn circles(files: &[File]) -> Vec<String> {
    let modules: BTreeMap<String, &File> = files.iter().filter_map(|file| Some((module(&file.path)?, file))).collect();
    let mut graph = Graph::new();
    for (name, file) in &modules {
        let mut used: BTreeSet<_> = paths(&file.text).iter().filter_map(|path| resolve(name, path, &modules)).collect();
        used.remove(name);
        graph.insert(name.clone(), used);
    }
    let mut found = BTreeSet::new();
    for name in graph.keys() {
        if let Some(mut circle) = way(&graph, name) {
            // The same circle, whichever of its modules it was found from.
            let least = circle.iter().enumerate().min_by_key(|(_, module)| *module).map_or(0, |(index, _)| index);
            circle.rotate_left(least);
            circle.push(circle[0].clone());
            found.insert(circle.join(" -> "));
        }
    }
    found.into_iter().collect()
}

/// `src/ffi/host.rs` is `ffi::host`, `src/ffi/mod.rs` is `ffi`; the crate's own module is no target of imports.
fn module(path: &str) -> Option<String> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path != "lib").then(|| path.replace('/', "::"))
}

/// The paths in a file that lead into the crate, with braces expanded: `crate::a::b`, `super::c`.
fn paths(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let in_path = code[..at].ends_with(|before: char| before.is_alphanumeric() || "_:$".contains(before));
            // `super::super::x` is found at its beginning.
            if !in_path {
                expand("", &code[at..], &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a list of them in braces; returns what follows it.
fn expand<'a>(prefix: &str, code: &'a str, found: &mut Vec<String>) -> &'a str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let code = code.trim_start();
    let end = code.find(|c| !is_part(c)).unwrap_or(code.len());
    let path = format!("{prefix}{}", &code[..end]);
    let rest = &code[end..];
    let Some(mut list) = rest.strip_prefix('{').filter(|_| path.ends_with("::")) else {
        found.push(path);
        return rest;
    };
    loop {
        list = list.trim_start();
        if let Some(after) = list.strip_prefix('}') {
            return after;
        }
        list = expand(&path, list, found);
        // An alias, and the comma.
        let end = list.find([',', '}']).unwrap_or(list.len());
        list = list[end..].strip_prefix(',').unwrap_or(&list[end..]);
        if list.is_empty() {
            return list;
        }
    }
}

/// The module that a path in another module leads to.
fn resolve(from: &str, path: &str, modules: &BTreeMap<String, &File>) -> Option<String> {
    let mut base: Vec<&str> = from.split("::").collect();
    let mut parts = path.split("::").peekable();
    if parts.next_if_eq(&"crate").is_some() {
        base.clear();
    }
    parts.next_if_eq(&"self");
    while parts.next_if_eq(&"super").is_some() {
        base.pop();
    }
    base.extend(parts.filter(|part| !part.is_empty()));
    (1..=base.len()).rev().map(|length| base[..length].join("::")).find(|module| modules.contains_key(module))
}

/// The shortest way from a module back to itself, without its end.
fn way(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in graph.get(&way[way.len() - 1]).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
