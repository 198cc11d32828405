//! The files of a commit: read from the archive that git made of it, held to what a workspace may
//! be, rendered.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use serde_json::Value;
use tar::EntryType;

use super::{FOLDER, InitialError, RESERVED};
use crate::error::{Error, Result};
use crate::ident::PlainFiles;
use crate::templates::render_now;

/// Most files.
const MOST_FILES: usize = 2_000;
/// Most bytes of all files together.
const MOST_BYTES: u64 = 32 << 20;

/// A file of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Below the workspace: plain names, `/` between them.
    pub path: String,
    /// Whether it may be executed.
    pub is_executable: bool,
    /// What is in it.
    pub content: Vec<u8>,
}

/// The files below `workspace/`, by path. Blocks.
pub(super) fn read(archive: &Path) -> Result<Vec<TreeFile>> {
    let failed = |e| Error::io("read the repository's files", e);
    let mut archive = tar::Archive::new(File::open(archive).map_err(failed)?);
    let (mut files, mut names, mut bytes) = (Vec::new(), PlainFiles::default(), 0);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::Directory) {
            continue;
        }
        let name = entry.path().map_err(failed)?.into_owned();
        let shown = crate::ident::printable(&name.to_string_lossy(), 120);
        if kind != EntryType::Regular {
            return Err(InitialError::invalid(format!("`{shown}` is a link, or no file")).into());
        }
        let path = name
            .strip_prefix(FOLDER)
            .ok()
            .and_then(plain)
            .ok_or_else(|| InitialError::invalid(format!("`{shown}` is no plain name")))?;
        if is_reserved(&path) {
            return Err(InitialError::invalid(format!("`{path}` is what Agnes writes itself")).into());
        }
        if !names.take_any(&path) {
            let reason = format!("`{path}` is in it twice where capitals are not told apart, or a file and a folder");
            return Err(InitialError::invalid(reason).into());
        }
        bytes += entry.size();
        if bytes > MOST_BYTES || files.len() == MOST_FILES {
            return Err(InitialError::invalid("it has more than 2000 files, or more than 32 MiB").into());
        }
        let is_executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(failed)?;
        files.push(TreeFile { path, is_executable, content });
    }
    if files.is_empty() {
        return Err(InitialError::invalid("its folder `workspace/` is empty").into());
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// A name of plain pieces, `/` between them.
pub(crate) fn plain(name: &Path) -> Option<String> {
    let mut pieces = Vec::new();
    for piece in name.components() {
        let Component::Normal(piece) = piece else { return None };
        let piece = piece.to_str().filter(|piece| !piece.chars().any(|c| c.is_control() || matches!(c, '\\' | ':')))?;
        pieces.push(piece);
    }
    (!pieces.is_empty()).then(|| pieces.join("/"))
}

/// What Agnes keeps in a workspace for itself. Some file systems do not tell capitals apart.
pub(crate) fn is_reserved(path: &str) -> bool {
    let path = path.to_lowercase();
    path == RESERVED || matches!(path.split('/').next(), Some(".agnes")) || path.split('/').any(|piece| piece == ".git")
}

/// The files with what the installation is called in them, and the Markdown files that are no
/// templates. Blocks.
pub(super) fn rendered(files: Vec<TreeFile>, values: &Value) -> (Vec<TreeFile>, Vec<String>) {
    let mut unrendered = Vec::new();
    let render = |mut file: TreeFile| {
        let text = std::str::from_utf8(&file.content).ok().filter(|text| text.contains("{{") || text.contains("{%"));
        if let Some(text) = text.filter(|_| file.path.to_lowercase().ends_with(".md")) {
            match render_now(text, values) {
                Ok(text) => file.content = text.into_bytes(),
                Err(_) => unrendered.push(file.path.clone()),
            }
        }
        file
    };
    let files = files.into_iter().map(render).collect();
    (files, unrendered)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn archive(folder: &Path, entries: &[(&str, EntryType, &str)]) -> std::path::PathBuf {
        let path = folder.join("tree.tar");
        let mut made = tar::Builder::new(File::create(&path).unwrap());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // As it stands: the builder itself refuses names that leave the folder.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            made.append(&header, content.as_bytes()).unwrap();
        }
        made.finish().unwrap();
        path
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let of = |entries: &[(&str, EntryType, &str)]| read(&archive(folder.path(), entries));
        let good = of(&[
            ("workspace/", EntryType::Directory, ""),
            ("workspace/b/run.sh", EntryType::Regular, "x"),
            ("workspace/CLAUDE.md", EntryType::Regular, "y"),
        ]);
        let names: Vec<String> = good.unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(names, ["CLAUDE.md", "b/run.sh"]);
        for (name, kind) in [
            ("workspace/a", EntryType::Symlink),
            ("workspace/a", EntryType::Link),
            ("workspace/a", EntryType::Fifo),
            ("workspace/../a", EntryType::Regular),
            ("/etc/passwd", EntryType::Regular),
            ("elsewhere/a", EntryType::Regular),
            ("workspace/a\\b", EntryType::Regular),
            ("workspace/c:a", EntryType::Regular),
            ("workspace/.claude/init-complete", EntryType::Regular),
            ("workspace/.claude/Init-Complete", EntryType::Regular),
            ("workspace/.agnes/sync_state.json", EntryType::Regular),
            ("workspace/.git/config", EntryType::Regular),
        ] {
            let told = of(&[("workspace/ok", EntryType::Regular, "x"), (name, kind, "")]).unwrap_err();
            assert_eq!(told.code(), "initial_workspace_invalid", "{name} {kind:?}: {told}");
        }
        assert_eq!(of(&[("workspace/", EntryType::Directory, "")]).unwrap_err().code(), "initial_workspace_invalid");
    }

    #[test]
    fn markdown_says_where_it_is_and_the_rest_stays() {
        let file = |path: &str, text: &str| TreeFile {
            path: path.to_owned(),
            is_executable: false,
            content: text.as_bytes().to_vec(),
        };
        let text = "{{ instance.name }} at {{ server.url }}";
        let files =
            vec![file("a.md", text), file("b.sql", text), file("c.md", "{{ ref('x') }}"), file("d.md", "plain")];
        let values = json!({"instance": {"name": "Acme"}, "server": {"url": "https://a"}});
        let (files, unrendered) = rendered(files, &values);
        let texts: Vec<&str> = files.iter().map(|file| std::str::from_utf8(&file.content).unwrap()).collect();
        assert_eq!(texts, ["Acme at https://a", text, "{{ ref('x') }}", "plain"]);
        assert_eq!(unrendered, ["c.md"]);
    }
}
