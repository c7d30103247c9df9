//! The examples of the pages under `modules/`.

use std::fs;

use crate::support::repository;

/// One fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// What follows the fence, as in `yaml`.
    pub(crate) language: String,
    /// The last heading above it, without its signs.
    pub(crate) heading: String,
    pub(crate) text: String,
}

/// All fenced blocks of a page, by its path in the repository.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut blocks: Vec<Block> = Vec::new();
    let mut heading = String::new();
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_inside = !is_inside;
            if is_inside {
                let language = language.to_owned();
                blocks.push(Block { language, heading: heading.clone(), text: String::new() });
            }
        } else if is_inside {
            let block = blocks.last_mut().expect("a block that was opened");
            block.text.push_str(line);
            block.text.push('\n');
        } else if line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        }
    }
    blocks
}
