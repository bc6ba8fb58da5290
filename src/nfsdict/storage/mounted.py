"""Mounted: the rules of ``mounts`` for one store, found out once; and what times prove there."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from ..layout import whole_seconds
from .file_systems import UNKNOWN, Kind, Lookup, Stamps
from .mountinfo import Mount, mount_of
from .mounts import Finding, findings, kind_of, lists_attributes
from .mountstats import Listings, calls_sent, listings

log = logging.getLogger("nfsdict")

# The bytes of an entry with attributes and a file handle of 8 bytes, in a reply to READDIRPLUS
# (RFC 1813, 3.3.17), and to READDIR with the attributes that Linux's client asks of version 4 (RFC
# 8881, 18.23), but for two or three of them that a server may not have.
_LISTED_V3 = 130
_LISTED_V4 = 170


class Mounted:
    """The mount that holds a store's directory. Safe for threads.

    ``trust_stamps``: the clocks of all clients are kept.
    """

    def __init__(self, directory: str, trust_stamps: bool) -> None:
        self._directory = directory
        self._trust_stamps = trust_stamps
        self._mount: Mount | None = None
        self._kind: Kind | None = None
        self._lists_attributes: bool | None = None

    def mount(self, path: str) -> Mount | None:
        """The mount; None while it can't be found out. The first path asked for decides, as the
        store's directory may be missing yet."""
        if self._mount is None:
            with suppress(OSError):
                self._mount = mount_of(path)
        return self._mount

    @property
    def kind(self) -> Kind:
        """The rules: the most careful ones while the mount can't be found out."""
        return self._kind or self._kind_at(self._directory)

    def _kind_at(self, path: str) -> Kind:
        if self._kind is None:
            mount = self.mount(path)
            if mount is None:
                return UNKNOWN
            self._kind = kind_of(mount, self._trust_stamps)
            told = self._directory, mount.type or "unknown", self._kind.lookup.name
            log.debug("%s: on a file system of type %s: names are looked up by %s", *told)
        return self._kind

    def findings(self) -> list[Finding]:
        """What can be told of the mount without asking its server: see ``mounts.findings``."""
        mount = self.mount(self._directory)
        return [] if mount is None else findings(mount)

    @property
    def shows_options(self) -> bool:
        """Whether the system shows the mount's options: of FUSE's file systems it doesn't."""
        mount = self.mount(self._directory)
        return mount is None or not mount.type.startswith("fuse.")

    def calls_sent(self) -> int | None:
        """The calls that this host has sent over the mount so far; None if it is no NFS mount."""
        mount = self._mount if self._over_nfs else None
        return None if mount is None else calls_sent(mount.point)

    def synchronous(self, path: str) -> bool:
        """Whether directory operations here need no fsync, or can't have one (Windows)."""
        return os.name == "nt" or not self._kind_at(path).syncs

    # --- what times prove ----------------------------------------------------------------------

    @property
    def one_clock(self) -> bool:
        """Whether one clock sets the times of all files, so that they can be compared."""
        return self.kind.stamps in (Stamps.SERVER, Stamps.FILES)

    @property
    def unclocked(self) -> int | None:
        """What stands for the server's time where times can't be compared: a time after all others,
        if equal signatures prove equal content nevertheless; else None."""
        return 1 << 64 if self.kind.stamps is Stamps.CLIENTS else None

    @property
    def opening_asks(self) -> bool:
        """Whether opening a directory tells its times as they are now."""
        return self.kind.lookup in (Lookup.OPEN, Lookup.NFS)

    @property
    def asks_stamps(self) -> bool:
        """Whether a directory can be asked for its stamp, and while that is the same, no name in it
        has changed."""
        return self.kind.stamps is Stamps.SERVER and self.kind.lookup is not Lookup.LISTING

    @property
    def proves_stamps(self) -> bool:
        """Whether stamps prove anything, however they are learnt."""
        return self.kind.stamps is Stamps.SERVER and (self.asks_stamps or self.lists_attributes())

    def signed(self, signature: bytes) -> bytes:
        """The signature as far as it is the same however the file is asked for it."""
        return whole_seconds(signature) if self.kind.whole_seconds else signature

    # --- what listings bring -------------------------------------------------------------------

    @property
    def _over_nfs(self) -> bool:
        return self.kind.lookup in (Lookup.NFS, Lookup.LISTING)

    def lists_attributes(self) -> bool:
        """Whether listings bring attributes on this mount. Found out once, and logged; False while
        it can't be found out."""
        mount = self.mount(self._directory)
        if self._lists_attributes is None and mount is not None:
            try:
                self._lists_attributes = self._over_nfs and lists_attributes(mount)
            except OSError:  # such as EMFILE, which passes
                return False
            if self._over_nfs and not self._lists_attributes:
                log.info("%s: shards are asked for their stamps one by one", self._directory)
        return bool(self._lists_attributes)

    def lists_signatures(self) -> bool:
        """Whether a file has, in a listing, the signature that it has on the server."""
        return self.lists_attributes() if self._over_nfs else not self.kind.caches_content

    def listings(self) -> Listings | None:
        """What this host has done so far to learn names from the server; None where that isn't
        told."""
        mount = self.mount(self._directory)
        return listings(mount.point) if mount is not None and self._over_nfs else None

    def size_of_attributes(self) -> int:
        """How many bytes an entry takes at least in a server's listing that has attributes."""
        mount = self.mount(self._directory)
        return _LISTED_V4 if mount is not None and mount.type == "nfs4" else _LISTED_V3

    def distrust_listings(self, reason: str) -> None:
        """From here on ``lists_attributes`` is False."""
        self._lists_attributes = False
        log.info("%s: shards are asked for their stamps one by one: %s", self._directory, reason)
