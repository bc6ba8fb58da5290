"""Refusals: what the errors of a write, a rename or a link mean."""

from __future__ import annotations

import errno

# EBUSY and ETXTBSY: Linux's client has the rename's target open and fails to put it aside, because
# another host has just removed it (fs/nfs/dir.c, nfs_rename). Nothing was done then.
TRANSIENT = (errno.ENOENT, errno.ESTALE, errno.EBUSY, errno.ETXTBSY)
# After these errors a rename or link has done nothing, if the file system is ``Kind.trusted``.
# ENOENT isn't among them, as it can also come from a lost reply.
REFUSED = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        getattr(errno, "EDQUOT", errno.ENOSPC),
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EMLINK,
        errno.EEXIST,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ESTALE,
        errno.EBUSY,
        errno.ETXTBSY,
    }
)
# Errors of file systems without hard links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
# Errors from reading something that isn't a regular file, and so no value.
NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
