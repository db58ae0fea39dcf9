//! Which module may use which: every path of every source file, against the table in the documentation of `src/lib.rs`.
//!
//! Paths are found by parsing: `use` trees, `crate::`, `self::` and `super::` resolved from the module they stand in, the
//! tokens of macros, and attributes such as `#[serde(with = "crate::x")]`. Not seen: a type that reaches a module through
//! an allowed one (`engine` re-exporting what is candle's).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::UseTree;
use syn::visit::{self, Visit};

/// A row of the table.
struct Rule {
    module: String,
    /// Modules and guarded crates that it may use.
    uses: BTreeSet<String>,
}

/// The table, from the top floor down, and every crate that some row guards.
struct Rules {
    rows: Vec<Rule>,
    /// Modules that all may use, those of the row `any`; they use each other and nothing else.
    any: BTreeSet<String>,
    guarded: BTreeSet<String>,
}

impl Rules {
    /// Reads the Markdown table `| module | may use | crates |` in the documentation of `source`.
    ///
    /// # Panics
    /// Where a row uses a module that is not below it, so that no circle can be written down.
    fn parse(source: &str) -> Self {
        let names = |cell: &str| -> BTreeSet<String> {
            cell.split(',')
                .map(|name| name.trim().trim_matches('`').to_owned())
                .filter(|name| !name.is_empty())
                .collect()
        };
        let table = source.lines().skip_while(|line| !line.contains("| may use |")).skip(2);
        let mut rules = Self { rows: Vec::new(), any: BTreeSet::new(), guarded: BTreeSet::new() };
        for line in table.map_while(|line| line.strip_prefix("//! |")) {
            let cells: Vec<&str> = line.split('|').collect();
            let (modules, crates) = (names(cells[1]), names(cells[2]));
            let module = cells[0].trim().trim_matches('`').to_owned();
            rules.guarded.extend(crates.iter().cloned());
            if module == "any" {
                rules.any = modules;
                continue;
            }
            rules.rows.push(Rule { module, uses: modules.union(&crates).cloned().collect() });
        }
        for (i, row) in rules.rows.iter().enumerate() {
            for other in row.uses.difference(&rules.guarded) {
                let below = rules.rows[i + 1..].iter().any(|below| below.module == *other);
                assert!(below, "'{}' uses '{other}', which no row below it describes", row.module);
            }
        }
        rules
    }

    /// Returns what a module may use, itself included; `None` for one that the table lacks.
    fn allowed(&self, module: &str) -> Option<BTreeSet<&str>> {
        let row = self.rows.iter().find(|row| row.module == module);
        let known = row.is_some() || self.any.contains(module);
        let uses = row.into_iter().flat_map(|row| &row.uses).chain(&self.any).map(String::as_str);
        known.then(|| uses.chain(row.map(|row| row.module.as_str())).collect())
    }

    /// Returns the violations of one file; `inside` is its path in `src`.
    fn violations(&self, inside: &Path, source: &str) -> Vec<String> {
        let mut module: Vec<String> =
            inside.with_extension("").iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        module.pop_if(|last| last == "mod");
        let name = module[0].clone();
        let Some(allowed) = self.allowed(&name) else {
            return vec![format!("{}: module '{name}' has no row", inside.display())];
        };
        let mut walk = Walk { rules: self, module, found: BTreeSet::new() };
        walk.visit_file(&syn::parse_file(source).unwrap_or_else(|e| panic!("{}: {e}", inside.display())));
        // What lib.rs itself exports, such as the allocator, is named by its type and no module.
        let is_type = |name: &str| name.starts_with(char::is_uppercase);
        let wrong = walk.found.into_iter().filter(|(_, used)| !allowed.contains(used.as_str()) && !is_type(used));
        wrong.map(|(line, used)| format!("{}:{line}: '{name}' may not use '{used}'", inside.display())).collect()
    }
}

/// Collects what a file uses: top-level modules of this crate, and guarded crates, each with its line.
struct Walk<'a> {
    rules: &'a Rules,
    /// Where the visitor stands, from the root of the crate.
    module: Vec<String>,
    found: BTreeSet<(usize, String)>,
}

impl Walk<'_> {
    /// Notes the top-level module or guarded crate that a path leads to. `imports`: the path is that of a `use`, which
    /// may not name the root of the crate itself: what it brings in would not be seen.
    fn path(&mut self, path: &[Ident], imports: bool) {
        let Some(first) = path.first() else { return };
        let mut at = match first.to_string().as_str() {
            "crate" | "indexscope" => Vec::new(),
            "self" | "super" => self.module.clone(),
            name if self.rules.guarded.contains(name) && (imports || path.len() > 1) => vec![name.to_owned()],
            _ => return,
        };
        for name in
            path.iter().map(ToString::to_string).skip_while(|name| matches!(name.as_str(), "crate" | "indexscope"))
        {
            match name.as_str() {
                "super" => _ = at.pop(),
                "self" => {}
                _ => at.push(name),
            }
        }
        let root = imports.then(|| "the root of the crate".to_owned());
        self.found.extend(at.into_iter().next().or(root).map(|name| (first.span().start().line, name)));
    }

    fn tree(&mut self, path: &mut Vec<Ident>, tree: &UseTree) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.clone());
                self.tree(path, &part.tree);
                path.pop();
            }
            UseTree::Name(syn::UseName { ident }) | UseTree::Rename(syn::UseRename { ident, .. }) => {
                path.push(ident.clone());
                self.path(path, true);
                path.pop();
            }
            UseTree::Glob(_) => self.path(path, true),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(path, item)),
        }
    }

    /// Finds paths among the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut i = 0;
        while i < tokens.len() {
            let mut path = Vec::new();
            while let Some(TokenTree::Ident(name)) = tokens.get(i) {
                path.push(name.clone());
                i += 1;
                if !(is_colon(tokens.get(i)) && is_colon(tokens.get(i + 1))) {
                    break;
                }
                i += 2;
            }
            match tokens.get(i) {
                // `use crate::{a, b}` within a macro.
                Some(TokenTree::Group(group))
                    if !path.is_empty() && is_colon(i.checked_sub(1).and_then(|i| tokens.get(i))) =>
                {
                    if let Ok(tree) = syn::parse2(TokenStream::from(TokenTree::Group(group.clone()))) {
                        self.tree(&mut path, &tree);
                    }
                    i += 1;
                }
                Some(TokenTree::Group(group)) if path.is_empty() => {
                    self.tokens(group.stream());
                    i += 1;
                }
                _ if path.is_empty() => i += 1,
                _ => self.path(&path, false),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(&path.segments.iter().map(|s| s.ident.clone()).collect::<Vec<_>>(), false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
            for token in list.tokens.clone() {
                let TokenTree::Literal(literal) = token else { continue };
                let Ok(text) = syn::parse2::<syn::LitStr>(TokenTree::Literal(literal).into()) else { continue };
                if let Ok(path) = text.parse::<syn::Path>() {
                    self.visit_path(&path);
                }
            }
        }
    }
}

