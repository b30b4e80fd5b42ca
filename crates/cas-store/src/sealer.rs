//! Sealing beside the work: a thread that now and then waits for the disk, so that nobody else has to.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::disk::Disk;
use crate::vault::Vault;

/// How long something may be unsealed while a process works on.
const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    /// The work is done.
    is_ending: bool,
    /// The thread waits for the disk.
    is_sealing: bool,
}

/// The thread. Dropping it ends it; when it waits for the disk just then, it is left behind, and whatever it has not sealed
/// by the end of the process is sealed by a later one.
#[derive(Debug)]
pub(crate) struct Sealer {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts with what ended sessions left unsealed, then goes on once a minute.
    pub(crate) fn start<D: Disk>(vault: &Arc<Vault<D>>) -> Self {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (shared, vault) = (Arc::clone(&state), Arc::downgrade(vault));
        let work = move || {
            let (state, signal) = &*shared;
            let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
            while !guard.is_ending {
                guard.is_sealing = true;
                drop(guard);
                {
                    let Some(vault) = vault.upgrade() else { return };
                    // A failed flush poisons the vault, so that the next one who writes hears of it.
                    if matches!(vault.epochs.is_sealable(), Ok(true)) && vault.seal().is_err() {
                        return;
                    }
                }
                guard = state.lock().unwrap_or_else(PoisonError::into_inner);
                guard.is_sealing = false;
                if !guard.is_ending {
                    guard = signal.wait_timeout(guard, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        };
        // Without a thread nothing is sealed, which costs hashing after a loss of power.
        let thread = std::thread::Builder::new().name("seal".to_owned()).spawn(work).ok();
        Self { state, thread }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        let (state, signal) = &*self.state;
        let is_sealing = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_ending = true;
            state.is_sealing
        };
        signal.notify_all();
        if let Some(thread) = self.thread.take().filter(|_| !is_sealing) {
            // A panic of the thread was printed; it concerns nobody else.
            let _ = thread.join();
        }
    }
}
