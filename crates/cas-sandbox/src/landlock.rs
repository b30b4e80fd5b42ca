//! What this kernel's Landlock can hold. How it is used: docs/formats/sandbox.md, "Weaker tiers".

use rustix::io::Errno;

use crate::host::{HostCannot, LandlockObstacle};

/// The kernel's Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landlock {
    /// Version of its interface, 1 or more.
    pub version: u32,
}

impl Landlock {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// [`HostCannot::Landlock`] where there is none.
    pub fn of_kernel() -> Result<Self, HostCannot> {
        let version = cas_sys::landlock_version().map_err(|error| HostCannot::Landlock {
            obstacle: match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP) => LandlockObstacle::Off,
                Some(Errno::NOSYS) => LandlockObstacle::NotBuilt,
                _ => LandlockObstacle::Refused,
            },
        })?;
        Ok(Self { version })
    }

    /// What a newer kernel would hold and this one does not, in words; nothing, if it holds all that is asked of it.
    #[must_use]
    pub fn not_held(self) -> Vec<&'static str> {
        let rows = [
            (3, "cutting files that may only be read"),
            (4, "TCP"),
            (5, "commands to devices"),
            (6, "signals to other processes and abstract sockets"),
        ];
        rows.into_iter().filter(|(since, _)| self.version < *since).map(|(_, what)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_held_goes_by_the_version() {
        let count = |version| Landlock { version }.not_held().len();
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(count), [4, 4, 3, 2, 1, 0, 0]);
        assert_eq!(Landlock { version: 3 }.not_held()[0], "TCP");
    }
}
