//! `packages` of a `pnpm-workspace.yaml`: a list of strings, in block or in flow style.
//!
//! Anything else in the file is passed over. What the key holds is a short list in every real file, so that this is no parser
//! of YAML: a list in another form is an error with its line.

use crate::InitError;

/// The globs of `packages`.
pub(crate) fn packages(path: &str, text: &str) -> Result<Vec<String>, InitError> {
    let wrong = |index: usize, message: &str| InitError::Syntax {
        path: path.to_owned(),
        line: index + 1,
        column: 1,
        message: message.to_owned(),
    };
    let mut globs = Vec::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let Some((index, rest)) = lines.find_map(|(index, line)| {
        let rest = line.strip_prefix("packages").or_else(|| line.strip_prefix("\"packages\""))?;
        Some((index, without_comment(rest.trim_start().strip_prefix(':')?).trim_start()))
    }) else {
        return Ok(globs);
    };
    if !rest.is_empty() {
        // A list in brackets may go on for lines.
        let mut flow = rest.to_owned();
        while !flow.ends_with(']') {
            let (_, line) = lines.next().ok_or_else(|| wrong(index, "`packages` is not a list that ends"))?;
            flow.push_str(without_comment(line));
        }
        let inside = flow.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let inside = inside.ok_or_else(|| wrong(index, "`packages` is not a list of globs"))?;
        for item in inside.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            globs.push(scalar(item).ok_or_else(|| wrong(index, "an item of `packages` is not a plain string"))?);
        }
        return Ok(globs);
    }
    for (index, line) in lines {
        let line = without_comment(line);
        if line.is_empty() {
            continue;
        }
        let Some(item) = line.trim_start().strip_prefix('-') else {
            if line.starts_with([' ', '\t']) {
                return Err(wrong(index, "`- GLOB` was expected in `packages`"));
            }
            break;
        };
        globs.push(scalar(item.trim()).ok_or_else(|| wrong(index, "an item of `packages` is not a plain string"))?);
    }
    Ok(globs)
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '#') if before.is_whitespace() => return line[..at].trim_end(),
            _ => {}
        }
        before = letter;
    }
    line.trim_end()
}

fn scalar(text: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inside = rest.strip_suffix(quote)?;
            return (!inside.contains([quote, '\\'])).then(|| inside.to_owned());
        }
    }
    let is_plain = !text.is_empty() && !text.starts_with(['&', '*', '{', '[', '|', '>', '%', '@', '`', '!']);
    (is_plain && !text.contains(": ")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_styles_are_read() {
        for (text, expected) in [
            (
                "packages:\n  - 'apps/*'\n  - \"libs/*\" # c\n  # d\n\n  - '!**/test'\ncatalog:\n  a: 1\n",
                "apps/* libs/* !**/test",
            ),
            ("a: 1\npackages:\n- apps/*\n- libs\nb: 2\n", "apps/* libs"),
            ("packages: [ 'a', \"b/*\",\n  c ] # x\n", "a b/* c"),
            ("packages: []\n", ""),
            ("catalog: 1\n", ""),
        ] {
            assert_eq!(packages("p.yaml", text).expect("it is right").join(" "), expected, "{text}");
        }
    }

    #[test]
    fn other_forms_are_told_with_their_line() {
        for (text, line) in [
            ("packages:\n  - a\n  b: c\n", 3),
            ("packages:\n  - &x y\n", 2),
            ("packages: a\n", 1),
            ("packages: [a\n", 1),
            ("packages:\n - 'a\n", 2),
        ] {
            let error = packages("p.yaml", text).expect_err("it is wrong").to_string();
            assert!(error.starts_with(&format!("`p.yaml`, line {line}, ")), "{text}: {error}");
        }
    }
}
