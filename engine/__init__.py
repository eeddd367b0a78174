"""Ketter's engine: moves a tree from one host to another and proves that it arrived.

This module holds all public names; none of them needs Django or a database. A name is
imported at its first use, so that the command line can start to connect before everything
is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.connect.ssh import fetch_host_key, fingerprint
    from engine.connect.ssh_files import sweep
    from engine.connection_probe import probe
    from engine.errors import (
        AgentFailed,
        AgentLost,
        AuthFailed,
        BadRequest,
        Cancelled,
        ConnectError,
        ConnectionLost,
        ConnectionRefused,
        DeliveredGone,
        EngineError,
        HostKeyChanged,
        HostKeyUnknown,
        HostUnreachable,
        Interrupted,
        NoPython,
        NoSpace,
        Overlap,
        PathOutsideRoot,
        PermissionDenied,
        Replaced,
        RootMissing,
        RootMoved,
        SourceChanged,
        SourceMissing,
        StagingNotOurs,
        Stalled,
        TargetBusy,
        TargetExists,
        VerifyFailed,
    )
    from engine.leftovers import discard
    from engine.observer import Observer, SilentObserver
    from engine.plan.filters import check_filters
    from engine.share.helper import Helper
    from engine.transfer import dry_run, run
    from engine.types import (
        Endpoint,
        EntryFailure,
        HardLinks,
        HostKey,
        Mode,
        OnConflict,
        ParcelKind,
        ParcelReport,
        ParcelState,
        Phase,
        Probe,
        Progress,
        Report,
        Request,
        SshAccess,
        Strategy,
        Symlinks,
        Verify,
        display_path,
    )

_MODULES = {
    "leftovers": ("discard",),
    "connection_probe": ("probe",),
    "connect.ssh": ("fetch_host_key", "fingerprint"),
    "connect.ssh_files": ("sweep",),
    "share.helper": ("Helper",),
    "plan.filters": ("check_filters",),
    "transfer": ("dry_run", "run"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in __all__:
        raise AttributeError(name)
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"engine.{module}"), name)
    for module in ("errors", "types", "observer"):
        found = getattr(import_module(f"engine.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(name)


__all__ = [
    "AgentFailed",
    "AgentLost",
    "AuthFailed",
    "BadRequest",
    "Cancelled",
    "ConnectError",
    "ConnectionLost",
    "ConnectionRefused",
    "DeliveredGone",
    "Endpoint",
    "EngineError",
    "EntryFailure",
    "HardLinks",
    "Helper",
    "HostKey",
    "HostKeyChanged",
    "HostKeyUnknown",
    "HostUnreachable",
    "Interrupted",
    "Mode",
    "NoPython",
    "NoSpace",
    "Observer",
    "OnConflict",
    "Overlap",
    "ParcelKind",
    "ParcelReport",
    "ParcelState",
    "PathOutsideRoot",
    "PermissionDenied",
    "Phase",
    "Probe",
    "Progress",
    "Replaced",
    "Report",
    "Request",
    "RootMissing",
    "RootMoved",
    "SilentObserver",
    "SourceChanged",
    "SourceMissing",
    "SshAccess",
    "StagingNotOurs",
    "Stalled",
    "Strategy",
    "Symlinks",
    "TargetBusy",
    "TargetExists",
    "Verify",
    "VerifyFailed",
    "check_filters",
    "discard",
    "display_path",
    "dry_run",
    "fetch_host_key",
    "fingerprint",
    "probe",
    "run",
    "sweep",
]
