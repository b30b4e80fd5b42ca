//! Bytes of a name, without an allocation when they are few: a workspace has many names, and most are short.

use std::ops::Deref;

/// Most bytes that are held in place: with them a [`Text`] is as large as a vector.
const SHORT_BYTES: usize = 22;

/// Bytes of a name.
#[derive(Clone)]
pub(crate) enum Text {
    /// Their number, and they themselves.
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT_BYTES];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_their_bytes() {
        assert_eq!(size_of::<Text>(), size_of::<Vec<u8>>());
        for len in 0..300 {
            let bytes = vec![b'x'; len];
            let text = Text::from(&bytes[..]);
            assert_eq!(*text, *bytes);
            assert_eq!(matches!(text, Text::Short(..)), len <= SHORT_BYTES, "{len}");
            assert!(text == text.clone() && text != Text::from(&[&bytes[..], b"y"].concat()[..]));
        }
    }
}
