//! Images that commands look at: of the store, of the workspace, and of others by their names.

use std::sync::Arc;

use cas_build::{
    Engine, Image, ImageContent, Platforms, Pulled, Referring, Saved, fetch_any, fetch_image, fetch_referring,
    foreign_image, is_named, stored_image,
};
use cas_digest::{Digest, DigestFunction};
use cas_oci::{BadPart, ImageSource, is_name_with_tag};
use cas_store::Store;

use crate::args::{Global, InputArgs, LookArgs, WhichArgs};
use crate::commands::{Named, build_options, find, here, named, watch_signals};
use crate::image_convert::{no_place, registries};
use crate::render::Failure;

/// Ways to name a place of images.
const TRANSPORTS: [&str; 6] = ["oci:", "oci-archive:", "docker-archive:", "dir:", "tar:", "docker://"];

/// The image of others that a text names, which lives as long as the archive that comes with it; else it names one of the store.
pub(crate) fn found(store: &Store, text: &str) -> Result<Option<(ImageSource, Option<Saved>)>, Failure> {
    let Some((engine, name)) =
        text.split_once(':').and_then(|(transport, name)| Some((Engine::of_transport(transport)?, name)))
    else {
        // A name that somebody gave an image counts where nothing says that the registry is meant.
        return match source(text)? {
            Some(ImageSource::Registry(_)) if !has_transport(text) && is_named(store, text)? => Ok(None),
            found => Ok(found.map(|source| (source, None))),
        };
    };
    if !is_name_with_tag(name) {
        let part = BadPart::Name { name: name.to_owned() };
        return Err(Failure::Usable(format!("`{text}` has {part}"), part.hint().to_owned()));
    }
    let saved = engine.save(store, name)?;
    Ok(Some((saved.source(), Some(saved))))
}

/// The place of images of others that a text names.
fn source(text: &str) -> Result<Option<ImageSource>, Failure> {
    if text.starts_with("//") || text.starts_with(':') {
        return Ok(None);
    }
    match text.parse::<ImageSource>() {
        Ok(source) => Ok(Some(source)),
        Err(cas_oci::ParseReferenceError::NoHost { .. }) if !has_transport(text) => Ok(None),
        Err(error) => Err(Failure::Usable(error.to_string(), error.hint())),
    }
}

/// The name that an image has where another program keeps it.
pub(crate) fn engine_name(text: &str) -> Option<&str> {
    let (transport, name) = text.split_once(':')?;
    Engine::of_transport(transport).map(|_| name)
}

/// Whether a text begins as a place of images of others does.
pub(crate) fn has_transport(text: &str) -> bool {
    TRANSPORTS.iter().any(|transport| text.starts_with(transport)) || engine_name(text).is_some()
}

/// Which platforms of an image are meant.
pub(crate) fn wanted(which: &WhichArgs) -> Platforms {
    match (&which.platform, which.all) {
        (Some(platform), _) => Platforms::One(platform.clone()),
        (None, true) => Platforms::All,
        (None, false) => Platforms::Own,
    }
}

/// The image of others that a text names, in the store without a name, and the digest function of its files; `None` where it is
/// no place of such.
pub(crate) fn fetched(
    global: &Global,
    store: &Store,
    text: &str,
    platforms: &Platforms,
    offline: bool,
) -> Result<Option<(Image, DigestFunction)>, Failure> {
    // Also where nothing is built: what is done with the image may be long, and leaves nothing behind then.
    watch_signals()?;
    let Some((source, _saved)) = found(store, text)? else { return Ok(None) };
    let (registries, function) = registries(global, offline)?;
    let fetched = fetch_image(store, &source, &here(global), &registries, platforms);
    let image = fetched.map_err(|error| no_place(&source, error))?;
    Ok(Some((Image { reference: text.to_owned(), ..image }, function)))
}

/// What is in a place, in the store without a name.
pub(crate) struct Taken {
    pub(crate) found: Pulled,
    /// What refers to it.
    pub(crate) referring: Vec<Referring>,
    /// What is listed as that and cannot be had.
    pub(crate) lost: Vec<Digest>,
}

