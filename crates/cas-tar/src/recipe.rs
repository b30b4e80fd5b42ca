//! Recipes: how an archive's bytes follow from its frames.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cas_blob::{Descriptor, ParseDescriptorError};

use crate::{Codec, FrameSummary, Profile};

/// Longest recipe that is read.
const MAX_BYTES: usize = 64 << 20;

/// A compressed group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The compressed bytes.
    pub blob: Descriptor,
    /// What the trailer needs of it.
    pub summary: FrameSummary,
}

/// How an archive is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Normal form of the tar.
    pub profile: Profile,
    /// How it is compressed.
    pub codec: Codec,
    /// The tree that it holds.
    pub tree: Descriptor,
    /// The uncompressed bytes: the diffID.
    pub tar: Descriptor,
    /// The compressed bytes.
    pub blob: Descriptor,
    /// The frames, in order.
    pub frames: Vec<Frame>,
    /// What stands behind them and the trailer, for codecs that have a table of contents.
    pub tail: Option<RecipeTail>,
}

/// The table of contents of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeTail {
    /// Its bytes.
    pub blob: Descriptor,
    /// How many bytes of tar they hold.
    pub tar_length: u64,
    /// What the descriptor in a manifest has to tell.
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are not a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRecipeError {
    /// Longer than any recipe is.
    #[error("recipe is longer than 64 MiB")]
    TooLong,
    /// A line is missing, of another kind, or not in the one form that it has.
    #[error("line {line} of the recipe is not a `{expected}` line")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The kind of line that must be there.
        expected: &'static str,
    },
    /// A descriptor of a line is not one.
    #[error("line {line} of the recipe has a bad descriptor")]
    Descriptor {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        source: ParseDescriptorError,
    },
    /// The sizes of frames do not add up to the announced sizes.
    #[error("the frames of the recipe do not add up")]
    Sum,
}

impl Recipe {
    /// What stands after the last frame.
    #[must_use]
    pub fn trailer(&self) -> Vec<u8> {
        let summaries: Vec<FrameSummary> = self.frames.iter().map(|frame| frame.summary).collect();
        self.codec.trailer(&summaries)
    }

    /// The recipe's text.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "cas-recipe 1\nprofile {}\ncodec {}\ntree {}\ntar {}\nblob {}\n",
            self.profile.name(),
            self.codec.id(),
            self.tree,
            self.tar,
            self.blob
        );
        for Frame { blob, summary } in &self.frames {
            writeln!(text, "frame {blob} {} {:08x}", summary.length, summary.crc32).expect("a string takes everything");
        }
        if let Some(RecipeTail { blob, tar_length, annotations }) = &self.tail {
            writeln!(text, "tail {blob} {tar_length}").expect("a string takes everything");
            for (key, value) in annotations {
                writeln!(text, "annotation {key} {value}").expect("a string takes everything");
            }
        }
        text.into_bytes()
    }

    /// Reads what [`Recipe::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// [`ParseRecipeError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, ParseRecipeError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseRecipeError::TooLong);
        }
        let text = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.strip_suffix('\n'))
            .ok_or(ParseRecipeError::Line { line: 1, expected: "cas-recipe 1" })?;
        let mut lines = Lines { lines: text.split('\n'), line: 0 };
        lines.value("cas-recipe", |value| (value == "1").then_some(()))?;
        let profile = lines.value("profile", Profile::from_name)?;
        let codec = lines.value("codec", Codec::from_id)?;
        let tree = lines.descriptor("tree")?;
        let tar = lines.descriptor("tar")?;
        let blob = lines.descriptor("blob")?;
        let mut frames = Vec::new();
        while lines.next_is("frame") {
            let line = lines.line + 1;
            let frame = lines.value("frame", |value| {
                let mut words = value.split(' ');
                let (blob, length, crc) = (words.next()?, words.next()?, words.next()?);
                let length = length.parse::<u64>().ok().filter(|number| number.to_string() == length)?;
                let crc32 = u32::from_str_radix(crc, 16).ok().filter(|number| format!("{number:08x}") == crc)?;
                words.next().is_none().then(|| (blob.to_owned(), FrameSummary { length, crc32 }))
            })?;
            let blob = frame.0.parse().map_err(|source| ParseRecipeError::Descriptor { line, source })?;
            frames.push(Frame { blob, summary: frame.1 });
        }
        if frames.is_empty() {
            return Err(ParseRecipeError::Line { line: lines.line + 1, expected: "frame" });
        }
        let mut tail: Option<RecipeTail> = None;
        while lines.lines.clone().next().is_some() {
            match &mut tail {
                None => {
                    let line = lines.line + 1;
                    let (text, tar_length) = lines.value("tail", |value| {
                        let (blob, length) = value.split_once(' ')?;
                        let number = length.parse::<u64>().ok().filter(|number| number.to_string() == length)?;
                        Some((blob.to_owned(), number))
                    })?;
                    let blob = text.parse().map_err(|source| ParseRecipeError::Descriptor { line, source })?;
                    tail = Some(RecipeTail { blob, tar_length, annotations: BTreeMap::new() });
                }
                Some(tail) => {
                    let after = tail.annotations.last_key_value().map(|(key, _)| key.clone());
                    let (key, value) = lines.value("annotation", |value| {
                        let (key, value) = value.split_once(' ')?;
                        after.is_none_or(|after| *after < *key).then(|| (key.to_owned(), value.to_owned()))
                    })?;
                    tail.annotations.insert(key, value);
                }
            }
        }
        if tail.is_some() != codec.has_contents() {
            return Err(ParseRecipeError::Line { line: lines.line + 1, expected: "tail" });
        }
        let recipe = Self { profile, codec, tree, tar, blob, frames, tail };
        recipe.check_sums().ok_or(ParseRecipeError::Sum)?;
        Ok(recipe)
    }

    fn check_sums(&self) -> Option<()> {
        let around = (self.codec.header().len() + self.trailer().len()) as u64;
        let (mut tar, mut blob) = (0u64, around);
        if let Some(tail) = &self.tail {
            (tar, blob) = (tail.tar_length, blob.checked_add(tail.blob.size)?);
        }
        for frame in &self.frames {
            tar = tar.checked_add(frame.summary.length)?;
            blob = blob.checked_add(frame.blob.size)?;
        }
        (tar == self.tar.size && blob == self.blob.size).then_some(())
    }
}

struct Lines<'a> {
    lines: std::str::Split<'a, char>,
    line: usize,
}

impl Lines<'_> {
    fn next_is(&self, key: &str) -> bool {
        self.lines.clone().next().is_some_and(|line| line.split(' ').next() == Some(key))
    }

    fn value<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ParseRecipeError> {
        self.line += 1;
        self.lines
            .next()
            .and_then(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .and_then(parse)
            .ok_or(ParseRecipeError::Line { line: self.line, expected: key })
    }

    fn descriptor(&mut self, key: &'static str) -> Result<Descriptor, ParseRecipeError> {
        let text = self.value(key, |value| Some(value.to_owned()))?;
        text.parse().map_err(|source| ParseRecipeError::Descriptor { line: self.line, source })
    }
}
