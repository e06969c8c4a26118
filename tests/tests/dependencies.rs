//! The dependency rules of ARCHITECTURE.md, proved from `cargo metadata`: what must never reach what.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Name of every package, and the packages it reaches through normal dependencies, itself included.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    /// The graph of this workspace, as cargo resolved it.
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let names = metadata["packages"].as_array().expect("packages").iter();
        let names = names.map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes").iter();
        let edges = nodes.map(|node| {
            let normal = |dep: &&Value| {
                dep["dep_kinds"].as_array().expect("kinds").iter().any(|kind| kind["kind"].is_null())
            };
            let deps = node["deps"].as_array().expect("deps").iter().filter(normal);
            (text(&node["id"]), deps.map(|dep| text(&dep["pkg"])).collect())
        });
        Self { names, edges: edges.collect() }
    }

    /// Names of everything `package` reaches.
    fn reached_by(&self, package: &str) -> BTreeSet<&str> {
        let start = self.names.iter().find(|(_, name)| *name == package).expect("package exists").0;
        let mut seen = BTreeSet::from([start.as_str()]);
        let mut queue = vec![start.as_str()];
        while let Some(id) = queue.pop() {
            for next in &self.edges[id] {
                if seen.insert(next) {
                    queue.push(next);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn the_core_reaches_no_runtime_no_network_and_no_kubernetes_client() {
    let graph = Graph::load();
    for package in ["assay-core", "assay-shared"] {
        let reached = graph.reached_by(package);
        for banned in
            ["tokio", "kube", "quinn", "reqwest", "hyper", "rustls", "mio", "jiff", "chrono", "time"]
        {
            assert!(!reached.contains(banned), "{package} must not depend on {banned}");
        }
    }
}

#[test]
fn crates_depend_only_downwards() {
    let graph = Graph::load();
    let ours = |package: &str| {
        let mut reached: Vec<_> =
            graph.reached_by(package).into_iter().filter(|name| name.starts_with("assay-")).collect();
        reached.retain(|name| *name != package);
        reached
    };
    assert!(ours("assay-shared").is_empty());
    assert_eq!(ours("assay-core"), ["assay-shared"]);
    assert_eq!(ours("assay-agent"), ["assay-shared"]);
    assert_eq!(ours("assay-scheduler"), ["assay-agent", "assay-core", "assay-shared"]);
}

#[test]
fn there_is_one_crypto_provider() {
    // `cargo tree` resolves features for this platform; metadata would list ring, which quinn names for WebAssembly.
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--workspace",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let packages: BTreeSet<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(packages.contains("aws-lc-rs"));
    for banned in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(
            !packages.contains(banned),
            "{banned} is in the build; find it with `cargo tree --invert {banned}`"
        );
    }
}

/// Modules that are compiled for tests only: those may read the data they test with.
fn is_test_module(path: &std::path::Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "tests" | "testing" | "properties" | "plausible")
}

#[test]
fn the_core_reads_no_clock_no_environment_and_no_files() {
    const IMPURE: &[&str] = &[
        "Instant::now",
        "SystemTime::now",
        "SystemTime",
        "std::env",
        "std::fs",
        "std::net",
        "std::thread",
        "thread_rng",
        "rand::rng(",
    ];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../scheduler/core/src");
    let mut folders = vec![std::path::PathBuf::from(root)];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") && !is_test_module(&entry)
            {
                files += 1;
                let code = std::fs::read_to_string(&entry).expect("a source file");
                let code = code.split("#[cfg(test)]").next().unwrap_or_default();
                for (number, line) in
                    code.lines().enumerate().filter(|(_, line)| !line.trim().starts_with("//"))
                {
                    for impure in IMPURE {
                        let place = format!("{}:{}", entry.display(), number + 1);
                        assert!(!line.contains(impure), "{place} uses {impure}: pass it in as an argument");
                    }
                }
            }
        }
    }
    assert!(files > 10, "found only {files} source files below {root}");
}

#[test]
fn one_module_names_bincode() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let named = Command::new("git")
        .args([
            "grep",
            "--files-with-matches",
            "-e",
            "bincode::",
            "--",
            "*.rs",
            ":!tests/tests/dependencies.rs",
        ])
        .current_dir(root)
        .output()
        .expect("git runs");
    let named = String::from_utf8_lossy(&named.stdout);
    assert_eq!(named.lines().collect::<Vec<_>>(), ["shared/src/wire.rs"]);
}
