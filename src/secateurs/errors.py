"""The one exception that means: what the caller gave cannot be used; what disks may answer."""

from __future__ import annotations

import errno

# No room: a full disk, a full quota, or a file larger than the file system or a limit allows.
FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG})
# A place that cannot be used, which is the user's to know and not a fault of ours.
UNUSABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
    | {errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY}
    | {getattr(errno, "ESTALE", errno.EIO), errno.ENXIO, errno.ENODEV}
)


class InputError(ValueError):
    """Bad input: the message is one line that says what was wrong, where, and the fix if known.

    The command line prints it and exits with code 2; every other exception is our own mistake.

    >>> raise InputError("depth 9 is outside 0..7 of alexnet")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: depth 9 is outside 0..7 of alexnet
    """
