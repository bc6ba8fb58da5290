"""A real Linux NFS server and two independent clients of it, inside a User-mode Linux guest.

A test marked `nfs` runs in the guest, where the fixture `lab` gives it a fresh directory of the
export as client A, client B and the server see it:

    @pytest.mark.nfs(version=("3", "4.2"), rtt_ms=1)
    def test_something(lab): ...

Outside the guest: `plugin` (marker, option, parameters), `replay` (runs marked tests in guests and
reports what happened there), `guest` (boots one), `shell` (a guest for a developer).
Inside: `init` (its first process), `inside` (the pytest plugin there), `laboratory` (the fixture's
class), `server`, `client`, `rpcs`; `logged` and `devices` (disks whose power can be cut).
"""
