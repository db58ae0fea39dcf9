//! What README.md says about keys and commands is what the program does.

use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// Splits a text at everything that is no part of an option's name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_key_table_is_that_of_the_action_table() {
    let table = indexscope::tui::keys_markdown();
    assert!(readme().contains(&table), "README.md needs this table:\n{table}");
}

#[test]
fn every_subcommand_is_named_and_every_named_one_exists() {
    let help = run(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // A longer indent goes on with the text above.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help" && name.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    assert!(commands.len() >= 5, "{help}");
    let readme = readme();
    for command in &commands {
        assert!(readme.contains(&format!("indexscope {command} ")), "README.md does not show 'indexscope {command}'");
    }
    let block = readme.split("```sh").filter_map(|part| part.split("```").next()).collect::<String>();
    for line in block.lines().filter_map(|line| line.strip_prefix("indexscope ")) {
        let first = line.split_whitespace().next().unwrap();
        let known = commands.contains(&first) || first.starts_with('/') || first.contains(".safetensors");
        assert!(known, "README.md shows 'indexscope {first}', which does not exist");
        if commands.contains(&first) {
            // `indexscope train indexers …` is a command of a command.
            let second =
                line.split_whitespace().nth(1).filter(|word| run(&[first, "--help"]).contains(&format!("\n  {word} ")));
            let help = run(&[&[first], second.as_slice(), &["--help"]].concat());
            let has = |option: &str| words(&help).any(|word| word == option);
            for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(has(option), "'indexscope {first}' has no {option}");
                assert!(!has(&option[..option.len() - 1]), "a part of {option} is no option");
            }
        }
    }
}