fn rules() -> Rules {
    Rules::parse(&fs::read_to_string(src().join("lib.rs")).unwrap())
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_module_uses_only_what_it_may() {
    let rules = rules();
    let mut files = Vec::new();
    rust_files(&src(), &mut files);
    files.retain(|file| *file != src().join("lib.rs"));
    assert!(files.len() > 30, "the sources were found");
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| rules.violations(file.strip_prefix(src()).unwrap(), &fs::read_to_string(file).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_a_row_for_every_module() {
    let lib = syn::parse_file(&fs::read_to_string(src().join("lib.rs")).unwrap()).unwrap();
    let modules = lib.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    let modules: BTreeSet<String> = modules.chain(["main".to_owned()]).collect();
    let Rules { rows, any, .. } = rules();
    assert_eq!(rows.into_iter().map(|row| row.module).chain(any).collect::<BTreeSet<_>>(), modules);
}

const TABLE: &str = "
//! | module | may use | crates |
//! |---|---|---|
//! | `tui` | `engine`, `domain` | `ratatui` |
//! | `engine` | `model`, `domain` | `candle_core` |
//! | `model` | `domain` | `candle_core` |
//! | `domain` | | |
//! | any | `atomic`, `shown` | |
//!
//! | another | table | here |
";

#[test]
fn violations_are_found_however_they_are_written() {
    let rules = Rules::parse(TABLE);
    for (file, source, used) in [
        ("tui/a.rs", "use crate::model::Model;", "model"),
        ("tui/a.rs", "use crate::{domain::Pattern, model::{Model, Pass}};", "model"),
        ("tui/a.rs", "use {crate::domain, super::super::model as m};", "model"),
        ("tui/a.rs", "fn f() -> super::super::model::Model { todo!() }", "model"),
        ("tui/mod.rs", "fn f() { super::model::f() }", "model"),
        ("tui.rs", "mod tests { use super::super::model; }", "model"),
        ("tui/a.rs", "pub(in crate::model) fn f() {}", "model"),
        ("tui/a.rs", "fn f() { println!(\"{}\", [crate::model::NAME]) }", "model"),
        ("tui/a.rs", "macro_rules! m { ($x:expr) => { $crate::model::f($x) } }", "model"),
        ("tui/a.rs", "macro_rules! m { () => { use crate::{domain, model::Model}; } }", "model"),
        ("tui/a.rs", "struct S { #[serde(with = \"crate::model::form\")] x: u8 }", "model"),
        ("tui/a.rs", "#[derive(crate::model::Macro)] struct S;", "model"),
        ("tui/a.rs", "use candle_core::Tensor;", "candle_core"),
        ("tui/a.rs", "use candle_core as c;", "candle_core"),
        ("tui/a.rs", "fn f(x: ::candle_core::Tensor) {}", "candle_core"),
        ("tui/a.rs", "use super::super::*;", "the root of the crate"),
        ("tui/a.rs", "use crate as root;", "the root of the crate"),
        ("domain/a.rs", "use indexscope::tui::run;", "tui"),
        ("atomic.rs", "use crate::domain::Pattern;", "domain"),
    ] {
        let module = file.split(['/', '.']).next().unwrap();
        let wanted = [format!("{file}:1: '{module}' may not use '{used}'")];
        assert_eq!(rules.violations(Path::new(file), source), wanted, "{source}");
    }
    assert_eq!(rules.violations(Path::new("other/a.rs"), ""), ["other/a.rs: module 'other' has no row"]);
}

#[test]
fn what_is_allowed_is_no_violation() {
    let source = "
        //! Speaks of [`crate::model`] in its documentation.
        use super::super::domain::Pattern;
        use crate::engine::Engine;
        use std::{self, fmt};
        pub(crate) mod inner { use super::super::b; pub(super) fn f(model: u8) { let s = \"crate::model\"; } }
        fn f() { crate::atomic::write(); self::inner::f(0); ratatui::init(); crate::tui::b::g(model::nothing) }
    ";
    assert_eq!(Rules::parse(TABLE).violations(Path::new("tui/a.rs"), source), [] as [&str; 0]);
}

#[test]
#[should_panic(expected = "'domain' uses 'model', which no row below it describes")]
fn a_table_with_an_arrow_upwards_is_refused() {
    Rules::parse(&TABLE.replace("`domain` | |", "`domain` | `model` |"));
}
