"""Servers of shared file systems, each with two independent clients, in a User-mode Linux guest.

A test marked `nfs` runs in the guest with Linux's NFS server, one marked `shared` with each server
that it names. There the fixture `lab` gives it a fresh directory of the export as client A, client
B and the server see it:

    @pytest.mark.nfs(version=("3", "4.2"), rtt_ms=1)
    @pytest.mark.shared(server=("smb", "sshfs"))
    def test_something(lab): ...

Outside the guest: `plugin` (markers, option, parameters), `replay` (runs marked tests in guests and
reports what happened there), `guest` (boots one), `shell` (a guest for a developer).
Inside: `init` (its first process), `inside` (the pytest plugin there), `laboratory` (the fixture's
class), `servers` (a module for each), `export` (what they serve), `client`, `rpcs`; `logged` and
`devices` (disks whose power can be cut).
"""
