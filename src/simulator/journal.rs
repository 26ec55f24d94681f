//! The state file: each call's changes as one JSON line, so that the simulator knows its intents after a restart.
//! Owns: the file, its lock and the thread that writes it. Does not own: what a change means (`book`).
//! A call is answered once its line is with the operating system: what a caller was told survives a kill of this
//! process. It is not synced to disk, so a power cut may lose the last lines.

use std::{
    fs::{File, TryLockError},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

use super::book::Change;

/// Lines that have queued up are written together, this many at most.
const BATCH: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the state file {path} can't be used: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the state file {path} is in use by another simulator")]
    InUse { path: PathBuf },
    #[error("line {line} of the state file {path} can't be read: {source}")]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
}

struct Entry {
    changes: Vec<Change>,
    written: oneshot::Sender<()>,
}

pub struct Journal {
    /// None once closed.
    queue: Mutex<Option<mpsc::UnboundedSender<Entry>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the file, or makes it, and hands every change in it to `apply`, oldest first.
    pub fn open(path: &Path, apply: impl FnMut(Change)) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let file = File::options().read(true).append(true).create(true).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        load(&file, path, apply)?;
        let (queue, entries) = mpsc::unbounded_channel();
        let writer =
            std::thread::Builder::new().name("simulator-journal".to_owned()).spawn(move || write_all(file, entries)).map_err(io)?;
        Ok(Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Puts a call's changes in the queue; to be called under the book's lock, which gives the order. The receiver
    /// resolves when they are written, to an error when they can't be.
    pub fn write(&self, changes: Vec<Change>) -> oneshot::Receiver<()> {
        let (written, answer) = oneshot::channel();
        if let Some(queue) = &*lock(&self.queue) {
            // A writer that has given up drops the entry, and with it the sender: the receiver sees an error.
            let _ = queue.send(Entry { changes, written });
        }
        answer
    }

    /// Waits for the last lines: the file is complete and free afterwards. Later changes are refused.
    pub fn close(&self) {
        *lock(&self.queue) = None;
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the simulator's state file panicked");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(file: &File, path: &Path, mut apply: impl FnMut(Change)) -> Result<(), JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    let mut complete = 0;
    for line in 1.. {
        text.clear();
        let length = reader.read_until(b'\n', &mut text).map_err(io)?;
        if length == 0 {
            break;
        }
        if text.last() != Some(&b'\n') {
            // Torn by a kill in the middle of a write: its call was not answered, so it did not happen.
            file.set_len(complete).map_err(io)?;
            break;
        }
        let changes: Vec<Change> =
            serde_json::from_slice(&text).map_err(|source| JournalError::Line { path: path.to_owned(), line, source })?;
        changes.into_iter().for_each(&mut apply);
        complete += length as u64;
    }
    Ok(())
}

fn write_all(mut file: File, mut entries: mpsc::UnboundedReceiver<Entry>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut lines = Vec::new();
    while entries.blocking_recv_many(&mut batch, BATCH) > 0 {
        lines.clear();
        let encoded = batch.iter().try_for_each(|entry| {
            serde_json::to_writer(&mut lines, &entry.changes)?;
            lines.write_all(b"\n")
        });
        if let Err(error) = encoded.and_then(|()| file.write_all(&lines)) {
            // A line may be half written: nothing may follow it. Every later change is refused.
            tracing::error!(%error, "the simulator's state file can't be written");
            return;
        }
        for entry in batch.drain(..) {
            // The caller may have gone away in the meantime.
            let _ = entry.written.send(());
        }
    }
}
