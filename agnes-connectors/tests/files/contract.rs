//! The contract of all connectors, for one file and for a folder of files.

use std::path::PathBuf;
use std::sync::Arc;

use agnes_core::connector::Connector;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::{Value, json};

struct Folder {
    root: tempfile::TempDir,
    many: bool,
}

impl Folder {
    fn new(many: bool) -> Self {
        let folder = Self { root: tempfile::tempdir().unwrap(), many };
        folder.put("01", "id,name\n1,a\n2,b\n");
        folder
    }

    fn put(&self, name: &str, text: &str) {
        let path: PathBuf = if self.many {
            self.root.path().join("sales").join(format!("{name}.csv"))
        } else {
            self.root.path().join("sales.csv")
        };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn files() -> Arc<dyn Connector> {
    agnes_connectors::builtin().get("files").unwrap()
}

impl ConnectorFixture for Folder {
    fn connector(&self) -> Arc<dyn Connector> {
        files()
    }
    fn config(&self) -> Value {
        json!({ "path": self.root.path() })
    }
    fn rows(&self) -> u64 {
        2
    }
    fn grow(&self) -> u64 {
        if self.many {
            self.put("02", "id,name\n3,c\n");
        } else {
            self.put("01", "id,name\n1,a\n2,b\n3,c\n");
        }
        3
    }
    fn empty(&self) {
        self.put("01", "id,name\n");
    }
    fn columns(&self) -> Vec<(String, String)> {
        [("id", "BIGINT"), ("name", "VARCHAR")].map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.put("01", "id,name,colour\n1,a,red\n2,b,blue\n");
        Some("colour".to_owned())
    }
    fn take_down(&self) -> bool {
        std::fs::rename(self.root.path(), self.root.path().with_extension("away")).is_ok()
    }
    fn bring_up(&self) {
        std::fs::rename(self.root.path().with_extension("away"), self.root.path()).unwrap();
    }
}

agnes_core::connector_suite!(one_file, Some(super::Folder::new(false)), super::files());
agnes_core::connector_suite!(many_files, Some(super::Folder::new(true)), super::files());
