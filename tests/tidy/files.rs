// SPDX-License-Identifier: GPL-2.0-only
//! The project's files, whether there is a Git repository or only an unpacked release.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    C,
    Python,
    Shell,
    Makefile,
    /// Everything else that people write and that has comments, for example `meson.build` and `Cargo.toml`.
    Config,
    Markdown,
    /// Not written by people of this project, or not text.
    Other,
}

pub(crate) struct File {
    /// Relative to the project's folder.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

impl File {
    pub(crate) fn new(path: &str, text: String) -> File {
        File { path: path.to_owned(), kind: kind(path, &text), text }
    }

    /// The lines with their numbers, which start at 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.split_terminator('\n').enumerate().map(|(index, line)| (index + 1, line))
    }

    /// A finding in this file.
    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn kind(path: &str, text: &str) -> Kind {
    let name = path.rsplit('/').next().unwrap_or_default();
    let interpreter = text.lines().next().filter(|line| line.starts_with("#!")).unwrap_or_default();
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => Kind::Rust,
        Some("c" | "h" | "cpp") => Kind::C,
        Some("py") => Kind::Python,
        Some("sh") => Kind::Shell,
        Some("md") => Kind::Markdown,
        Some("toml" | "build" | "yml" | "yaml" | "map" | "spec" | "1" | "in") => Kind::Config,
        _ if name == "Makefile" || interpreter.contains("make") => Kind::Makefile,
        _ if interpreter.contains("python") => Kind::Python,
        _ if interpreter.ends_with("sh") => Kind::Shell,
        _ if name == "meson_options.txt" => Kind::Config,
        _ => Kind::Other,
    }
}

/// All files that are not ignored by Git.
pub(crate) fn all() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let mut ignored: Vec<_> = ignored.lines().map(|line| line.trim_matches('/').to_owned()).collect();
    ignored.push(".git".to_owned());
    let mut files = Vec::new();
    walk(root, "", &ignored, &mut files);
    assert!(files.len() > 100, "the project's files are not in {}", root.display());
    files
}

fn walk(root: &Path, folder: &str, ignored: &[String], files: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_ignored = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start) && folder.is_empty() || path.starts_with(start),
            None => name == *pattern || path == *pattern,
        };
        let kind = entry.file_type().unwrap();
        if ignored.iter().any(is_ignored) || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            if is_made(&entry.path()) {
                continue;
            }
            walk(root, &path, ignored, files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(File::new(&path, text));
        }
    }
}

/// Whether cargo or meson builds in this folder.
fn is_made(folder: &Path) -> bool {
    ["CACHEDIR.TAG", "meson-private"].iter().any(|mark| folder.join(mark).exists())
}

#[track_caller]
pub(crate) fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
