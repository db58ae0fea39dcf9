//! Input that others wrote, and systems that fail: an error with a hint and exit code 1, whatever it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const MODEL: &str = "tests/data/glm_dsa_tiny";
const DATA: [&str; 5] = ["--tokens", "random:64", "--seq-len", "32", "--quiet"];

fn indexscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command that must fail with an error and a hint; returns what it said.
fn refused(arguments: &[&str]) -> String {
    let output = indexscope(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(stderr.contains("error: ") && stderr.contains("\nhint: "), "{arguments:?}: {stderr}");
    stderr
}

/// Copies a checkpoint of the tests.
fn model(name: &str, to: &Path) -> PathBuf {
    let to = to.join(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(Path::new("tests/data").join(name)).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn stderr_that_cannot_be_written_changes_nothing() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let eval = [&["eval", MODEL, "--pattern", "native"][..], &DATA[..4]].concat();
    for (arguments, code) in [(&["info", "none"][..], 1), (&["info", "--no"], 2), (&eval, 0)] {
        let status = indexscope(arguments).stderr(full()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    let output = indexscope(&["info", MODEL]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: make room"));
}

#[test]
fn an_index_names_files_of_its_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (model("glm_sharded", folder.path()), folder.path().join("bad"));
    std::fs::create_dir(&bad).unwrap();
    for name in ["config.json", "model.safetensors.index.json"] {
        std::fs::copy(good.join(name), bad.join(name)).unwrap();
    }
    for prefix in ["../glm_sharded/", &format!("{}/", good.display()), "./", "sub/"] {
        std::fs::copy(good.join("model.safetensors.index.json"), bad.join("model.safetensors.index.json")).unwrap();
        edit(&bad.join("model.safetensors.index.json"), |index| {
            for shard in index["weight_map"].as_object_mut().unwrap().values_mut() {
                *shard = format!("{prefix}{}", shard.as_str().unwrap()).into();
            }
        });
        let out = folder.path().join("out");
        let said = refused(&["export", text(&bad), "--pattern", "native", "--checkpoint", text(&out)]);
        assert!(said.contains("not the name of a file in the folder") && !out.exists(), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_and_pipes_are_neither_copied_nor_read() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let tiny = model("glm_dsa_tiny", folder.path());
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    symlink("../secret", tiny.join("notes.md")).unwrap();
    symlink("config.json", tiny.join("alias.json")).unwrap();
    assert!(Command::new("mkfifo").arg(tiny.join("pipe.bin")).status().unwrap().success());
    let out = folder.path().join("out");
    let export = ["export", text(&tiny), "--pattern", "uniform:2", "--json", "--checkpoint", text(&out)];
    let output = indexscope(&export).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["checkpoint"]["report"]["skipped"], json!(["notes.md", "pipe.bin"]));
    assert!(!out.join("notes.md").exists() && !out.join("pipe.bin").exists() && out.join("alias.json").is_file());

    for name in ["config.json", "model.safetensors"] {
        let (path, kept) = (tiny.join(name), folder.path().join("kept"));
        std::fs::rename(&path, &kept).unwrap();
        symlink(&kept, &path).unwrap();
        assert!(refused(&["info", text(&tiny)]).contains("leads out of the model's folder"));
        std::fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(refused(&["info", text(&tiny)]).contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&kept, &path).unwrap();
    }
}

#[test]
fn templates_have_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    assert!(indexscope(&["demo", "--write", text(&demo)]).status().unwrap().success());
    let chat = folder.path().join("c.jsonl");
    std::fs::write(&chat, r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#).unwrap();
    let marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
    let endless = [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% set ns=namespace(s='a') %}{% for i in range(50) %}{% set ns.s=ns.s+ns.s %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}".to_owned(),
        "{{ 'x'|indent(100000000000) }}".to_owned(),
        "{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}".to_owned(),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(200_000)),
    ];
    for template in endless {
        std::fs::write(demo.join("chat_template.jinja"), template.clone() + marked).unwrap();
        let said = refused(&["eval", text(&demo), "--chat", text(&chat), "--pattern", "uniform:4", "--quiet"]);
        assert!(!said.contains("panicked"), "{}: {said}", &template[..40]);
    }
    // As deep as a template may be: whatever comes of it, the stack holds.
    for template in ["not ".repeat(30_000) + "1", "-".repeat(120_000) + "1", "1".to_owned() + &"+1".repeat(60_000)] {
        std::fs::write(demo.join("chat_template.jinja"), format!("{{% set x = {template} %}}{marked}")).unwrap();
        let eval = ["eval", text(&demo), "--chat", text(&chat), "--pattern", "uniform:4", "--quiet"];
        let status = indexscope(&eval).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.code().is_some_and(|code| code < 2), "{status}");
    }
}

#[test]
fn sizes_that_no_machine_holds_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = model("glm_dsa_tiny", folder.path());
    for (key, value) in [("n_routed_experts", json!(4_294_967_296_u64)), ("num_hidden_layers", json!(-1))] {
        std::fs::copy(Path::new(MODEL).join("config.json"), tiny.join("config.json")).unwrap();
        edit(&tiny.join("config.json"), |config| config[key] = value);
        refused(&["info", text(&tiny)]);
    }
    let random = ["eval", MODEL, "--tokens", "random:99999999999", "--pattern", "native"];
    assert_eq!(indexscope(&random).output().unwrap().status.code(), Some(2));
}

#[test]
fn names_reach_no_terminal_raw() {
    let folder = tempfile::tempdir().unwrap();
    let hidden = "m\u{1b}]0;pwned\u{7}\u{1b}[31mred";
    let tiny = model("glm_dsa_tiny", folder.path());
    let named = folder.path().join(hidden);
    std::fs::rename(&tiny, &named).unwrap();
    let eval = ["eval", text(&named), "--pattern", "native", "--format"];
    let missing = format!("{}x", named.display());
    for arguments in [
        vec!["info", text(&named)],
        vec!["info", "--json", text(&named)],
        vec!["info", &missing],
        [&eval[..], &["md"], &DATA].concat(),
        [&eval[..], &["csv"], &DATA].concat(),
        [&eval[..], &["json"], &DATA].concat(),
    ] {
        let output = indexscope(&arguments).output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        assert!(!all.contains(&0x1b) && !all.contains(&7), "{arguments:?}: {}", String::from_utf8_lossy(&all));
    }
    edit(&named.join("config.json"), |config| config["model_type"] = "\u{1b}]0;pwned\u{7}".into());
    for arguments in [["worth", text(&named)], ["simulate", text(&named)], ["info", text(&named)]] {
        let output = indexscope(&arguments).output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        assert!(!all.contains(&0x1b) && !all.contains(&7), "{arguments:?}: {}", String::from_utf8_lossy(&all));
    }
}

#[test]
fn damaged_measurements_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (session, journal) = (folder.path().join("s.toml"), folder.path().join("s.journal"));
    let search = |more: &[&str]| {
        let data = ["search", MODEL, "--tokens", "random:270", "--seq-len", "90", "--sequences", "2"];
        let output =
            indexscope(&[&data[..], &["--json", "--session", text(&session)], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
        // Only what was found must be the same: measuring again costs time and layers.
        for cost in ["seconds", "layer_forwards"] {
            found.as_object_mut().unwrap().remove(cost);
        }
        (found, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (want, _) = search(&["--quiet"]);
    let whole = std::fs::read_to_string(&journal).unwrap();
    // As version 0.1 wrote it: without checksums.
    let old: String =
        whole.lines().map(|line| line.rsplit_once(" #").unwrap().0.to_owned() + "\n").collect::<Vec<_>>().concat();
    let nan = |line: &str| line.rsplit_once(' ').unwrap().0.to_owned() + " nan";
    let lines: Vec<&str> = old.lines().collect();
    let damaged = [
        (0, old.clone()),
        (1, old.replacen(lines[3], &nan(lines[3]), 1)),
        (1, old.replacen(lines[3], lines[3].rsplit_once(' ').unwrap().0, 1)),
        (1, whole.replacen(" 0 ", " 1 ", 1)),
    ];
    for (count, text) in damaged {
        std::fs::write(&journal, text).unwrap();
        let (found, said) = search(&["--resume"]);
        assert_eq!(found, want);
        assert_eq!(said.contains("are damaged"), count > 0, "{said}");
    }
}

#[test]
fn a_search_that_has_not_begun_is_begun_by_resume() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("s.toml");
    let data =
        ["search", MODEL, "--tokens", "random:270", "--seq-len", "90", "--sequences", "2", "--method", "uniform"];
    let output = indexscope(&[&data[..], &["--resume", "--session", text(&session)]].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("starts from the beginning"), "{stderr}");
}

#[test]
fn tokenizers_that_make_their_crate_panic_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    assert!(indexscope(&["demo", "--write", text(&demo)]).status().unwrap().success());
    let path = demo.join("tokenizer.json");
    let whole = std::fs::read(&path).unwrap();
    let corpus = demo.join("calibration.txt");
    let eval = ["eval", text(&demo), "--text", text(&corpus), "--seq-len", "32", "--pattern", "native", "--quiet"];
    let changes: [&dyn Fn(&mut Value); 4] = [
        &|t| t["model"]["vocab"] = json!({}),
        &|t| t["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "missing"}),
        &|t| t["pre_tokenizer"] = json!({"type": "Metaspace"}),
        &|t| t["model"] = json!({"type": "Unigram", "unk_id": 9, "vocab": []}),
    ];
    for change in changes {
        std::fs::write(&path, &whole).unwrap();
        edit(&path, change);
        let output = indexscope(&eval).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code < 2) && !stderr.contains("panicked"), "{stderr}");
    }
}
