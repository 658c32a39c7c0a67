//! Unix sockets that listen (unix(7)): their files, and whose those are.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use mio::net::TcpListener;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::umask;
use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a socket that this process listens on. It is removed with this, if it is still that one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode. `None`: the socket is another process's now.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// The file that is at a path.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Some(identity(path)?),
        })
    }

    /// Leaves the file to another process.
    pub(crate) fn leave(mut self) {
        self.identity = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_none() {
            return;
        }
        let _lock = lock_folder(&self.path);
        let is_ours = identity(&self.path).ok() == self.identity;
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("a unix socket's file can't be removed: {error}");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes a listener, and its file with these permissions, or what the umask leaves. A file of a socket on
/// which nobody listens any more makes room.
///
/// # Errors
/// `AddrInUse`: somebody listens there. `AlreadyExists`: what is there is no socket.
pub(crate) fn bind(
    path: &Path,
    backlog: i32,
    mode: Option<u32>,
) -> io::Result<(TcpListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let address = SockAddr::unix(path)?;
    // Between the look and the new file nobody else of this program looks.
    let _lock = lock_folder(path);
    let bind = || {
        // The kernel gives the file all permissions but these. To change them afterwards would go by a
        // path that may lead elsewhere by then.
        let before = mode.map(|mode| umask(Mode::from_raw_mode(0o777 & !mode)));
        let bound = socket.bind(&address);
        before.map(umask);
        bound
    };
    match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            bind()?;
        }
        result => result?,
    }
    let file = SocketFile::of(path)?;
    socket.listen(backlog)?;
    Ok((TcpListener::from_std(socket.into()), file))
}

/// Removes a socket's file if nobody listens.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    // Where the queue is full it fails at once, with EAGAIN.
    let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match client.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Whether somebody listens there isn't ours to know.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        // A socket of another kind.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            Err(ErrorKind::AlreadyExists.into())
        }
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Keeps others of this program from looking at the files of a folder's sockets. Where it can't be locked
/// they may both find one stale.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = match path.parent()? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::LockExclusive).ok()?;
    Some(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("socket")
    }

    #[test]
    fn a_socket_of_another_kind_is_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let _other = std::os::unix::net::UnixDatagram::bind(path(&folder)).unwrap();
        let error = bind(&path(&folder), 1, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_stale_file_makes_room_and_a_live_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder);
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&path, 1, None).unwrap();
        UnixStream::connect(&path).unwrap();
        // Its queue is full now, which is no reason to take it for stale.
        for _ in 0..2 {
            let error = bind(&path, 1, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder);
        fs::write(&path, "content").unwrap();
        let error = bind(&path, 1, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    }

    #[test]
    fn only_a_file_of_ones_own_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder);
        let (listener, file) = bind(&path, 1, None).unwrap();
        fs::remove_file(&path).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        drop((listener, file));
        UnixStream::connect(&path).unwrap();
        drop(theirs);

        let (_listener, file) = bind(&path, 1, None).unwrap();
        file.leave();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn the_mode_is_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder);
        for mode in [0o600, 0o660, 0o666] {
            let _bound = bind(&path, 1, Some(mode)).unwrap();
            let permissions = fs::metadata(&path).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
        }
    }
}
