//! Every error says what to do about it: each variant of each error type of the sources, found by parsing them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Fields, ImplItem, Item, ItemEnum, ItemImpl};

/// Ends of work that a person asked for: nothing is to be done about them.
const ASKED_FOR: [&str; 2] = ["Cancelled", "Interrupted"];

/// Errors whose hint is one for all variants, and where it is given.
const ONE_HINT: [(&str, &str); 2] =
    [("StagesError", "src/cli/error.rs"), ("Incomparable", "src/cli/overlap_between.rs")];

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "scripted" {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs")
            && !name.contains("tests")
            && name != "scripted.rs"
            && name != "scripted"
        {
            all.push(path);
        }
    }
}

/// What the sources say of errors.
#[derive(Default)]
struct Found {
    /// Error types with variants.
    errors: Vec<ItemEnum>,
    /// The bodies of `hint` by type.
    hints: BTreeMap<String, TokenStream>,
    /// Places where an error is made without a hint.
    bare: Vec<String>,
    file: String,
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item.attrs.iter().any(|a| a.to_token_stream().to_string().contains("cfg (test)")) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if item.attrs.iter().any(|a| a.to_token_stream().to_string().contains("thiserror :: Error")) {
            self.errors.push(item.clone());
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        for function in item.items.iter().filter_map(|i| if let ImplItem::Fn(f) = i { Some(f) } else { None }) {
            if function.sig.ident == "hint" && item.trait_.is_none() {
                self.hints.insert(item.self_ty.to_token_stream().to_string(), function.block.to_token_stream());
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        let is_bare = |f: &syn::FieldValue| {
            f.member.to_token_stream().to_string() == "hint" && f.expr.to_token_stream().to_string() == "None"
        };
        // Those of the command line get the usual hint where they are printed: they are made by `Diagnostic::new`.
        let path = item.path.to_token_stream().to_string();
        if item.fields.iter().any(is_bare) && self.file != "src/domain/diagnostic.rs" {
            self.bare.push(format!("{}: {path} without a hint", self.file));
        }
        visit::visit_expr_struct(self, item);
    }
}

/// Returns every identifier, with those in groups.
fn words(tokens: TokenStream, all: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                all.push(if group.delimiter() == Delimiter::Brace { "{".into() } else { "(".into() });
                words(group.stream(), all);
                all.push(")".into());
            }
            other => all.push(other.to_string()),
        }
    }
}

fn found() -> Found {
    let mut paths = Vec::new();
    sources(Path::new("src"), &mut paths);
    paths.sort();
    let mut found = Found::default();
    for path in paths {
        found.file = path.display().to_string();
        found.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
    }
    found
}

#[test]
fn every_variant_of_every_error_has_a_hint() {
    let found = found();
    assert!(found.errors.len() > 12, "only {} error types are found", found.errors.len());
    let mut missing = found.bare;
    let mut count = 0;
    for error in &found.errors {
        let name = error.ident.to_string();
        if ONE_HINT.iter().any(|(one, file)| *one == name && fs::read_to_string(file).unwrap().contains(".hint(")) {
            continue;
        }
        let mut hint = Vec::new();
        words(found.hints.get(&name).cloned().unwrap_or_default(), &mut hint);
        if hint.windows(2).any(|w| w[0] == "_" && w[1] == "=") || hint.iter().any(|word| word == "None") {
            missing.push(format!("{name}::hint has a case for whatever is left, or none for some"));
        }
        for variant in &error.variants {
            count += 1;
            let own = match &variant.fields {
                Fields::Named(fields) => fields.named.iter().any(|f| f.ident.as_ref().is_some_and(|i| i == "hint")),
                Fields::Unnamed(fields) => {
                    fields.unnamed.iter().any(|f| f.ty.to_token_stream().to_string() == "Diagnostic")
                }
                Fields::Unit => false,
            };
            let variant = variant.ident.to_string();
            if !own && !hint.contains(&variant) && !ASKED_FOR.contains(&variant.as_str()) {
                missing.push(format!("{name}::{variant} has no hint"));
            }
        }
    }
    println!("{count} variants of {} error types", found.errors.len());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_variant_without_a_hint_is_found() {
    let source = "#[derive(Debug, thiserror::Error)] enum E { A, B } impl E { fn hint(&self) -> u8 { match self { Self::A => 1, _ => 2 } } }";
    let mut found = Found::default();
    found.visit_file(&syn::parse_file(source).unwrap());
    let Some(Item::Enum(_)) = syn::parse_file(source).unwrap().items.into_iter().next() else { unreachable!() };
    let mut hint = Vec::new();
    words(found.hints["E"].clone(), &mut hint);
    assert!(found.errors.len() == 1 && hint.contains(&"A".to_owned()) && !hint.contains(&"B".to_owned()));
    assert!(hint.windows(2).any(|w| w[0] == "_" && w[1] == "="));
}