/// What is in the place that a text names, image or not; `None` where it is no place.
pub(crate) fn taken_whole(
    global: &Global,
    store: &Store,
    text: &str,
    platforms: &Platforms,
    with_referrers: bool,
) -> Result<Option<Taken>, Failure> {
    watch_signals()?;
    let Some((source, _saved)) = found(store, text)? else { return Ok(None) };
    let ((registries, _), folder) = (registries(global, false)?, here(global));
    let fetched = fetch_any(store, &source, &folder, &registries, platforms);
    let found = fetched.map_err(|error| no_place(&source, error))?;
    let (referring, lost) = match with_referrers {
        true => fetch_referring(store, &source, &folder, &registries, &found)?,
        false => (Vec::new(), Vec::new()),
    };
    Ok(Some(Taken { found, referring, lost }))
}

/// What a text names: an image of others, or what [`named`] finds.
pub(crate) fn taken(global: &Global, store: &Store, text: &str, which: &WhichArgs) -> Result<Named, Failure> {
    if let Some((image, _)) = fetched(global, store, text, &wanted(which), which.offline)? {
        return Ok(Named::Image(Arc::new(image)));
    }
    let options = build_options(None, &InputArgs { offline: which.offline, ..InputArgs::default() });
    match (named(global, store, text, &options, true)?, &which.platform) {
        (Named::Image(image), Some(wanted)) => Ok(Named::Image(Arc::new(image.of_platform(wanted)?.clone()))),
        (Named::Artifact(artifact), Some(_)) => {
            let message = format!("`--platform` is for images, and `{}` is an artifact", artifact.reference);
            Err(Failure::Usable(message, "leave it out".to_owned()))
        }
        (found, None) => Ok(found),
    }
}

/// The image that a text names.
pub(crate) fn look(global: &Global, store: &Store, text: &str, args: &LookArgs) -> Result<ImageContent, Failure> {
    let Some((source, _saved)) = found(store, text)? else {
        let options = build_options(None, &InputArgs { offline: args.offline, ..InputArgs::default() });
        let image = find(global, store, text, &options)?;
        let chosen = match &args.platform {
            None => &*image,
            Some(wanted) => image.of_platform(wanted)?,
        };
        return Ok(stored_image(store, chosen)?);
    };
    let (registries, _) = registries(global, args.offline)?;
    let content = foreign_image(store, &source, &here(global), &registries, args.platform.as_ref());
    let mut content = content.map_err(|error| no_place(&source, error))?;
    content.name = text.to_owned();
    Ok(content)
}

/// Bytes of a name, for people and JSON: `\x` and two digits for what is no UTF-8 or a control character, two backslashes for one.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                other => push(&mut text, other),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A text of an image, without what a terminal would take for a command.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    text.chars().for_each(|character| push(&mut plain, character));
    plain
}

fn push(text: &mut String, character: char) {
    if character.is_control() {
        let mut buffer = [0; 4];
        for byte in character.encode_utf8(&mut buffer).bytes() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    } else {
        text.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_what_terminals_obey() {
        for (bytes, expected) in [
            (&b"usr/bin/env"[..], "usr/bin/env"),
            (b"a\\b", "a\\\\b"),
            (b"a\x1b[2J\n", "a\\x1b[2J\\x0a"),
            ("\u{e9}\u{9b}".as_bytes(), "\u{e9}\\xc2\\x9b"),
            (b"a\xffb", "a\\xffb"),
        ] {
            assert_eq!(shown(bytes), expected);
        }
    }

    #[test]
    fn labels_and_places_are_told_apart() {
        for (text, is_place) in [
            ("//apps/web:image", false),
            (":image", false),
            ("web:image", false),
            ("oci:folder:tag", true),
            ("docker-archive:a.tar", true),
            ("dir:folder", true),
            ("tar:a.tar", true),
            ("//tar:image", false),
            ("docker://ghcr.io/a/b:1", true),
            ("ghcr.io/a/b:1", true),
            ("localhost:5000/a:1", true),
        ] {
            assert_eq!(source(text).expect("it is a name").is_some(), is_place, "{text}");
        }
        for wrong in ["oci:", "dir:", "tar:", "docker://node:18", "ghcr.io/a/b", "ghcr.io/A:1"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }
}
