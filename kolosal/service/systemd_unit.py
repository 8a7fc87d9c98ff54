"""A service as a unit file of systemd. Pure: text."""

from __future__ import annotations

from kolosal.service.definition import DESCRIPTION, MARK, ServiceDefinition

_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
# GPUs, and nothing else beyond /dev/null and the like
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-nvidia-caps rw
DeviceAllow=char-drm rw
DeviceAllow=/dev/kfd rw
"""


def unit_text(service: ServiceDefinition, *, user: bool) -> str:
    """The unit: of the system, with few rights, or with `user` of the user who installs it."""
    start = " ".join(map(_quoted, service.argv))
    # a unit of the system waits for the network, which a user's manager knows nothing of
    network = "" if user else "Wants=network-online.target\nAfter=network-online.target\n"
    return f"""\
# Written by `{MARK}`, and removed by `kolosal service uninstall`.
# Changes: systemctl {"--user " if user else ""}edit {service.name}

[Unit]
Description={DESCRIPTION}
{network}StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
{"" if user else _system(service)}\
Restart=on-failure
RestartSec=5
# a configuration that cannot be used does not get better
RestartPreventExitStatus=2
WatchdogSec=30
TimeoutStartSec=120
TimeoutStopSec={service.stop_s}
KillMode=mixed
# a model's process that takes too much memory ends, and is started again by the daemon
OOMPolicy=continue
LimitNOFILE=65536
{"NoNewPrivileges=yes" if user else _HARDENING.rstrip()}

[Install]
WantedBy={"default.target" if user else "multi-user.target"}
"""


def _system(service: ServiceDefinition) -> str:
    """The account, and its folders: /etc/NAME to be configured from, /var/lib/NAME to write in."""
    name = service.name
    account = "DynamicUser=yes\n" if service.account is None else f"User={service.account}\n"
    return f"""\
{account}StateDirectory={name}
StateDirectoryMode=0700
ConfigurationDirectory={name}
WorkingDirectory=/etc/{name}
Environment=HOME=%S/{name} KOLOSAL_STATE_DIR=%S/{name}
LimitMEMLOCK=infinity
"""


def _quoted(word: str) -> str:
    """One word of a command line as systemd reads it: `%` and `$` mean nothing."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if not plain or any(char in plain for char in " \t'\"\\;") else plain
