//! Names like a mistyped one.

/// Names offered at most.
const MAX_NAMES: usize = 3;

/// The names most like `wanted`: a few edits away at most, the nearest first, equally near ones in their order.
pub(crate) fn similar<'names>(wanted: &str, names: impl Iterator<Item = &'names str>) -> Vec<&'names str> {
    // A third of the letters may differ: of more, nobody would see the likeness.
    let limit = (wanted.len() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = names
        .filter(|name| name.len().abs_diff(wanted.len()) <= limit)
        .filter_map(|name| Some((distance(wanted.as_bytes(), name.as_bytes(), limit)?, name)))
        .collect();
    found.sort();
    found.into_iter().take(MAX_NAMES).map(|(_, name)| name).collect()
}

/// Number of bytes to insert, remove, replace or swap with their neighbour; `None` when there are more than `limit`.
fn distance(left: &[u8], right: &[u8], limit: usize) -> Option<usize> {
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, byte) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(byte != other);
            let mut best = replaced.min(previous[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *byte == right[column - 1] && left[row - 1] == *other {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        if current.iter().all(|count| *count > limit) {
            return None;
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous.last().copied().filter(|count| *count <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_in_order() {
        let names = ["gcc", "gcc-12", "g++", "nodejs", "node", "libnode108"];
        for (wanted, expected) in [
            ("nodesj", &["nodejs", "node"][..]),
            ("nodej", &["node", "nodejs"]),
            ("gc", &["gcc"]),
            ("gdc", &["gcc"]),
            ("xyz", &[]),
            ("", &[]),
        ] {
            assert_eq!(similar(wanted, names.into_iter()), expected, "{wanted}");
        }
    }
}
